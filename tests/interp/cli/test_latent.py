"""``interp latent``: what it writes, its plan, and wrong calls in one line."""

from __future__ import annotations

import pytest

from interp.analyses.latent import LatentResult
from interp.results import load
from tests.interp.cli.conftest import Call


def test_latent_leaves_a_run(call: Call) -> None:
    answer = call("latent", "--layers", "4", "--no-edits", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, LatentResult)
    assert found.verdict() == answer.envelope["data"]["verdict"]
    assert found.connected is True
    assert answer.envelope["data"]["numbers"]["capital-score"]["low"] > 0.2


def test_a_plan_runs_nothing(call: Call) -> None:
    answer = call("latent", "--layers", "4", "--limit", "12", "--dry-run", "--json")
    assert answer.code == 0, answer.err
    assert answer.envelope["status"] == "planned"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("latent", "--control", "edited"), "latent-shuffled"),
        (("latent", "--weights", "trained", "--control", "trained"), "another twin"),
        (("latent", "--layers", "99"), "99"),
    ],
)
def test_wrong_calls(call: Call, line: tuple[str, ...], said: str) -> None:
    answer = call(*line)
    assert answer.code in (2, 3, 4) and said in answer.err
