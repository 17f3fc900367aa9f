"""Groups of examples: how much each weighs, and the sums over them that intervals and tests are made of."""

# pyright: reportMissingTypeStubs=false
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["FloatArray", "Groups", "Moments", "codes_of", "counted", "finite", "same_length"]

FloatArray = npt.NDArray[np.float64]


def counted(n: int, one: str, many: str = "") -> str:
    """A number of things: ``1 group``, ``12 groups``; ``many`` where the plural takes more than an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def finite(values: Collection[Any], name: str) -> FloatArray:
    """Numbers as float64. ValueError names what is wrong with them."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError(f"{name} is empty; an estimate needs at least one example.")
    wrong = int((~np.isfinite(data)).sum())
    if wrong:
        raise ValueError(f"{name} holds {wrong} numbers that are not finite; drop or repair them.")
    return data


def same_length(a: FloatArray, b: FloatArray) -> None:
    """Raise ValueError unless two score lists can be of the same examples."""
    if a.shape != b.shape:
        raise ValueError(f"scores must be of the same examples: {len(a)} in first, {len(b)} in second.")


ALIKE = 1e-6
"""Group means this close to each other, relative to their size, count as one value: rounding, not spread."""


def codes_of(groups: Collection[Any] | None, n: int) -> npt.NDArray[np.intp]:
    """Number groups 0, 1, ... in order of first occurrence; every example is its own group for None.

    Raises:
        ValueError: not one group per example.
    """
    if groups is None:
        return np.arange(n, dtype=np.intp)
    if len(groups) != n:
        raise ValueError(
            f"{counted(len(groups), 'group')} for {counted(n, 'example')}; give one group per example."
        )
    known: dict[Any, int] = {}
    plain: Any = groups.tolist() if isinstance(groups, np.ndarray) else groups
    return np.array([known.setdefault(group, len(known)) for group in plain], dtype=np.intp)


class Groups:
    """The groups of some examples, with what their sizes alone decide.

    Attributes:
        codes: ``[example]``, the number of its group.
        sizes: ``[group]``, examples in each.
        n: number of examples.
        count: number of groups.
        weights: ``[group]``, share of the examples.
    """

    def __init__(self, codes: npt.NDArray[np.intp]) -> None:
        """Count the groups numbered by ``codes`` (0, 1, ... without gaps)."""
        self.codes = codes
        self.sizes: FloatArray = np.bincount(codes).astype(np.float64)
        self.n = len(codes)
        self.count = len(self.sizes)
        self.weights: FloatArray = self.sizes / self.n

    @property
    def effective(self) -> float:
        """The number of groups of equal size that weigh as much (Kish): 1.2 for one of 300 and 29 of 1."""
        return float(1 / (self.weights @ self.weights))

    @cached_property
    def leverage(self) -> FloatArray:
        """``[group]``, what makes the squared residual of a group's sum its part of the jackknife variance.

        A large group pulls the mean towards itself, so its residual is too small by its weight.
        """
        if self.count == 1:
            return np.zeros(1)
        return (self.count - 1) / self.count / (1 - self.weights) ** 2

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom of the jackknife variance (Satterthwaite), ``count - 1`` for equal groups.

        Taken for groups whose examples are all alike, the worst case: then the variance of the mean of one
        large and many small groups is known from little more than one number (Bell and McCaffrey 2002).
        """
        if self.count == 1:
            return 1.0
        w, d, square = self.weights, self.leverage * self.weights**2, float(self.weights @ self.weights)
        d0, d1, d2 = float(d.sum()), float(d @ w), float(d @ w**2)
        trace = float((d * (1 - 2 * w + square)).sum())
        crossed = square**2 * d0**2 + 2 * d2 * d0 - 4 * square * d1 * d0 + 2 * d1**2
        own = (d**2 * ((1 - 2 * w + square) ** 2 - (square - 2 * w) ** 2)).sum()
        return trace**2 / (crossed + float(own))

    @cached_property
    def _order(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        order = np.argsort(self.codes, kind="stable")
        return order, np.flatnonzero(np.diff(self.codes[order], prepend=-1))

    def sums(self, values: FloatArray) -> FloatArray:
        """Add up ``[... example]`` to ``[... group]``."""
        if self.count == self.n:
            return values[..., self._order[0]]
        order, starts = self._order
        return np.add.reduceat(values[..., order], starts, axis=-1)

    def quantile(self, level: float) -> float:
        """The two-sided critical value of Student's t at these degrees of freedom."""
        return float(special.stdtrit(self.freedom, (1 + level) / 2))


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean, standard error and skewness of one or many rows of numbers, over groups.

    Attributes:
        groups: the groups of the examples.
        sums: ``[... group]``.
        mean: ``[...]``, over examples.
    """

    groups: Groups
    sums: FloatArray
    mean: FloatArray

    @classmethod
    def of(cls, values: FloatArray, groups: Groups) -> Moments:
        """Take the moments of ``[... example]``."""
        sums = groups.sums(values)
        return cls(groups, sums, np.asarray(sums.sum(axis=-1) / groups.n))

    @cached_property
    def pulls(self) -> FloatArray:
        """``[... group]``, how far the mean moves when the group is left out, up to one factor."""
        residuals = self.sums - self.mean[..., None] * self.groups.sizes
        return residuals * np.sqrt(self.groups.leverage)

    @cached_property
    def constant(self) -> npt.NDArray[np.bool_]:
        """``[...]``, whether all groups have the same mean (up to rounding), so that no spread is known."""
        apart = np.abs(self.sums / self.groups.sizes - self.mean[..., None]).max(axis=-1)
        return np.asarray(apart <= ALIKE * np.abs(self.mean))

    @cached_property
    def error(self) -> FloatArray:
        """``[...]``, the standard error of the mean by the delete-one-group jackknife; 0 where constant.

        Never too small on average: exact for groups of equal size, and above for others.
        """
        found = np.sqrt((self.pulls**2).sum(axis=-1)) / self.groups.n
        return np.where(self.constant, 0.0, found)

    @cached_property
    def asymmetry(self) -> FloatArray:
        """``[...]``, the skewness of the mean: that of the groups over the root of their number."""
        squares = (self.pulls**2).sum(axis=-1)
        cubes = (self.pulls**3).sum(axis=-1)
        usable = ~self.constant & (squares > 0) & (self.groups.count > 2)
        count = self.groups.count
        small = np.sqrt(count * (count - 1)) / max(count - 2, 1)
        return np.where(usable, small * cubes / np.where(usable, squares, 1.0) ** 1.5, 0.0)

    @property
    def skewness(self) -> FloatArray:
        """``[...]``, the skewness of what the groups contribute (0 for a symmetric spread)."""
        return np.asarray(self.asymmetry * np.sqrt(self.groups.count))
