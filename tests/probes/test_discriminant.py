"""Discriminants against scikit-learn and their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from probes import LDAProbe, LogisticProbe, MeanDifferenceProbe, WhitenedMeanDifferenceProbe


def correlated(n: int = 4000, *, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes apart along one axis, with a large shared variation along another that leans on it."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, n)
    mix = np.array([[1.0, 0.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.5, 2.0]])
    X = rng.normal(size=(n, 3)) @ mix
    X[:, 0] += 2.0 * codes
    return X, codes


def test_the_whitened_direction_is_that_of_fisher() -> None:
    X, y = correlated()
    probe = WhitenedMeanDifferenceProbe().fit(X, y)
    means = [X[y == code].mean(axis=0) for code in (0, 1)]
    pooled = np.cov(np.concatenate([X[y == code] - means[code] for code in (0, 1)]).T, bias=True)
    wanted = np.linalg.solve(pooled, means[1] - means[0])
    found = probe.coef_[1] - probe.coef_[0]
    assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.9999
    assert probe.decision_function((means[0] + means[1])[None] / 2) == pytest.approx(0, abs=1e-9)


def test_whitening_finds_what_the_plain_difference_misses() -> None:
    X, y = correlated()
    later, labels = correlated(seed=1)
    whitened = WhitenedMeanDifferenceProbe().fit(X, y).score(later, labels)
    assert whitened > MeanDifferenceProbe().fit(X, y).score(later, labels) + 0.1
    assert whitened == pytest.approx(LogisticProbe().fit(X, y).score(later, labels), abs=0.02)


@pytest.mark.parametrize("classes", [2, 3])
def test_lda_predicts_as_scikit_learn_does(classes: int) -> None:
    X, y = correlated(classes=classes)
    later, _ = correlated(seed=1, classes=classes)
    oracle = LinearDiscriminantAnalysis(solver="lsqr").fit(X, y)
    assert (LDAProbe().fit(X, y).predict(later) == oracle.predict(later)).mean() > 0.995


def test_fewer_examples_than_dimensions_are_no_obstacle() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 100)), np.arange(40) % 2
    X[:, 0] += 6 * y
    later, labels = rng.normal(size=(400, 100)), np.arange(400) % 2
    later[:, 0] += 6 * labels
    for probe in (WhitenedMeanDifferenceProbe(), LDAProbe()):
        assert probe.fit(X, y).score(later, labels) > 0.6  # chance is 0.5 +- 0.025
    shuffled = WhitenedMeanDifferenceProbe().fit(X[:, 1:], y)
    assert shuffled.score(later[:, 1:], labels) < 0.6
