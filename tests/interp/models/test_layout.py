"""Another layout of batches changes which prompts are run together, and of the numbers only the rounding."""

from __future__ import annotations

import pytest

from interp import load
from interp.errors import ConfigError
from interp.models.forward import layout, most_prompts, plan_batches
from tests.tiny import build


def test_a_layout_limits_automatic_batches_alone_and_ends_with_its_block() -> None:
    lengths = [3, 5, 4, 3, 6, 2, 2]
    whole = plan_batches(lengths, "auto")
    assert len(whole) == 1
    with layout(3):
        assert [len(batch) for batch in plan_batches(lengths, "auto")] == [3, 3, 1]
        assert [len(batch) for batch in plan_batches(lengths, 5)] == [5, 2]
        assert most_prompts() == 3
    assert plan_batches(lengths, "auto") == whole
    assert most_prompts() is None
    with pytest.raises(ConfigError, match="1 prompt or more"), layout(0):
        pass


def test_logits_in_another_layout_are_the_same_up_to_rounding() -> None:
    model = load(build("llama"))
    prompts = [[1, 5, 9, 33], [1, 40, 2], [1, 7, 7, 7, 20, 11], [1, 3]]
    whole = model.logits(prompts)
    with layout(2):
        parts = model.logits(prompts)
    assert (whole - parts).abs().max() < 1e-5 * whole.abs().max()
