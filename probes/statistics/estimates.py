"""Numbers with intervals over groups: a mean, a statistic, a paired difference."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from probes.statistics import intervals
from probes.statistics.groups import FloatArray, Groups, Moments, codes_of, counted, finite, same_length
from probes.statistics.intervals import Interval

__all__ = ["Estimate", "MeanIntervals", "bootstrap", "mean_intervals", "paired_difference", "share_of"]

Support = Literal["auto", "share", "real"]
Statistic = Literal["mean"] | Callable[[npt.NDArray[Any]], float]

FEW_GROUPS = 30
"""Below this many groups an estimate carries a note."""
SKEWED = 2.0
"""From this skewness of the groups on, an estimate carries a note."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and how much data stands behind it.

    Attributes:
        value: the point estimate over all examples.
        interval: its confidence interval.
        n: number of examples.
        n_groups: number of independent groups they fall into.
        note: a caution in words, or "".
        effective_groups: the number of equal groups that weigh as much; None where it was not computed.
        skewness: of what the groups contribute: far from 0 where a few carry much of it, so that others of
            the kind may be missing here; None where it was not computed.
    """

    value: float
    interval: Interval
    n: int
    n_groups: int
    note: str = ""
    effective_groups: float | None = None
    skewness: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Make a flat dictionary: value, low, high, level, method, n, n_groups, note."""
        return {
            "value": self.value,
            **asdict(self.interval),
            "n": self.n,
            "n_groups": self.n_groups,
            "note": self.note,
        }

    def __str__(self) -> str:
        """Write ``value [low, high]`` with two decimals."""
        return f"{self.value:.2f} {self.interval}"


@dataclass(frozen=True, eq=False)
class MeanIntervals:
    """Many means with their intervals: the same numbers as :func:`bootstrap` of each row, in one go.

    Attributes:
        value: ``[row]``, mean over examples.
        low: ``[row]``, lower end of the interval.
        high: ``[row]``, upper end.
        skewness: ``[row]``, of what the groups contribute.
        n_groups: number of groups.
        effective_groups: the number of equal groups that weigh as much.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    skewness: FloatArray
    n_groups: int
    effective_groups: float


def mean_intervals(
    values: npt.NDArray[Any],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    limits: tuple[float, float] | None = None,
) -> MeanIntervals:
    """Estimate the mean of each row of unbounded values, with intervals over groups.

    Args:
        values: ``[row example]``, for example the effect of each mediator on each pair.
        groups: the group of each example; by default every example is its own group.
        level: nominal coverage.
        limits: the least and the largest value a mean can have, where there are such.

    Raises:
        ValueError: no values, values that are not finite, or not one group per example.
    """
    rows = np.atleast_2d(finite(values, "values"))
    known = Groups(codes_of(groups, rows.shape[1]))
    moments = Moments.of(rows, known)
    low, high = intervals.means(moments, level)
    if limits is not None:
        low, high = np.maximum(low, limits[0]), np.minimum(high, limits[1])
    return MeanIntervals(moments.mean, low, high, moments.skewness, known.count, known.effective)


def bootstrap(
    values: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    statistic: Statistic = "mean",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    support: Support = "auto",
    limits: tuple[float, float] | None = None,
) -> Estimate:
    """Estimate a mean, or another statistic, with an interval over groups.

    Means need no resampling: the same values give the same interval, whatever the seed.

    Args:
        values: one number per example (or rows of a table, where ``statistic`` is a function).
        groups: the group of each example; by default every example is its own group.
        statistic: ``"mean"`` over examples, or a function of the (resampled) values.
        level: nominal coverage.
        n_resamples: bootstrap resamples of groups, for a statistic that is a function.
        seed: of the resampling; the same seed gives the same bytes.
        support: ``"share"`` where values lie in [0, 1] (half credit, reciprocal ranks), ``"real"`` where they
            are unbounded, such as effects in logits, which can be exactly 0 or 1 and are no share;
            ``"auto"`` takes values that are all 0 or 1 as shares and everything else as real.
        limits: the least and the largest value the statistic can have, where there are such.

    Returns:
        The estimate, in the unit of the values.

    Raises:
        ValueError: no values, values that are not finite, or not one group per example.

    Example:
        >>> print(bootstrap([1] * 30))
        1.00 [0.88, 1.00]
    """
    data = finite(values, "values")
    known = Groups(codes_of(groups, len(data)))
    if callable(statistic):
        interval = intervals.of_statistic(data, known, statistic, level, n_resamples, seed)
        return _estimate(float(statistic(data)), interval, known, limits)
    moments = Moments.of(data, known)
    shares = _is_share(support, data)
    interval = intervals.share(data, known, level) if shares else intervals.mean(moments, level)
    return _estimate(float(moments.mean), interval, known, limits, float(moments.skewness))


def paired_difference(
    first: Collection[Any],
    second: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
    support: Support = "auto",
) -> Estimate:
    """Estimate the mean of ``first - second`` over the same examples, with an interval over groups.

    Args:
        first: one score per example.
        second: the other score of the same examples, in the same order.
        groups: the group of each example; by default every example is its own group.
        level: nominal coverage.
        seed: not used: nothing is drawn.
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
    known = Groups(codes_of(groups, len(a)))
    moments = Moments.of(a - b, known)
    bounded = _is_share(support, np.concatenate([a, b]))
    value, skewness = float(moments.mean), float(moments.skewness)
    few = bool(moments.constant) or intervals.carriers(moments) <= intervals.ENOUGH_CARRIERS
    if bounded and (few or known.count == 1):
        return _estimate(value, intervals.combined(a - b, known, level), known, None, skewness)
    limits = (-1.0, 1.0) if bounded else None
    return _estimate(value, intervals.mean(moments, level), known, limits, skewness)


