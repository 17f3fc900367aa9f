"""Each linear probe against an oracle that shares no code with it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from probes.linear import LogisticProbe, MeanDifferenceProbe, NearestCentroidProbe, RidgeProbe


def three_classes(n: int = 240, dim: int = 5, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, n)
    centres = rng.normal(size=(3, dim)) * 1.5
    return (rng.normal(size=(n, dim)) + centres[codes]) * np.arange(1, dim + 1) + 10, codes


def softmax_loss(probe: LogisticProbe, X: np.ndarray, y: np.ndarray, strength: float) -> torch.Tensor:
    """The documented objective, at standardised features, written in torch."""
    scaled = torch.from_numpy((X - X.mean(axis=0)) / X.std(axis=0))
    weights = torch.from_numpy(probe.coef_ * X.std(axis=0)).requires_grad_()
    offsets = torch.from_numpy(probe.intercept_ + probe.coef_ @ X.mean(axis=0)).requires_grad_()
    loss = torch.nn.functional.cross_entropy(scaled @ weights.T + offsets, torch.from_numpy(y))
    loss = loss + strength / 2 * (weights**2).sum()
    gradients = torch.autograd.grad(loss, (weights, offsets))
    return torch.cat([g.abs().flatten() for g in gradients]).max()


def test_logistic_is_at_the_minimum_of_the_documented_objective() -> None:
    X, y = three_classes()
    probe = LogisticProbe(regularisation=0.05).fit(X, y)
    assert softmax_loss(probe, X, y, 0.05) < 1e-4
    assert softmax_loss(probe, X, y, 0.5) > 1e-2


def test_logistic_probabilities_are_the_softmax_of_the_scores() -> None:
    X, y = three_classes()
    probe = LogisticProbe(regularisation=0.1).fit(X, y)
    wanted = torch.softmax(torch.from_numpy(np.asarray(probe.decision_function(X))), dim=1).numpy()
    assert np.allclose(probe.predict_proba(X), wanted)


def test_two_classes_give_the_sigmoid() -> None:
    X, y = three_classes()
    X, y = X[y < 2], y[y < 2]
    probe = LogisticProbe(regularisation=0.1).fit(X, y)
    margin = X @ (probe.coef_[1] - probe.coef_[0]) + probe.intercept_[1] - probe.intercept_[0]
    assert np.allclose(np.asarray(probe.predict_proba(X))[:, 1], 1 / (1 + np.exp(-margin)))


def test_the_penalty_means_the_same_at_every_scale_and_sample_size() -> None:
    X, y = three_classes()
    once = LogisticProbe(regularisation=0.1).fit(X, y)
    shrunk = LogisticProbe(regularisation=0.1).fit(X * 1e-3, y)
    doubled = LogisticProbe(regularisation=0.1).fit(np.vstack([X, X]), np.concatenate([y, y]))
    assert np.allclose(shrunk.coef_ * 1e-3, once.coef_, atol=2e-4)
    assert np.allclose(doubled.coef_, once.coef_, atol=2e-4)
    raw = LogisticProbe(regularisation=0.1, standardise=False).fit(X * 1e-3, y)
    assert not np.allclose(raw.coef_ * 1e-3, once.coef_, atol=2e-2)


def test_the_penalty_is_chosen_on_validation() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 50)), rng.integers(0, 2, 60)
    signal = rng.normal(size=(400, 50))
    held_out = (signal, (signal[:, 0] > 0).astype(int))
    X[:, 0] += 1.5 * (2 * y - 1)
    tried = (1e-5, 0.3)
    probe = LogisticProbe(regularisation=tried).fit(X, y, validation=held_out)
    scores = [LogisticProbe(regularisation=s).fit(X, y).score(*held_out) for s in tried]
    assert scores[0] != scores[1]
    assert probe.notes_["regularisation"] == tried[int(np.argmax(scores))]
    assert probe.score(*held_out) == pytest.approx(max(scores), abs=0.01)


def test_equally_accurate_penalties_give_the_strongest() -> None:
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]] * 10)
    y = (X[:, 0] > 0).astype(int)
    assert LogisticProbe().fit(X, y, validation=(X, y)).notes_["regularisation"] == 1.0
    assert RidgeProbe().fit(X, y).notes_["regularisation"] == 1.0


def test_inner_folds_keep_groups_whole() -> None:
    """Four copies of every example: only folds that cut groups find that learning by heart pays."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 50)
    X = rng.normal(size=(50, 40))
    X[:, 0] += 1.0 * (2 * y - 1)
    X, y, groups = np.repeat(X, 4, axis=0), np.repeat(y, 4), np.repeat(np.arange(50), 4)
    tried = (1e-6, 1.0)
    assert RidgeProbe(regularisation=tried).fit(X, y, groups=groups).notes_["regularisation"] == 1.0
    assert RidgeProbe(regularisation=tried).fit(X, y).notes_["regularisation"] == 1e-6


