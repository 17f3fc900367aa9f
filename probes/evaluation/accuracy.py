"""The share that is predicted right, and what guessing scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
from jaxtyping import Int

from probes.statistics import Estimate, bootstrap
from probes.statistics.groups import counted

__all__ = ["accuracy", "informed_chance", "majority_label", "right"]


def accuracy(
    labels: Collection[Any],
    predicted: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The share of examples predicted right, with an interval over groups.

    Args:
        labels: the true label of each example.
        predicted: the predicted label of each example.
        groups: the group of each example; by default every example is its own group.
        level: nominal coverage.
        seed: of the bootstrap.
    """
    return bootstrap(right(labels, predicted), groups=groups, level=level, seed=seed)


def right(labels: Collection[Any], predicted: Collection[Any]) -> Int[np.ndarray, " example"]:
    """For each example 1 where the prediction is the label, else 0."""
    truth, guesses = list(labels), list(predicted)
    if len(truth) != len(guesses):
        raise ValueError(
            f"{counted(len(truth), 'label')} and {len(guesses)} predictions; give one prediction per example."
        )
    return np.array([int(a == b) for a, b in zip(truth, guesses, strict=True)], dtype=np.int64)


def majority_label(labels: Collection[Any]) -> Any:
    """The most frequent label; of equally frequent ones the first in order."""
    counts = Counter(labels.tolist() if isinstance(labels, np.ndarray) else labels)
    most = max(counts.values())
    return min((label for label, count in counts.items() if count == most), key=str)


def informed_chance(
    train_labels: Collection[Any],
    test_labels: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """What always guessing the training labels' majority scores on the test labels."""
    guess = majority_label(train_labels)
    return accuracy(test_labels, [guess] * len(test_labels), groups=groups, level=level, seed=seed)
