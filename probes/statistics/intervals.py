"""The intervals behind :mod:`probes.statistics`: which method, and its arithmetic. NumPy and SciPy only.

Callers use :mod:`probes.statistics`; this module holds the mechanics, one short function for each method.
"""

# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.statistics.numbers import FloatArray

__all__ = ["ENOUGH_CARRIERS", "Grouped", "Interval", "bca", "clopper_pearson", "combined", "real", "share"]

Codes = npt.NDArray[np.intp]

ENOUGH_CARRIERS = 12.0
"""So many groups must carry the rarer outcome before resampling is trusted."""


@dataclass(frozen=True)
class Interval:
    """Hold a confidence interval, in the unit of the value it belongs to.

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
        """Say whether a value lies inside, ends included."""
        return self.low <= value <= self.high

    def clipped(self, low: float, high: float) -> Interval:
        """Give the part between two bounds that the value cannot pass."""
        return Interval(max(self.low, low), min(self.high, high), self.level, self.method)

    def __str__(self) -> str:
        """Give ``[low, high]`` with two decimals."""
        return f"[{self.low:.2f}, {self.high:.2f}]"


class Grouped:
    """Hold the sums over groups of one number per example, and what follows from them."""

    def __init__(self, values: FloatArray, codes: Codes) -> None:
        """Sum ``values`` over the groups named by ``codes`` (0, 1, ... without gaps)."""
        self.sizes: FloatArray = np.bincount(codes).astype(np.float64)
        self.sums: FloatArray = np.bincount(codes, weights=values).astype(np.float64)
        self.n: float = float(self.sizes.sum())
        self.mean: float = float(self.sums.sum() / self.n)
        self.count: int = len(self.sizes)
        self.effective: float = self.n**2 / float(self.sizes @ self.sizes)

    @property
    def residuals(self) -> FloatArray:
        """Give each group's sum less what the overall mean expects of it."""
        return self.sums - self.mean * self.sizes

    @property
    def variance(self) -> float:
        """Give the squared standard error of the mean, from the spread between groups (0 for one group)."""
        spread = float(self.residuals @ self.residuals) / self.n**2
        return spread * self.count / (self.count - 1) if self.count > 1 and spread > 1e-24 else 0.0

    @property
    def freedom(self) -> float:
        """Give the degrees of freedom the variance has, given the kurtosis of the groups (Satterthwaite)."""
        squares, count = self.residuals**2, self.count
        excess = float((squares**2).mean() / squares.mean() ** 2) - 3
        return float(np.clip(2 * count / (excess + 2 * count / (count - 1)), 1, count - 1))

    def carriers(self) -> float:
        """Count, by weight, the groups that depart from the whole number nearest to the mean (0 or 1, -1)."""
        away = np.abs(self.sums - np.rint(self.mean) * self.sizes)
        return float(away.sum() ** 2 / (away @ away)) if away.any() else 0.0

    def resampled(self, n_resamples: int, seed: int) -> tuple[FloatArray, FloatArray]:
        """Draw groups with replacement: the mean of each resample and its own standard error."""
        parts = [self._part(draws) for draws in _draws(self.count, n_resamples, seed)]
        return np.concatenate([m for m, _ in parts]), np.concatenate([s for _, s in parts])

    def _part(self, draws: FloatArray) -> tuple[FloatArray, FloatArray]:
        sums, sizes, squares = draws @ self.sums, draws @ self.sizes, draws @ self.sums**2
        means = sums / sizes
        spread = squares - 2 * means * (draws @ (self.sums * self.sizes)) + means**2 * (draws @ self.sizes**2)
        spread[spread < 1e-12 * squares] = 0.0
        return means, np.sqrt(np.maximum(spread, 0) * self.count / (self.count - 1)) / sizes