def test_a_solver_that_stops_early_says_so(caplog: pytest.LogCaptureFixture) -> None:
    X, y = three_classes()
    with caplog.at_level(logging.WARNING):
        probe = LogisticProbe(regularisation=1e-4, max_iterations=2).fit(X, y)
    assert probe.notes_["converged"] is False
    assert "stopped before it converged" in caplog.text
    assert LogisticProbe(regularisation=1e-2).fit(X, y).notes_["converged"] is True


@pytest.mark.parametrize("wrong", [0.0, -1.0, ()])
def test_a_penalty_must_be_positive(wrong: float | tuple[float, ...]) -> None:
    X, y = three_classes()
    with pytest.raises(ValueError, match="give a positive number, or several"):
        RidgeProbe(regularisation=wrong).fit(X, y)


@pytest.mark.parametrize("shape", [(240, 5), (40, 90)])
def test_ridge_agrees_with_scikit_learn(shape: tuple[int, int]) -> None:
    X, y = three_classes(*shape)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    oracle = Ridge(alpha=0.2 * len(X)).fit(scaled, np.eye(3)[y])
    probe = RidgeProbe(regularisation=0.2).fit(X, y)
    assert np.allclose(probe.decision_function(X), oracle.predict(scaled))


def test_ridge_without_scaling_agrees_with_scikit_learn() -> None:
    X, y = three_classes()
    oracle = Ridge(alpha=0.2 * len(X)).fit(X, np.eye(3)[y])
    assert np.allclose(RidgeProbe(regularisation=0.2, standardise=False).fit(X, y).coef_, oracle.coef_)


def test_mean_difference_is_the_difference_of_means() -> None:
    X, y = three_classes()
    X, y = X[y < 2], y[y < 2]
    probe = MeanDifferenceProbe().fit(X, y)
    low, high = X[y == 0].mean(axis=0), X[y == 1].mean(axis=0)
    assert np.allclose(probe.coef_[1] - probe.coef_[0], high - low)
    assert np.allclose(np.diff(np.asarray(probe.decision_function((low + high)[None] / 2))), 0)
    nearer = np.linalg.norm(X - high, axis=1) < np.linalg.norm(X - low, axis=1)
    assert np.array_equal(probe.predict(X) == 1, nearer)


def test_nearest_centroid_agrees_with_scikit_learn() -> None:
    X, y = three_classes(400)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    oracle = NearestCentroid().fit(scaled, y)
    assert np.array_equal(NearestCentroidProbe().fit(X, y).predict(X), oracle.predict(scaled))
    raw = NearestCentroid().fit(X, y)
    assert np.array_equal(NearestCentroidProbe(standardise=False).fit(X, y).predict(X), raw.predict(X))


def test_constant_columns_change_nothing() -> None:
    X, y = three_classes()
    padded = np.hstack([X, np.full((len(X), 1), 1e6)])
    probe = LogisticProbe(regularisation=0.1).fit(padded, y)
    assert np.array_equal(probe.predict(padded), LogisticProbe(regularisation=0.1).fit(X, y).predict(X))
    assert np.all(probe.coef_[:, -1] == 0)


def test_sparse_counts_are_scaled_but_not_centred() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, size=(200, 30)).astype(float)
    y = (counts[:, 0] > counts[:, 1]).astype(int)
    spread = counts.std(axis=0)
    probe = LogisticProbe(regularisation=0.05).fit(sparse.csr_matrix(counts), y)
    oracle = LogisticProbe(regularisation=0.05, standardise=False).fit(counts / spread, y)
    assert np.allclose(probe.coef_ * spread, oracle.coef_, atol=1e-3)


def test_a_class_met_only_in_validation_is_a_miss_not_an_error() -> None:
    X, y = three_classes()
    held_out = (X[:30], ["elsewhere"] * 30)
    probe = LogisticProbe().fit(X, y.astype(str), validation=held_out)
    assert set(probe.classes_) == {"0", "1", "2"}
