"""Splits that never cut a group, and scores counted by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.evaluation import (
    Split,
    accuracy,
    folds,
    group_split,
    informed_chance,
    majority_label,
    right,
    straddling,
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab")), min_size=1, max_size=60),
    st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.0, 0.5), (0.8, 0.1, 0.1)]),
    st.integers(0, 5),
)
def test_every_example_is_in_one_part_and_no_group_in_two(
    rows: list[tuple[int, str]], fractions: tuple[float, ...], seed: int
) -> None:
    groups, labels = [g for g, _ in rows], [label for _, label in rows]
    split = group_split(groups, fractions, seed=seed, stratify=labels)
    together = np.concatenate([split.train, split.validation, split.test])
    assert sorted(together.tolist()) == list(range(len(rows)))
    assert straddling(groups, split) == ()
    if fractions[1] == 0:
        assert len(split.validation) == 0


def test_a_cut_group_is_found() -> None:
    split = Split(np.array([0, 1]), np.array([2]), np.array([3, 4]))
    assert straddling(["a", "b", "b", "c", "a"], split) == ("a", "b")
    assert straddling(["a", "a", "b", "c", "c"], split) == ()


def test_shares_are_the_fractions_of_each_label() -> None:
    groups = np.arange(200)
    labels = np.where(groups < 150, "common", "rare")
    split = group_split(groups, (0.6, 0.2, 0.2), stratify=labels)
    for part, common, rare in ((split.train, 90, 30), (split.validation, 30, 10), (split.test, 30, 10)):
        assert Counter(labels[part].tolist()) == {"common": common, "rare": rare}


def test_three_groups_of_a_label_reach_all_parts() -> None:
    groups = ["x1", "x2", "x3", *[f"y{i}" for i in range(40)]]
    labels = ["x"] * 3 + ["y"] * 40
    for seed in range(10):
        split = group_split(groups, (0.8, 0.1, 0.1), seed=seed, stratify=labels)
        for part in (split.train, split.validation, split.test):
            assert "x" in {labels[i] for i in part}


def test_the_seed_decides_the_split() -> None:
    groups = np.arange(50)
    first, again, other = (group_split(groups, seed=s).test.tolist() for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.6, 0.3, 0.3), (1.2, -0.1, -0.1)])
def test_fractions_must_be_three_shares(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="need three shares"):
        group_split([1, 2, 3], fractions)


def test_names_and_split_are_inverse() -> None:
    names = ["train", "", "test", "validation", "train"]
    split = Split.from_names(names)
    assert split.train.tolist() == [0, 4]
    assert split.names(5) == names


def test_folds_deal_every_group_once_and_every_label_evenly() -> None:
    groups = np.repeat(np.arange(25), 2)
    labels = np.repeat(np.arange(25) % 5, 2)
    parts = folds(groups, 5, stratify=labels)
    assert sorted(np.concatenate(parts).tolist()) == list(range(50))
    assert all(Counter(labels[part].tolist()) == dict.fromkeys(range(5), 2) for part in parts)
    for part in parts:
        assert not set(groups[part]) & set(np.delete(groups, part))


def test_folds_are_no_more_than_groups() -> None:
    assert len(folds(["a", "a", "b"], 5)) == 2


def test_accuracy_counts_and_groups() -> None:
    found = accuracy(["a", "b", "b", "a"], ["a", "b", "a", "a"], groups=[0, 0, 1, 1])
    assert found.value == 0.75
    assert (found.n, found.n_groups) == (4, 2)
    assert right(["a", "b"], np.array(["a", "a"])).tolist() == [1, 0]


def test_scores_refuse_different_lengths() -> None:
    with pytest.raises(ValueError, match="2 labels and 1 predictions"):
        right(["a", "b"], ["a"])


def test_majority_is_of_the_training_labels() -> None:
    assert majority_label(["b", "a", "b"]) == "b"
    assert majority_label(["b", "a"]) == "a"
    found = informed_chance(["a", "a", "b"], ["b", "b", "b", "a"])
    assert found.value == 0.25
