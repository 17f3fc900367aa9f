"""Probes for numbers against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from probes import LinearRegressionProbe, RidgeRegressionProbe


def numbers(
    n: int = 200, dim: int = 6, *, noise: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers that are linear in the features, by the same map for every seed."""
    rng, weights = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(dim, 2))
    X = rng.normal(size=(n, dim)) * np.arange(1, dim + 1) + 10
    return X, X @ weights + noise * rng.normal(size=(n, 2)) + [3.0, -70.0]


def test_least_squares_is_least_squares() -> None:
    X, y = numbers()
    probe, oracle = LinearRegressionProbe().fit(X, y), LinearRegression().fit(X, y)
    assert np.allclose(probe.coef_, oracle.coef_)
    assert np.allclose(probe.intercept_, oracle.intercept_)
    assert not np.allclose(RidgeRegressionProbe(regularisation=0.1).fit(X, y).coef_, oracle.coef_, rtol=1e-3)


def test_ridge_is_ridge_on_standardised_features_with_a_penalty_per_example() -> None:
    X, y = numbers()
    probe = RidgeRegressionProbe(regularisation=0.2).fit(X, y)
    oracle = Ridge(alpha=0.2 * len(X)).fit((X - X.mean(axis=0)) / X.std(axis=0), y)
    assert np.allclose(probe.coef_ * X.std(axis=0), oracle.coef_)
    assert np.allclose(probe.predict(X), oracle.predict((X - X.mean(axis=0)) / X.std(axis=0)))
    weaker = Ridge(alpha=0.2).fit((X - X.mean(axis=0)) / X.std(axis=0), y)
    assert not np.allclose(probe.coef_ * X.std(axis=0), weaker.coef_, rtol=1e-3)


def test_the_score_is_the_mean_coefficient_of_determination() -> None:
    X, y = numbers()
    probe = RidgeRegressionProbe().fit(X[:100], y[:100])
    assert probe.score(X[100:], y[100:]) == pytest.approx(r2_score(y[100:], probe.predict(X[100:])))
    one = RidgeRegressionProbe().fit(X[:100], y[:100, 0])
    assert one.predict(X[100:]).shape == (100,)
    assert one.score(X[100:], y[100:, 0]) == pytest.approx(r2_score(y[100:, 0], one.predict(X[100:])))


@pytest.mark.parametrize("given", [True, False])
def test_the_penalty_fits_the_noise(given: bool) -> None:
    chosen = {}
    for noise in (0.01, 60.0):
        X, y = numbers(60, 20, noise=noise)
        later = numbers(60, 20, noise=noise, seed=1) if given else None
        probe = RidgeRegressionProbe().fit(X, y, groups=np.arange(60) // 2, validation=later)
        chosen[noise] = probe.notes_["regularisation"]
    assert chosen[0.01] < chosen[60.0]


def test_a_target_that_does_not_vary_scores_zero() -> None:
    X, y = numbers()
    y[:, 1] = 7.0
    assert LinearRegressionProbe().fit(X, y).score(X, y) == pytest.approx(
        r2_score(y[:, 0], LinearRegressionProbe().fit(X, y[:, 0]).predict(X)) / 2
    )


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * 200, "y holds 'a'; a regression predicts numbers"),
        ([1.0] * 199, r"y has shape \(199,\) for 200 examples"),
        ([float("nan")] * 200, "y holds numbers that are not finite"),
    ],
)
def test_what_is_no_number_is_refused(y: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearRegressionProbe().fit(numbers()[0], y)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("penalty", [0.0, -1.0, (), (0.1, float("nan"))])
def test_a_penalty_must_be_positive(penalty: float) -> None:
    with pytest.raises(ValueError, match="give a positive number"):
        RidgeRegressionProbe(regularisation=penalty).fit(*numbers())
