"""Numbers with intervals over groups: a mean, a statistic, a paired difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from probes.statistics import intervals
from probes.statistics.intervals import Grouped, Interval
from probes.statistics.numbers import FloatArray, finite, same_length

__all__ = ["Estimate", "bootstrap", "paired_difference"]

Support = Literal["auto", "share", "real"]
Statistic = Literal["mean"] | Callable[[npt.NDArray[Any]], float]

FEW_GROUPS = 30
"""Below this many groups an estimate carries a note."""


@dataclass(frozen=True)
class Estimate:
    """Hold a number with its interval and how much data stands behind it.

    Attributes:
        value: the point estimate over all examples.
        interval: its confidence interval.
        n: number of examples.
        n_groups: number of independent groups they fall into.
        note: a caution in words, or "".
    """

    value: float
    interval: Interval
    n: int
    n_groups: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give a flat dictionary: value, low, high, level, method, n, n_groups, note."""
        return {
            "value": self.value,
            **asdict(self.interval),
            "n": self.n,
            "n_groups": self.n_groups,
            "note": self.note,
        }

    def __str__(self) -> str:
        """Give ``value [low, high]`` with two decimals."""
        return f"{self.value:.2f} {self.interval}"


def bootstrap(
    values: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    statistic: Statistic = "mean",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    support: Support = "auto",
) -> Estimate:
    """Estimate a statistic with an interval over groups.

    Args:
        values: one number per example (or rows of a table, where ``statistic`` is a function).
        groups: the group of each example; by default every example is its own group.
        statistic: ``"mean"`` over examples, or a function of the (resampled) values.
        level: nominal coverage.
        n_resamples: bootstrap resamples of groups.
        seed: of the resampling; the same seed gives the same bytes.
        support: ``"share"`` where values lie in [0, 1] (half credit, reciprocal ranks), ``"real"`` where they
            are unbounded; ``"auto"`` takes 0/1 values as shares and everything else as real.

    Returns:
        The estimate, in the unit of the values.

    Raises:
        ValueError: no values, values that are not finite, or not one group per example.

    Example:
        >>> print(bootstrap([1] * 30))
        1.00 [0.88, 1.00]
    """
    data = finite(values, "values")
    codes = _codes(groups, len(data))
    if callable(statistic):
        interval = intervals.bca(data, codes, statistic, level, n_resamples, seed)
        return _estimate(float(statistic(data)), interval, codes)
    table = Grouped(data, codes)
    method = intervals.share if _is_share(support, data) else intervals.real
    return _estimate(table.mean, method(table, level, n_resamples, seed), codes)


def paired_difference(
    first: Collection[Any],
    second: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    support: Support = "auto",
) -> Estimate:
    """Estimate the mean of ``first - second`` over the same examples, with an interval over groups.

    Args:
        first: one score per example.
        second: the other score of the same examples, in the same order.
        groups: the group of each example; by default every example is its own group.
        level: nominal coverage.
        n_resamples: bootstrap resamples of groups.
        seed: of the resampling.
        support: ``"share"`` where both scores lie in [0, 1], ``"real"`` where they are unbounded; ``"auto"``
            takes scores that are all 0 or 1 as shares.

    Returns:
        The estimate, positive where ``first`` is larger. Where the two differ by nothing, or by the same
        everywhere, the interval is not empty: it says what so many groups can exclude.

    Raises:
        ValueError: lengths differ, no values, or values that are not finite.
    """
    a, b = finite(first, "first"), finite(second, "second")
    same_length(a, b)
    codes = _codes(groups, len(a))
    table, bounded = Grouped(a - b, codes), _is_share(support, np.concatenate([a, b]))
    if bounded and (table.variance == 0 or table.carriers() <= intervals.ENOUGH_CARRIERS):
        return _estimate(table.mean, intervals.combined(a - b, codes, level), codes)
    interval = intervals.real(table, level, n_resamples, seed)
    if bounded and not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        # Too few groups differ from each other for resampling to tell.
        interval = intervals.combined(a - b, codes, level)
    return _estimate(table.mean, interval.clipped(-1.0, 1.0) if bounded else interval, codes)


def _codes(groups: Collection[Any] | None, n: int) -> npt.NDArray[np.intp]:
    if groups is None:
        return np.arange(n, dtype=np.intp)
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} examples; give one group per example.")
    known: dict[Any, int] = {}
    plain: Any = groups.tolist() if isinstance(groups, np.ndarray) else groups
    return np.array([known.setdefault(group, len(known)) for group in plain], dtype=np.intp)


def _is_share(support: Support, data: FloatArray) -> bool:
    if support == "share" and (data.min() < 0 or data.max() > 1):
        raise ValueError(f"support='share' needs values in [0, 1]; found {data.min():g} to {data.max():g}.")
    return support == "share" or (support == "auto" and bool(np.isin(data, (0.0, 1.0)).all()))


def _estimate(value: float, interval: Interval, codes: npt.NDArray[np.intp]) -> Estimate:
    count = int(codes.max()) + 1
    note = f"only {count} group{'s' * (count != 1)}: below {FEW_GROUPS} an interval is approximate"
    return Estimate(value, interval, len(codes), count, note if count < FEW_GROUPS else "")
