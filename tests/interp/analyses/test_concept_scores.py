"""Interpretability: planted sparse sums of known directions, the trap of random libraries, and chance."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from interp.analyses import interpretability
from interp.analyses.concept_scores import KEPT, PENALTY, Score, conclusion, kept_right, score
from interp.errors import ConfigError, DataError
from interp.results import FindingsResult
from tests.dictionaries import random_dictionary
from tests.noisy import demo

N, K, M, DIM = 160, 2, 40, 48
PARTS = (np.arange(96), np.arange(96, N))
GROUPS = tuple(f"g{i}" for i in range(N - 96))


def planted(
    rng: np.random.Generator, *, others: int = 1, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of some of forty orthonormal directions, the first ten of which say the label."""
    basis = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0].T
    labels = rng.integers(0, 10, N)
    states = 2 * basis[labels]
    for _ in range(others):
        states = states + 2 * basis[rng.integers(10, M, N)] * rng.choice([-1, 1], N)[:, None]
    return states + noise * rng.standard_normal(states.shape), labels, basis


def test_sparse_sums_keep_everything_in_their_own_library_and_nothing_in_an_orthogonal_one() -> None:
    states, labels, basis = planted(np.random.default_rng(0))
    for share in (1.0, 0.25, K / M):
        assert kept_right(states, labels, PARTS, basis[:M], share).mean() == 1.0
    assert kept_right(states, labels, PARTS, basis[M:], 0.25).mean() < 0.3


def test_a_random_library_with_as_many_rows_as_dimensions_keeps_everything_whole() -> None:
    states, labels, basis = planted(np.random.default_rng(1), others=3, noise=0.3)
    found = score(states, labels, PARTS, basis[:M])
    big = np.random.default_rng(2).standard_normal((4 * DIM, DIM))
    whole = kept_right(states, labels, PARTS, big, 1.0).mean()
    assert whole > 0.9 and found.states.mean() > 0.9  # the trap
    assert kept_right(states, labels, PARTS, big, 0.1).mean() < found.right[3].mean() - 0.2
    assert found.area.mean() > found.luck.mean() + 0.1


def test_the_classifier_is_ridge_on_the_masked_concepts() -> None:
    rng = np.random.default_rng(3)
    states, labels, basis = planted(rng, others=3, noise=0.3)
    rows = basis[:M] * 5
    z = (states - states[PARTS[0]].mean(0)) @ (rows / 5).T
    z = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)
    for i in range(N):
        z[i, np.argsort(-np.abs(z[i]))[2:]] = 0
    known = z[PARTS[0]] - z[PARTS[0]].mean(0)
    ridge = Ridge(alpha=PENALTY * (known**2).sum() / len(known)).fit(
        z[PARTS[0]], np.eye(10)[labels[PARTS[0]]]
    )
    want = ridge.predict(z[PARTS[1]]).argmax(1) == labels[PARTS[1]]
    np.testing.assert_array_equal(kept_right(states, labels, PARTS, rows, 0.05), want.astype(float))
    assert 0.3 < want.mean() < 1


def test_the_score_is_the_integral() -> None:
    right = np.zeros((len(KEPT), 5))
    right[:2] = 1.0  # kept until half are dropped, then nothing at a quarter
    drawn = np.zeros((8, len(KEPT), 5))
    found = Score(right, drawn, np.ones(5), 100)
    np.testing.assert_allclose(found.area, (0.5 + 0.25 / 2) / 0.99)


def test_planted_concepts_are_told_and_random_libraries_rarely_are() -> None:
    rng = np.random.default_rng(4)
    states, labels, basis = planted(rng, others=3, noise=0.3)
    blank = score(rng.standard_normal((N, DIM)), labels, PARTS, basis[:M])
    assert "at layer 5" in conclusion({5: score(states, labels, PARTS, basis[:M])}, {5: blank}, GROUPS)
    wrong = 0
    for turn in range(60):
        states, labels, _ = planted(rng, others=3, noise=0.3)
        one = score(states, labels, PARTS, rng.standard_normal((M, DIM)), seed=turn)
        wrong += "is not shown" not in conclusion({0: one}, {0: blank}, GROUPS)
    assert wrong <= 3


@cache
def of_demo() -> FindingsResult:
    return interpretability(demo(), n=200, layers="23")


def test_the_bundled_model_beside_its_twin_and_itself() -> None:
    found = {one.name: one for one in of_demo().findings()}
    assert found["accuracy from the states at layer 23"].excess > 0.3
    assert found["score at layer 23"].value > found["score at layer 23"].floor
    assert of_demo().table("kept")["kept"].tolist() == list(KEPT)
    again = interpretability(demo(), n=200, layers="23", reference=of_demo())
    for one, two in zip(of_demo().findings(), again.findings(), strict=True):
        np.testing.assert_array_equal(one.values, two.values)


def test_concepts_of_a_hyperdimensional_probe_are_directions_of_its_labels() -> None:
    found = interpretability(demo(), n=200, layers="23", library="codebook")
    assert "at layer 23" in found.verdict()
    row = found.table("scores").iloc[0]
    assert row["score"] > row["random"] + 0.1 and row["score"] > row["untrained"] + 0.1


def test_a_random_dictionary_is_no_better_than_a_random_library() -> None:
    with pytest.raises(ConfigError, match="has none at layer 23"):
        interpretability(demo(), n=200, layers="23", library="dictionary")
    dictionary = random_dictionary(demo().d_model, 64, site="resid_post.23")
    found = interpretability(demo().with_dictionaries(dictionary), n=200, layers="23", library="dictionary")
    assert "is not shown" in found.verdict() and found.about.data["size"] == 64


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ConfigError, match="library 'words' asked"):
        interpretability(demo(), library="words")
    with pytest.raises(DataError, match="leave too few"):
        interpretability(demo(), n=20)
    with pytest.raises(DataError, match="other layers"):
        interpretability(demo(), n=200, layers="12", reference=of_demo())