def share_of(
    data: npt.NDArray[Any],
    statistic: Callable[[npt.NDArray[Any]], float],
    *,
    groups: Collection[Any] | None,
    rare: npt.NDArray[np.bool_],
    level: float,
) -> Estimate:
    """Estimate a statistic between 0 and 1 that is a function of the examples, such as an area under a curve.

    Args:
        data: one row per example.
        statistic: a function of the rows.
        groups: the group of each example; by default every example is its own group.
        rare: ``[example]``, the examples of the rarer class: their groups bound what can be said.
        level: nominal coverage.
    """
    codes = codes_of(groups, len(data))
    known, most = Groups(codes), Groups(codes_of(codes[rare], int(rare.sum())))
    interval = intervals.share_of_statistic(data, known, statistic, most, level)
    return _estimate(float(statistic(data)), interval, known, (0.0, 1.0))


def _is_share(support: Support, data: FloatArray) -> bool:
    if support == "share" and (data.min() < 0 or data.max() > 1):
        raise ValueError(f"support='share' needs values in [0, 1]; found {data.min():g} to {data.max():g}.")
    return support == "share" or (support == "auto" and bool(np.isin(data, (0.0, 1.0)).all()))


def _estimate(
    value: float,
    interval: Interval,
    groups: Groups,
    limits: tuple[float, float] | None,
    skewness: float | None = None,
) -> Estimate:
    if limits is not None:
        interval = interval.clipped(*limits)
    count, effective = groups.count, groups.effective
    notes: list[str] = []
    if count < FEW_GROUPS:
        notes.append(f"only {count} group{'s' * (count != 1)}: below {FEW_GROUPS} an interval is approximate")
    if effective < count / 2:
        notes.append(f"{counted(count, 'group')} of unequal size weigh as much as {effective:.1f} equal ones")
    if skewness is not None and abs(skewness) > SKEWED:
        notes.append(
            f"a few groups carry much of the mean (skewness {skewness:.1f}): with others the mean may lie "
            "outside its interval more often than 5%"
        )
    return Estimate(value, interval, groups.n, count, "; ".join(notes), effective, skewness)
