"""Controls keep what they must keep and destroy what they must destroy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from probes.controls import bag_of_tokens, control_task_labels, length_only, shuffled_labels
from probes.linear import LogisticProbe


def test_labels_constant_in_a_group_stay_constant() -> None:
    groups = np.repeat(np.arange(60), 3).tolist()
    labels = [f"label {g % 5}" for g in groups]
    shuffled = shuffled_labels(labels, groups=groups, seed=1)
    of_group = {g: {label for h, label in zip(groups, shuffled, strict=True) if h == g} for g in set(groups)}
    assert all(len(found) == 1 for found in of_group.values())
    assert Counter(shuffled) == Counter(labels)
    assert 0.05 < np.mean([a == b for a, b in zip(labels, shuffled, strict=True)]) < 0.5


def test_labels_that_vary_in_a_group_lose_their_tie_to_the_group() -> None:
    groups = np.repeat(np.arange(200), 4)
    labels = [f"{g % 10}{'ab'[i % 2]}" for i, g in enumerate(groups.tolist())]
    shuffled = shuffled_labels(labels, groups=groups.tolist(), seed=0)
    assert Counter(shuffled) == Counter(labels)

    def fits_its_group(found: list[str]) -> float:
        return float(
            np.mean([label[0] == str(g % 10) for label, g in zip(found, groups.tolist(), strict=True)])
        )

    assert fits_its_group(labels) == 1.0
    assert fits_its_group(shuffled) < 0.15


def test_shuffling_leaves_its_input_and_follows_the_seed() -> None:
    labels = list("aabbccddee")
    assert shuffled_labels(labels, seed=3) == shuffled_labels(labels, seed=3)
    assert shuffled_labels(labels, seed=3) != shuffled_labels(labels, seed=4)
    assert labels == list("aabbccddee")


def test_shuffling_refuses_groups_of_another_length() -> None:
    with pytest.raises(ValueError, match="1 group for 2 labels"):
        shuffled_labels(["a", "b"], groups=["x"])


def test_a_control_task_is_a_function_of_the_key() -> None:
    keys = [f"key {i % 30}" for i in range(300)]
    labels = ["a"] * 225 + ["b"] * 75
    control = control_task_labels(keys, labels, seed=0)
    assert len({(k, c) for k, c in zip(keys, control, strict=True)}) == 30
    assert 0.4 < np.mean([c == "a" for c in control]) < 1.0
    assert control != control_task_labels(keys, labels, seed=1)


def test_bag_counts_tokens_and_ignores_their_order() -> None:
    bag = bag_of_tokens([[7, 3, 7], [3, 7, 7], [9]])
    assert bag.toarray().tolist() == [[1, 2, 0], [1, 2, 0], [0, 0, 1]]
    known = bag_of_tokens([[7, 3, 7], [11]], vocabulary=[7, 9])
    assert known.toarray().tolist() == [[2, 0], [0, 0]]


def test_a_probe_reads_a_bag_but_not_the_order() -> None:
    rng = np.random.default_rng(0)
    ids = [rng.permutation([1, 2, 3, 4, 5]).tolist()[:4] for _ in range(300)]
    has_five = [int(5 in row) for row in ids]
    first_larger = [int(row[0] > row[-1]) for row in ids]
    bag = bag_of_tokens(ids)
    assert LogisticProbe().fit(bag[:200], has_five[:200]).score(bag[200:], has_five[200:]) == 1.0
    assert LogisticProbe().fit(bag[:200], first_larger[:200]).score(bag[200:], first_larger[200:]) < 0.75


def test_length_is_the_only_column() -> None:
    assert length_only([[5, 6], [1], [2, 2, 2]]).tolist() == [[2.0], [1.0], [3.0]]
