"""The test of a reader against guessing: against Fisher's exact test, an enumeration, and simulated nulls."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from interp.analyses.controls import beyond_guessing
from interp.errors import DataError


def test_single_items_of_two_labels_are_tested_as_by_fisher() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    read = np.where(rng.random(60) < 0.65, labels, 1 - labels)
    table = [[int(((labels == a) & (read == b)).sum()) for b in (0, 1)] for a in (0, 1)]
    exact = float(stats.fisher_exact(table, alternative="greater")[1])
    found = beyond_guessing(labels.tolist(), read.tolist(), range(60), draws=19_999)
    assert found.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact / 19_999) + 1e-4)
    shares = [(labels == a).mean() * (read == a).mean() for a in (0, 1)]
    assert found.expected == pytest.approx(sum(shares), abs=0.005)


def test_unequal_groups_exchange_their_labels_as_an_enumeration_does() -> None:
    groups, labels = list("aaabbcddddee"), list("xxxyyxyyyyxx")
    read = list("xxyyyxyyxyxx")
    order = sorted(set(groups))
    own = [labels[groups.index(name)] for name in order]
    scores = [
        sum(dict(zip(order, given, strict=True))[g] == r for g, r in zip(groups, read, strict=True))
        for given in permutations(own)
    ]
    observed = sum(a == b for a, b in zip(labels, read, strict=True))
    exact = np.mean([score >= observed for score in scores])
    found = beyond_guessing(labels, read, groups, draws=19_999)
    assert found.p_value == pytest.approx(exact, abs=0.015)
    assert found.expected == pytest.approx(np.mean(scores) / 12, abs=0.01)


def test_a_reader_of_the_stratum_alone_guesses() -> None:
    """Reading the right kind, and one answer of the kind by luck, beats guessing only across kinds."""
    rng = np.random.default_rng(1)
    kinds = np.repeat([0, 1, 2], 60)
    labels = kinds * 10 + rng.integers(0, 10, 180)
    read = kinds * 10 + rng.integers(0, 10, 180)
    labels, read, kinds = labels.tolist(), read.tolist(), kinds.tolist()
    assert beyond_guessing(labels, read, range(180)).p_value < 0.01
    within = beyond_guessing(labels, read, range(180), strata=kinds)
    assert within.p_value > 0.05 and within.expected == pytest.approx(0.1, abs=0.03)


def test_candidates_are_guessed_among() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 50, 200).tolist()
    open_to = [(label, label + 100, label + 200, label + 300) for label in labels]
    blind = [row[rng.integers(4)] for row in open_to]
    found = beyond_guessing(labels, blind, range(200), candidates=open_to)
    assert found.expected == pytest.approx(0.25, abs=0.01) and found.p_value > 0.05
    assert beyond_guessing(labels, labels, range(200), candidates=open_to).p_value < 0.001


@pytest.mark.parametrize("mixed", [False, True])
def test_labels_without_a_tie_are_called_read_in_five_percent(mixed: bool) -> None:
    """Items of a group share noise in what is read, and, where mixed, in how often a label occurs."""
    rng, found = np.random.default_rng(3), []
    for seed in range(200):
        sizes = rng.integers(2, 9, 12)
        groups = np.repeat(np.arange(12), sizes)
        rate = rng.random(12)[groups] if mixed else (rng.random(12) < 0.5)[groups]
        labels = (rng.random(len(groups)) < rate).astype(int)
        read = (rng.random(len(groups)) < rng.random(12)[groups]).astype(int)
        found.append(beyond_guessing(labels.tolist(), read.tolist(), groups.tolist(), draws=199, seed=seed))
    assert np.mean([one.beaten for one in found]) < 0.09  # 5%, and 2.6 standard errors of 200 draws


@pytest.mark.parametrize(("n", "least"), [(100, 0.5), (200, 0.78)])
def test_a_small_accuracy_is_found_as_often_as_by_an_exact_binomial_test(n: int, least: float) -> None:
    """A two-sided exact binomial test finds .6 in 46% and 80% of data sets, one-sided: 62% and 88%."""
    rng, found = np.random.default_rng(4), []
    for seed in range(120):
        labels = rng.permutation(np.arange(n) % 2)
        read = np.where(rng.random(n) < 0.6, labels, 1 - labels)
        found.append(beyond_guessing(labels.tolist(), read.tolist(), range(n), draws=399, seed=seed).beaten)
    assert np.mean(found) > least


def test_what_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="2 labels, 1 reading and 2 groups"):
        beyond_guessing(["a", "b"], ["a"], [0, 1])
