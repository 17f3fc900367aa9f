"""A threshold at a stated false positive rate, and an exact interval of the rate that it really has.

The threshold is one of the scores of n negatives, with k of them above it. If negatives to come are drawn
like those, the share of them above it has the distribution Beta(k + 1, n - k), whatever the scores are: the
share above an order statistic (Wilks 1941). Its mean is (k + 1) / (n + 1), which is kept at most the rate
asked. Of an equal-tailed interval of that distribution, Clopper and Pearson's for k of n has the same upper
end and a lower one that is lower.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from probes.statistics.groups import counted

__all__ = ["Threshold", "threshold_at"]


@dataclass(frozen=True)
class Threshold:
    """What raises an alarm: a score above ``value``.

    Attributes:
        value: in the unit of the scores.
        rate: false positive rate asked for.
        expected: mean rate of negatives to come.
        low: lower end of the interval of the rate.
        high: upper end.
        level: of the interval.
        above: negatives above the value.
        n: negatives (groups of them, where groups were given).
        tied: whether other negatives have exactly this score; the rate can then be lower than ``low`` says,
            which is 0.
    """

    value: float
    rate: float
    expected: float
    low: float
    high: float
    level: float
    above: int
    n: int
    tied: bool = False

    def __str__(self) -> str:
        """Write the rates in percent."""
        ends = f"{100 * self.low:.2g}% to {100 * self.high:.2g}%"
        return (
            f"above {self.value:.4g}: {100 * self.expected:.2g}% of negatives, {ends} ({self.n:,} negatives)"
        )


def threshold_at(
    negatives: Collection[Any],
    rate: float,
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
) -> Threshold:
    """Choose the lowest threshold that negatives to come pass at most at the rate asked, on average.

    Args:
        negatives: scores of examples that should raise no alarm and that nothing was fitted on.
        rate: above 0 and below 1.
        groups: of the negatives: a group counts once, by its highest score, and the rate is that of groups
            with an alarm. Examples of one group need not be independent.
        level: nominal coverage of the interval.

    Raises:
        ValueError: a rate that so few negatives cannot support, scores that are not finite, or lengths that
            differ.
    """
    scores = np.asarray(list(negatives), dtype=np.float64)
    if not 0 < rate < 1:
        raise ValueError(f"rate={rate} asked; give a false positive rate above 0 and below 1, such as 0.01.")
    if not np.isfinite(scores).all():
        raise ValueError("scores of negatives hold numbers that are not finite; drop those examples.")
    if groups is not None:
        scores = _highest(scores, list(groups))
    n = len(scores)
    above = int(np.floor(rate * (n + 1) + 1e-9)) - 1
    if above < 0:
        needed = int(np.ceil(1 / rate - 1e-9)) - 1
        least = f"the least that {n:,} support is {1 / (n + 1):.2g}" if n else "there are none"
        raise ValueError(
            f"a false positive rate of {rate:g} asked of {counted(n, 'negative')}: it takes at least "
            f"{needed:,}, and {least}. Give more negatives, or ask for a higher rate."
        )
    value = float(np.sort(scores)[::-1][above])
    tied, above = bool((scores == value).sum() > 1), int((scores > value).sum())
    tail = (1 - level) / 2
    low, high = special.betaincinv(above + 1, n - above, [tail, 1 - tail])
    return Threshold(
        value, rate, (above + 1) / (n + 1), 0.0 if tied else float(low), float(high), level, above, n, tied
    )


def _highest(scores: np.ndarray, groups: list[Any]) -> np.ndarray:
    if len(groups) != len(scores):
        raise ValueError(
            f"{counted(len(groups), 'group')} for {counted(len(scores), 'score')}; give one for each."
        )
    best: dict[Any, float] = {}
    for group, score in zip(groups, scores.tolist(), strict=True):
        best[group] = max(best.get(group, -np.inf), score)
    return np.array(list(best.values()))