def _draws(count: int, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    generator, even = np.random.default_rng(seed), np.full(count, 1 / count)
    step = max(1, 4_000_000 // count)
    for start in range(0, n_resamples, step):
        yield generator.multinomial(count, even, size=min(step, n_resamples - start)).astype(np.float64)


def undetermined(level: float) -> Interval:
    """Give the infinite interval of data that cannot say."""
    return Interval(-math.inf, math.inf, level, "undetermined")


def clopper_pearson(successes: float | int, trials: float | int, *, level: float = 0.95) -> Interval:
    """Give the exact binomial interval of a share (Clopper and Pearson 1934).

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


def share(table: Grouped, level: float, n_resamples: int, seed: int) -> Interval:
    """Give the interval of a mean of values in [0, 1]."""
    if table.variance == 0 or table.carriers() <= ENOUGH_CARRIERS:
        return score(table, level)
    means, errors = table.resampled(n_resamples, seed)
    angles, angle = 2 * np.arcsin(np.sqrt(means.clip(0, 1))), 2 * math.asin(math.sqrt(table.mean))
    slope = np.sqrt(np.maximum(means * (1 - means), 0))
    errors = np.divide(errors, slope, out=np.zeros_like(errors), where=slope > 0)
    low_t, high_t = _pivots(angles - angle, errors, level)
    if not (math.isfinite(low_t) and math.isfinite(high_t)):
        return score(table, level)
    error = math.sqrt(table.variance / (table.mean * (1 - table.mean)))
    low, high = max(0.0, angle - high_t * error), min(math.pi, angle - low_t * error)
    return Interval(math.sin(low / 2) ** 2, math.sin(high / 2) ** 2, level, "studentised bootstrap")


def real(table: Grouped, level: float, n_resamples: int, seed: int) -> Interval:
    """Give the interval of a mean of unbounded values."""
    if table.variance == 0:
        return undetermined(level)
    means, errors = table.resampled(n_resamples, seed)
    low_t, high_t = _pivots(means - table.mean, errors, level)
    error = math.sqrt(table.variance)
    low, high = table.mean - high_t * error, table.mean - low_t * error
    return Interval(low, high, level, "studentised bootstrap")


def _pivots(shifts: FloatArray, errors: FloatArray, level: float) -> tuple[float, float]:
    pivots = np.where(shifts > 0, np.inf, -np.inf)
    np.divide(shifts, errors, out=pivots, where=errors > 0)
    low, high = np.quantile(pivots, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


def score(table: Grouped, level: float) -> Interval:
    """Give the interval of a mean of values in [0, 1] near 0 and 1, where few groups depart from the rest."""
    p = table.mean
    if table.variance == 0:
        k = min(max(p, 0.0), 1.0) * table.effective
        found = clopper_pearson(k, table.effective, level=level)
        return Interval(found.low, found.high, level, "clopper-pearson on groups")
    z = float(special.stdtrit(table.count - 1, (1 + level) / 2))
    t = float(special.stdtrit(table.freedom, (1 + level) / 2))
    n = float(np.clip(p * (1 - p) / table.variance * (z / t) ** 2, table.effective, table.n))
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(centre - half, centre + half, level, "score on groups").clipped(0.0, 1.0)


def combined(difference: FloatArray, codes: Codes, level: float) -> Interval:
    """Give the interval of a mean difference of shares that few groups show: its gains less its losses."""
    up, down = Grouped(np.maximum(difference, 0), codes), Grouped(np.maximum(-difference, 0), codes)
    gain, loss = score(up, level), score(down, level)
    agreed = up.variance == 0 and down.variance == 0
    r = -1.0 if agreed else _correlation(up.residuals, down.residuals)
    value = up.mean - down.mean
    below = _distance(up.mean - gain.low, loss.high - down.mean, r)
    above = _distance(gain.high - up.mean, down.mean - loss.low, r)
    method = "clopper-pearson on groups" if agreed else "score on groups"
    return Interval(value - below, value + above, level, method).clipped(-1.0, 1.0)


def _correlation(first: FloatArray, second: FloatArray) -> float:
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(np.clip(float(first @ second) / scale, -1, 1)) if scale > 0 else 0.0


def _distance(first: float, second: float, r: float) -> float:
    return math.sqrt(max(first**2 - 2 * r * first * second + second**2, 0.0))


def bca(
    data: npt.NDArray[Any],
    codes: Codes,
    statistic: Callable[[npt.NDArray[Any]], float],
    level: float,
    n_resamples: int,
    seed: int,
) -> Interval:
    """Give the BCa bootstrap interval over groups of a statistic that is a function of the examples."""
    rows = [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
    if len(rows) < 2:
        return undetermined(level)
    value, generator = float(statistic(data)), np.random.default_rng(seed)
    draws = generator.integers(0, len(rows), (n_resamples, len(rows)))
    picks = (np.concatenate([rows[int(i)] for i in draw]) for draw in draws)
    scores = np.array([float(statistic(data[pick])) for pick in picks])
    without = np.array([float(statistic(np.delete(data, part, axis=0))) for part in rows])
    pull: FloatArray = float(np.mean(without)) - without
    if not pull.any() or not np.isfinite(scores).all():
        return undetermined(level)
    below = float(np.mean(scores < value)) + float(np.mean(np.equal(scores, value))) / 2
    bias = float(special.ndtri(min(max(below, 1e-6), 1 - 1e-6)))
    cubes, squares = float(np.sum(pull**3)), float(np.sum(pull**2))
    acceleration = cubes / (6 * squares**1.5)
    ends = (bias + float(special.ndtri(q)) for q in ((1 - level) / 2, (1 + level) / 2))
    shares = (float(special.ndtr(bias + z / (1 - acceleration * z))) for z in ends)
    low, high = np.quantile(scores, [*shares]).tolist()
    return Interval(float(low), float(high), level, "bca bootstrap")
