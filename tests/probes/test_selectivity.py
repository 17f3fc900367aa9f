"""Shuffled labels and control tasks: known answers and null simulations."""

from __future__ import annotations

import numpy as np
import pytest

from probes import LogisticProbe, MeanDifferenceProbe
from probes.evaluation import permutation_test, selectivity

Part = tuple[np.ndarray, np.ndarray]


def halves(signal: float, *, seed: int, n: int = 80) -> tuple[Part, Part, np.ndarray]:
    """Two classes in groups of two, ``signal`` apart in one of forty columns; train and test."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(rng.permutation(np.arange(n // 4) % 2), 2) for _ in range(2)])
    X = rng.normal(size=(n, 40))
    X[:, 0] += signal * labels
    half = n // 2
    return (X[:half], labels[:half]), (X[half:], labels[half:]), np.repeat(np.arange(n // 4), 2)


def test_a_signal_beats_its_shuffles_and_the_probe_is_not_changed() -> None:
    train, test, groups = halves(5.0, seed=0)
    probe = MeanDifferenceProbe()
    found = permutation_test(probe, train, test, groups=groups, n_shuffles=39)
    assert vars(probe) == {}
    assert found.score > 0.7
    assert found.p_value == pytest.approx(1 / 40)
    assert found.null.shape == (39,)
    assert abs(found.null.mean() - 0.5) < 0.1


def test_without_a_signal_p_values_are_spread_evenly() -> None:
    low = 0
    for seed in range(100):
        train, test, groups = halves(0.0, seed=seed)
        found = permutation_test(MeanDifferenceProbe(), train, test, groups=groups, n_shuffles=9)
        low += found.p_value <= 0.1
    assert 2 <= low <= 20  # 10 expected, standard deviation 3


def words(n: int = 400, *, seed: int = 0) -> tuple[Part, Part, tuple[list[int], list[int]], np.ndarray]:
    """Forty words with an identity each, half of them of either class; a word's states differ by noise."""
    rng = np.random.default_rng(seed)
    code, classes = rng.normal(size=(40, 30)), np.arange(40) % 2
    code[:, 0] += 6 * classes
    which = rng.integers(0, 40, n)
    X = code[which] + 0.1 * rng.normal(size=(n, 30))
    half, y = n // 2, classes[which]
    keys = which[:half].tolist(), which[half:].tolist()
    return (X[:half], y[:half]), (X[half:], y[half:]), keys, which[half:]


def test_what_is_common_to_words_is_selective_and_what_is_stored_is_not() -> None:
    train, test, keys, groups = words()
    found = selectivity(LogisticProbe(regularisation=1e-4), train, test, keys, groups=groups)
    assert found.task.value > 0.95
    assert found.control.value > 0.75  # thirty columns tell forty words apart: it stores them
    assert found.difference.value == pytest.approx(found.task.value - found.control.value)
    simple = selectivity(MeanDifferenceProbe(), train, test, keys, groups=groups)
    assert simple.task.value > 0.95
    assert simple.difference.value > found.difference.value  # one direction of means stores less


def test_lengths_that_differ_are_refused() -> None:
    train, test, keys, _ = words()
    with pytest.raises(ValueError, match="199 keys for 200 training examples"):
        selectivity(MeanDifferenceProbe(), train, test, (keys[0][1:], keys[1]))
    with pytest.raises(ValueError, match="n_shuffles=0 asked"):
        permutation_test(MeanDifferenceProbe(), train, test, n_shuffles=0)
