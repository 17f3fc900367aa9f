"""The best of many looks: what the best layer scores when the others were looked at too."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BestOf", "best_of"]


@dataclass(frozen=True)
class BestOf:
    """The best of several scores on the same examples, corrected for their number.

    Attributes:
        index: which look is best.
        difference: its mean over the reference.
        p_value: chance of so large a best difference if no look differed from its reference.
        p_uncorrected: the same if it had been the only look.
    """

    index: int
    difference: float
    p_value: float
    p_uncorrected: float


def best_of(
    scores: npt.NDArray[np.float64],
    references: npt.NDArray[np.float64],
    *,
    groups: Collection[Any] | None = None,
    n_permutations: int = 2000,
    seed: int = 0,
) -> BestOf:
    """Test the best of several looks by the largest studentised difference (max-T; Westfall and Young 1993).

    Under the null a group's scores and its references may be exchanged, so the signs of whole groups'
    differences
    are flipped, for all looks together: what the looks have in common stays in place.

    Args:
        scores: ``[look example]``, for example right (1) or wrong (0) at each layer.
        references: ``[look example]``, the control's scores of the same examples, or one row for all.
        groups: the group of each example; by default every example is its own group.
        n_permutations: sign flips.
        seed: of the flips.

    Raises:
        ValueError: shapes that do not match, or not one group per example.
    """
    change = np.asarray(scores, dtype=np.float64) - np.asarray(references, dtype=np.float64)
    if change.ndim != 2 or change.shape != np.shape(scores):
        raise ValueError(
            f"scores of shape {np.shape(scores)}, references of {np.shape(references)}; give [look example]."
        )
    labels: list[Any] = list(range(change.shape[1])) if groups is None else list(groups)
    order = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    names = np.array([order[label] for label in labels], dtype=np.int64)
    if len(names) != change.shape[1]:
        raise ValueError(f"{len(names)} groups for {change.shape[1]} examples; give one group per example.")
    sums = np.stack([np.bincount(names, row) for row in change])
    spread = np.sqrt((sums**2).sum(axis=1))
    spread = np.where(spread > 0, spread, 1.0)
    observed = sums.sum(axis=1) / spread
    index = int(observed.argmax())
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(n_permutations, sums.shape[1]))
    null = signs @ (sums / spread[:, None]).T
    margin = observed[index] - 1e-12
    corrected = (1 + int((null.max(axis=1) >= margin).sum())) / (1 + n_permutations)
    single = (1 + int((null[:, index] >= margin).sum())) / (1 + n_permutations)
    return BestOf(index, float(change[index].mean()), corrected, single)
