"""The intervals behind :mod:`probes.statistics`: which method, and its arithmetic. NumPy and SciPy only.

Callers use :mod:`probes.statistics`; this module holds the mechanics, one short function for each method.
"""

# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.statistics.groups import FloatArray, Groups, Moments

__all__ = [
    "ENOUGH_CARRIERS",
    "Interval",
    "clopper_pearson",
    "combined",
    "mean",
    "means",
    "of_statistic",
    "share",
]

ENOUGH_CARRIERS = 12.0
"""So many groups must show a difference of shares before its mean is treated like any other mean."""
LEAST = 0.35
"""The part of the effective number of groups below which a share's sample size is not taken to fall."""
Statistic = Callable[[npt.NDArray[Any]], float]


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of the value it belongs to.

    Attributes:
        low: lower end; may be minus infinity.
        high: upper end; may be infinity.
        level: nominal coverage, for example 0.95.
        method: which method gave it (the table in :mod:`probes.statistics`).
    """

    low: float
    high: float
    level: float
    method: str

    def contains(self, value: float) -> bool:
        """Whether a value lies inside, ends included."""
        return self.low <= value <= self.high

    def clipped(self, low: float, high: float) -> Interval:
        """Cut off what lies beyond two bounds that the value cannot pass."""
        return Interval(max(self.low, low), min(self.high, high), self.level, self.method)

    def __str__(self) -> str:
        """Write ``[low, high]`` with two decimals."""
        return f"[{self.low:.2f}, {self.high:.2f}]"


def undetermined(level: float) -> Interval:
    """The infinite interval of data that cannot say: one group, or a statistic that is not finite."""
    return Interval(-math.inf, math.inf, level, "undetermined")


def clopper_pearson(successes: float | int, trials: float | int, *, level: float = 0.95) -> Interval:
    """Compute the exact binomial interval of a share (Clopper and Pearson 1934).

    Args:
        successes: from 0 to ``trials``; effective (fractional) counts are allowed.
        trials: number of independent trials.
        level: nominal coverage, which the interval never falls short of.

    Raises:
        ValueError: trials are not positive, or successes lie outside.
    """
    if not trials > 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials; need 0 <= successes <= trials > 0.")
    k, rest, tail = successes, trials - successes, (1 - level) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, rest + 1, tail))
    high = 1.0 if rest == 0 else float(special.betaincinv(k + 1, rest, 1 - tail))
    return Interval(low, high, level, "clopper-pearson")


def means(moments: Moments, level: float) -> tuple[FloatArray, FloatArray]:
    """Compute the ends of the intervals of unbounded means, for one or many rows.

    The hull of Student's interval and of Hall's (1992, transformation g), which inverts a cubic that removes
    the skewness of the studentised mean; both with the jackknife error and the degrees of freedom of the
    groups' sizes. No end is further from the mean than about twice Student's.

    Groups that are all alike have no spread to judge by. There, as many groups as can be missing by chance
    (Clopper and Pearson) are taken to have the opposite effect: five groups do not exclude zero, six do.
    """
    groups = moments.groups
    if groups.count == 1:
        return np.full_like(moments.mean, -np.inf), np.full_like(moments.mean, np.inf)
    t, error, centre = groups.quantile(level), moments.error, moments.mean
    skew = np.where(np.abs(moments.asymmetry) < 1e-7, 1e-7, moments.asymmetry)
    low_t = 3 / skew * (np.cbrt(1 + skew * (-t - skew / 6)) - 1)
    high_t = 3 / skew * (np.cbrt(1 + skew * (t - skew / 6)) - 1)
    missed = clopper_pearson(0, groups.effective, level=level).high
    alike = 2 * missed * np.abs(centre)
    below = np.where(moments.constant, alike, np.maximum(high_t, t) * error)
    above = np.where(moments.constant, alike, np.maximum(-low_t, t) * error)
    return np.asarray(centre - below), np.asarray(centre + above)


def mean(moments: Moments, level: float) -> Interval:
    """Compute the interval of one unbounded mean."""
    low, high = means(moments, level)
    if moments.groups.count == 1:
        return undetermined(level)
    method = "constant over groups" if bool(moments.constant) else "t corrected for skewness"
    return Interval(float(low), float(high), level, method)


def share(values: FloatArray, groups: Groups, level: float) -> Interval:
    """Compute the interval of a mean of values in [0, 1]."""
    moments = Moments.of(values, groups)
    p = min(max(float(moments.mean), 0.0), 1.0)
    if bool(moments.constant) or groups.count == 1:
        found = clopper_pearson(p * groups.effective, groups.effective, level=level)
        return Interval(found.low, found.high, level, "clopper-pearson on groups")
    variance = max(float(moments.error) ** 2, 1e-300)
    freedom = min(groups.freedom, _kurtosis_freedom(moments.pulls))
    most = min(float(groups.n), _clustered(values, groups))
    return score(p, variance, freedom, groups, most, level)


def score(p: float, variance: float, freedom: float, groups: Groups, most: float, level: float) -> Interval:
    """Wilson's interval (1927) of a share on the sample size that its variance is worth.

    Args:
        p: the share.
        variance: of ``p``.
        freedom: degrees of freedom of ``variance``.
        groups: how many there are decides the critical value.
        most: the largest sample size it may be worth.
        level: nominal coverage.
    """
    z = float(special.stdtrit(groups.count - 1, (1 + level) / 2))
    penalty = (z / float(special.stdtrit(freedom, (1 + level) / 2))) ** 2
    least = groups.effective * max(LEAST, min(1.0, (z / groups.quantile(level)) ** 2))
    n = min(max(min(p * (1 - p) / variance * penalty, most), least), float(groups.n))
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(centre - half, centre + half, level, "score on groups").clipped(0.0, 1.0)


def _kurtosis_freedom(pulls: FloatArray) -> float:
    """Degrees of freedom that the kurtosis of the groups leaves to their variance (Satterthwaite 1946)."""
    squares, count = pulls**2, pulls.shape[-1]
    excess = float((squares**2).mean() / squares.mean() ** 2) - 3
    return float(np.clip(2 * count / (excess + 2 * count / (count - 1)), 1, count - 1))


def _clustered(values: FloatArray, groups: Groups) -> float:
    """The sample size that groups of these sizes are worth if all are alike inside as they are on average.

    Large groups that happen to agree say nothing about their spread; the small ones then do.
    """
    several = groups.sizes > 1
    shares, squares = groups.sums(values) / groups.sizes, groups.sums(values**2) / groups.sizes
    total = float(squares.mean() - shares.mean() ** 2)
    alike = 1.0
    if several.any() and total > 0:
        k = groups.sizes[several]
        within = float(((squares - shares**2)[several] * k / (k - 1)).mean())
        alike = min(max(1 - within / total, 0.0), 1.0)
    w = groups.weights
    return 1 / float(w**2 @ (alike + (1 - alike) / groups.sizes))


def combined(difference: FloatArray, groups: Groups, level: float) -> Interval:
    """Compute the interval of a mean difference of shares that few groups show: its gains less its losses.

    The intervals of gains and losses are combined by Newcombe's method 10 (1998).
    """
    gains, losses = np.maximum(difference, 0), np.maximum(-difference, 0)
    gain, loss = share(gains, groups, level), share(losses, groups, level)
    up, down = Moments.of(gains, groups), Moments.of(losses, groups)
    agreed = bool(up.constant) and bool(down.constant)
    r = -1.0 if agreed else _correlation(up.pulls, down.pulls)
    gained, lost = float(up.mean), float(down.mean)
    below = _distance(gained - gain.low, loss.high - lost, r)
    above = _distance(gain.high - gained, lost - loss.low, r)
    method = "clopper-pearson on groups" if agreed else "score on groups"
    value = gained - lost
    return Interval(value - below, value + above, level, method).clipped(-1.0, 1.0)


def carriers(moments: Moments) -> float:
    """Count, by weight, the groups that depart from the whole number nearest to the mean (0 or 1, -1)."""
    away = np.abs(moments.sums - np.rint(moments.mean) * moments.groups.sizes)
    return float(away.sum() ** 2 / (away @ away)) if away.any() else 0.0


def _correlation(first: FloatArray, second: FloatArray) -> float:
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(np.clip(float(first @ second) / scale, -1, 1)) if scale > 0 else 0.0


def _distance(first: float, second: float, r: float) -> float:
    return math.sqrt(max(first**2 - 2 * r * first * second + second**2, 0.0))


def of_statistic(
    data: npt.NDArray[Any], groups: Groups, statistic: Statistic, level: float, n_resamples: int, seed: int
) -> Interval:
    """Compute the interval of a statistic that is a function of the examples.

    The hull of the BCa bootstrap over groups (Efron 1987) and of the interval of a mean with the jackknife's
    error and skewness: the bootstrap is too narrow with few or unequal groups, the jackknife does not see
    the bias of a statistic.
    """
    if groups.count < 2:
        return undetermined(level)
    value, pulls = float(statistic(data)), pulls_of(data, groups, statistic)
    if not np.isfinite(pulls).all():
        return undetermined(level)
    # A mean of these numbers has the statistic's value, its jackknife error and its skewness.
    plain = mean(Moments(groups, groups.sizes * value + pulls, np.asarray(value)), level)
    drawn = _bca(data, groups, statistic, value, pulls, level, n_resamples, seed)
    if plain.method == "constant over groups" or drawn is None:
        return plain
    low, high = min(plain.low, drawn[0]), max(plain.high, drawn[1])
    return Interval(low, high, level, "bca bootstrap and jackknife")


def pulls_of(data: npt.NDArray[Any], groups: Groups, statistic: Statistic) -> FloatArray:
    """``[group]``, how far the statistic falls when a group is left out, scaled to a residual of its sum."""
    rows = [np.flatnonzero(groups.codes == code) for code in range(groups.count)]
    without = np.array([float(statistic(np.delete(data, part, axis=0))) for part in rows])
    return (float(statistic(data)) - without) * (groups.n - groups.sizes)


def share_of_statistic(
    data: npt.NDArray[Any], groups: Groups, statistic: Statistic, most: Groups, level: float
) -> Interval:
    """Compute the interval of a statistic between 0 and 1, such as an area under a curve.

    Args:
        data: one row for each example.
        groups: of the rows.
        statistic: a function of the rows.
        most: the groups that it cannot be worth fewer of: those of the rarer class.
        level: nominal coverage.
    """
    p, pulls = float(statistic(data)), pulls_of(data, groups, statistic) if groups.count > 1 else np.zeros(1)
    moments = Moments(groups, groups.sizes * p + pulls, np.asarray(p))
    if most.count < 2 or not np.isfinite(pulls).all() or not 0 < p < 1 or float(moments.error) == 0:
        found = clopper_pearson(min(max(p, 0.0), 1.0) * most.effective, most.effective, level=level)
        return Interval(found.low, found.high, level, "clopper-pearson on groups")
    freedom = min(groups.freedom, _kurtosis_freedom(moments.pulls))
    return score(p, float(moments.error) ** 2, freedom, most, float(groups.n), level)


def _bca(
    data: npt.NDArray[Any],
    groups: Groups,
    statistic: Statistic,
    value: float,
    pulls: FloatArray,
    level: float,
    n_resamples: int,
    seed: int,
) -> tuple[float, float] | None:
    rows = [np.flatnonzero(groups.codes == code) for code in range(groups.count)]
    draws = np.random.default_rng(seed).integers(0, len(rows), (n_resamples, len(rows)))
    if len(rows) == groups.n:  # every example is a group of its own
        picks: Iterable[npt.NDArray[Any]] = np.concatenate(rows)[draws]
    else:
        drawn: list[list[int]] = draws.tolist()
        picks = (np.concatenate([rows[i] for i in draw]) for draw in drawn)
    scores = np.array([float(statistic(data[pick])) for pick in picks])
    pull = pulls / (groups.n - groups.sizes)
    pull = pull - pull.mean()
    if not pull.any() or not np.isfinite(scores).all():
        return None
    below = float(np.mean(scores < value)) + float(np.mean(np.equal(scores, value))) / 2
    bias = float(special.ndtri(min(max(below, 1e-6), 1 - 1e-6)))
    acceleration = float(np.sum(pull**3)) / (6 * float(np.sum(pull**2)) ** 1.5)
    ends = (bias + float(special.ndtri(q)) for q in ((1 - level) / 2, (1 + level) / 2))
    shares = (float(special.ndtr(bias + z / (1 - acceleration * z))) for z in ends)
    low, high = np.quantile(scores, [*shares]).tolist()
    return float(low), float(high)
