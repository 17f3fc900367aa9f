"""What every probing analysis says of its prompts and of its many looks."""

from __future__ import annotations

import numpy as np

from interp.analyses.multiple_comparisons import audited, leak_note, many_looks
from probes.evaluation import Split


def test_the_best_of_many_looks_is_named_with_its_price() -> None:
    rng = np.random.default_rng(0)
    reference = np.zeros(100)
    scores = [rng.integers(0, 2, 100) * 0.0, (rng.random(100) < 0.6) * 1.0, np.zeros(100)]
    found = many_looks([4, 8, 12], scores, reference, groups=range(100), against="guessing", seed=0)
    assert found is not None and found.best == 8
    assert found.p_value < 0.01
    assert "best of 3 layers on test is layer 8" in found.sentence
    assert "corrected for the choice among 3" in found.sentence
    nothing = many_looks([4, 8], [reference, reference], reference, groups=range(100), against="x", seed=0)
    assert nothing is not None and nothing.p_value == 1.0
    assert many_looks([4], scores[:1], reference, groups=range(100), against="guessing", seed=0) is None


def test_a_leak_is_a_warning_with_its_remedy_and_what_is_expected_is_none() -> None:
    texts, labels, groups = ["a red hen", "a blue hen", "a red hen"], ["x", "y", "x"], ["g", "h", "g"]
    split = Split(np.arange(2), np.arange(0), np.array([2]))
    found = audited(texts, labels, split, groups=groups)
    assert found.counts == {"duplicate": 1, "near duplicate": 0, "group": 1, "answer": 0}
    assert leak_note(found).startswith(
        "leaks: 1 of 1 test prompts also stand in training or validation (rows 2)"
    )
    assert "keep each prompt once" in leak_note(found)
    clean = audited(texts, labels, split, groups=groups, expected=("duplicate", "group"))
    assert clean.clean
    assert leak_note(clean) == ""
