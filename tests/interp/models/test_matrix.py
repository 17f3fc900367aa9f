"""The matrix of families, against plain hooks and whole passes; see ``tests.family_matrix``."""

from __future__ import annotations

import pytest

from tests.family_matrix import COLUMNS, KINDS, LIMITS, loaded, measured, refusal

REFUSED = {"deepseek_v4": "several streams at once"}
QUICK = (
    "llama",
    "gemma2",
    "gpt2",
    "qwen3_5_text",
    "qwen3_moe",
    "gpt_oss",
    "gemma3n_text",
    "gemma4_text",
    "deepseek_v3",
    "llama4_text",
    "granitemoehybrid",
    "nemotron_h",
    "mamba",
    "recurrent_gemma",
    "mistral3",
)
EVERY = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


def test_there_are_many() -> None:
    assert len(KINDS) >= 80 and set(QUICK) <= set(KINDS)


@pytest.mark.parametrize("kind", EVERY)
def test_every_column_holds(kind: str) -> None:
    if kind in REFUSED:
        assert REFUSED[kind] in refusal(kind)
        return
    assert not refusal(kind)
    found = measured(kind)
    wrong = {name: value for name, value in found.items() if value is not None and not value <= LIMITS[name]}
    assert not wrong and set(found) == set(COLUMNS)
    assert found["head"] is not None or loaded(kind).n_heads == 0
