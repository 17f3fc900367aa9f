"""Splits that keep groups whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from probes.statistics.groups import counted

__all__ = ["Split", "folds", "group_split", "straddling"]

NAMES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Which examples are for fitting, for choosing and for reporting.

    Attributes:
        train: row numbers, ascending.
        validation: row numbers; may be empty.
        test: row numbers.
    """

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Split:
        """Read one name per example: train, validation, test; any other name leaves the row out."""
        array = np.asarray(names, dtype=object)
        return cls(*(np.flatnonzero(array == name) for name in NAMES))

    def names(self, n: int) -> list[str]:
        """One name per example, "" for examples that are in no part."""
        result = [""] * n
        for name in NAMES:
            for row in getattr(self, name).tolist():
                result[row] = name
        return result


def group_split(
    groups: Collection[Any],
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    *,
    seed: int = 0,
    stratify: Collection[Any] | None = None,
) -> Split:
    """Split examples so that no group is in two parts.

    Args:
        groups: the group of each example.
        fractions: shares of groups for train, validation and test; they add up to 1.
        seed: of the draw.
        stratify: one label per example: the groups of each label (by the label most of the group has) are
            shared out in these fractions, at least one to every part where there are enough.

    Returns:
        Row numbers of the three parts.

    Raises:
        ValueError: fractions that are not three shares adding up to 1, or not one label per example.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"fractions are {tuple(fractions)}; need three shares, not negative, that add up to 1."
        )
    names, codes = _group_codes(groups)
    parts = np.empty(len(names), dtype=np.intp)
    generator = np.random.default_rng(seed)
    for members in _strata(codes, len(names), stratify):
        sizes = _shares(len(members), fractions)
        parts[generator.permutation(members)] = np.repeat(np.arange(3), sizes)
    return Split(*(np.flatnonzero(parts[codes] == part) for part in range(3)))


def folds(
    groups: Collection[Any], n_folds: int = 5, *, seed: int = 0, stratify: Collection[Any] | None = None
) -> list[Int[np.ndarray, " held_out"]]:
    """Deal groups to folds for cross-validation, label by label.

    Args:
        groups: the group of each example.
        n_folds: at most so many; fewer where there are fewer groups.
        seed: of the draw.
        stratify: one label per example.

    Returns:
        The held-out row numbers of each fold; every row is in exactly one.
    """
    names, codes = _group_codes(groups)
    count, dealt = min(n_folds, len(names)), 0
    fold_of = np.empty(len(names), dtype=np.intp)
    generator = np.random.default_rng(seed)
    for members in _strata(codes, len(names), stratify):
        fold_of[generator.permutation(members)] = (dealt + np.arange(len(members))) % count
        dealt += len(members)
    return [np.flatnonzero(fold_of[codes] == fold) for fold in range(count)]


def _group_codes(groups: Collection[Any]) -> tuple[list[Any], np.ndarray]:
    plain = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    known: dict[Any, int] = {}
    codes = np.array([known.setdefault(group, len(known)) for group in plain], dtype=np.intp)
    return list(known), codes


def _strata(codes: np.ndarray, count: int, labels: Collection[Any] | None) -> list[np.ndarray]:
    if labels is None:
        return [np.arange(count)]
    plain = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(plain) != len(codes):
        raise ValueError(
            f"{counted(len(plain), 'label')} for {counted(len(codes), 'example')}; "
            "give one label per example."
        )
    counts: list[Counter[Any]] = [Counter() for _ in range(count)]
    for code, label in zip(codes.tolist(), plain, strict=True):
        counts[code][label] += 1
    of_label: dict[Any, list[int]] = {}
    for group, counter in enumerate(counts):
        of_label.setdefault(counter.most_common(1)[0][0], []).append(group)
    return [np.array(of_label[label]) for label in sorted(of_label, key=str)]


def _shares(n: int, fractions: Sequence[float]) -> np.ndarray:
    """Share n groups out by largest remainder, one to every wanted part first where there are enough."""
    exact = n * np.asarray(fractions, dtype=np.float64)
    wanted = exact > 0
    sizes = np.maximum(np.floor(exact + 1e-9), wanted if n >= wanted.sum() else 0).astype(np.intp)
    while sizes.sum() != n:
        step = 1 if sizes.sum() < n else -1
        movable = wanted if step > 0 else sizes > 1
        sizes[np.argmax(np.where(movable, step * (exact - sizes), -np.inf))] += step
    return sizes


def straddling(groups: Collection[Any], split: Split) -> tuple[Any, ...]:
    """List the groups that are in more than one part: each is a leak."""
    names, codes = _group_codes(groups)
    parts = [set(codes[getattr(split, name)].tolist()) for name in NAMES]
    shared = (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
    return tuple(names[code] for code in sorted(shared))
