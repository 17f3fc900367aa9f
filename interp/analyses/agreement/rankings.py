"""Two models' effects of the same mediators on the same pairs: correlation and overlap of their rankings.

Each number is a function of how often each pair was drawn: both models' mean effects are taken over the same
draw, so that a model agrees with itself by exactly 1 in every draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from interp.mediation import Effects, stability
from interp.mediation.rankings import jaccard
from interp.results.findings import Finding
from interp.results.shapes import Cell, Table

__all__ = [
    "AGAIN",
    "OVERLAP",
    "Between",
    "Rankings",
    "by_luck",
    "kendall",
    "largest",
    "overlap",
    "spearman",
    "weighted_jaccard",
]

Means = Float[np.ndarray, " mediator"]
Compared = Callable[[Means, Means], float]
SHARE = 0.1
SHUFFLES = 200
LISTED = 2000
AGAIN, OVERLAP = "groups drawn again", "top overlap"


def spearman(one: Means, two: Means) -> float:
    """Give the rank correlation; 1 for equal effects, 0 where all of one model's are the same."""
    if np.array_equal(one, two):
        return 1.0
    ranks = [stats.rankdata(found) - (len(found) + 1) / 2 for found in (one, two)]
    size = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / size if size else 0.0


def kendall(one: Means, two: Means) -> float:
    """Give Kendall's tau-b; 1 for equal effects, 0 where all of one model's are the same."""
    if np.array_equal(one, two):
        return 1.0
    found: Any = stats.kendalltau(one, two, method="asymptotic")
    return float(found.statistic) if np.isfinite(found.statistic) else 0.0


def largest(means: Means, k: int) -> list[int]:
    """Give the places of the k largest effects, whichever way they work."""
    return np.argsort(-np.abs(means), kind="stable")[:k].tolist()


def by_luck(k: int, n: int) -> float:
    """Give the overlap to expect of two random sets of k of n: ``k / (2n - k)``."""
    return k / (2 * n - k)


def overlap(k: int) -> Compared:
    """Compare the k largest of both models by their Jaccard index."""
    return lambda one, two: jaccard(set(largest(one, k)), set(largest(two, k)))


def weighted_jaccard(k: int) -> Compared:
    """Compare the k largest of both models, each weighing its share of the k largest effects' size.

    It is the sum of the smaller shares over that of the larger ones. Shares leave out that all effects of a
    model may be smaller.
    """

    def compared(one: Means, two: Means) -> float:
        first, second = _shares(one, k), _shares(two, k)
        high = float(np.maximum(first, second).sum())
        return float(np.minimum(first, second).sum()) / high if high else 1.0

    return compared


def _shares(means: Means, k: int) -> np.ndarray:
    found = np.zeros(len(means))
    at = largest(means, k)
    found[at] = np.abs(means[at])
    return found / found.sum() if found.any() else found


@dataclass(frozen=True)
class Between:
    """How alike two rankings of one model are, from other pairs.

    Attributes:
        pairs: which.
        what: what is compared.
        value: of groups drawn again the median.
        low: the 2.5% quantile of draws, where there are several.
        high: the 97.5% quantile.
    """

    pairs: str
    what: str
    value: float
    low: float | None = None
    high: float | None = None

    def row(self) -> dict[str, Cell]:
        """The row of a table."""
        return {name: getattr(self, name) for name in ("pairs", "what", "value", "low", "high")}


@dataclass(frozen=True, eq=False)
class Rankings:
    """Hold the effects of a model and of the reference.

    Attributes:
        own: of the model.
        ref: of the reference, of the same mediators on the same pairs.
        k: size of the top list.
    """

    own: Effects
    ref: Effects
    k: int

    def finding(self, name: str, compared: Compared, control: float, about: str) -> Finding:
        """Make a finding that compares the two models' mean effects over the same draws of pairs."""
        own, ref = self._values(self.own), self._values(self.ref)

        def statistic(weights: Float[np.ndarray, " item"]) -> float:
            return compared(own @ weights / weights.sum(), ref @ weights / weights.sum())

        return Finding(
            name, self.own.total, self.own.groups, control=control, statistic=statistic, about=about
        )

    @staticmethod
    def _values(effects: Effects) -> np.ndarray:
        return np.mean(list(effects.values.values()), axis=0)

    def headline(self) -> tuple[Finding, ...]:
        """Give rank correlation and overlap of the top lists."""
        k, n = self.k, len(self.own.mediators)
        return (
            self.finding(
                "rank correlation of effects (Spearman)",
                spearman,
                0.0,
                f"over all {n} mediators, with the reference",
            ),
            self.finding(
                f"top-{k} overlap",
                overlap(k),
                by_luck(k, n),
                "Jaccard index, beside that of two random lists",
            ),
        )

    def further(self) -> tuple[Finding, ...]:
        """Give Kendall's tau, and the rank correlation among the reference's largest."""
        n = len(self.own.mediators)
        few = min(n, max(self.k, round(SHARE * n)))
        at = largest(self.ref.mean(), few)
        return (
            self.finding("rank correlation of effects (Kendall)", kendall, 0.0, "tau-b, with the reference"),
            self.finding(
                f"rank correlation among the reference's top {few} (Spearman)",
                lambda one, two: spearman(one[at], two[at]),
                0.0,
                "whether those that matter keep their order",
            ),
        )

    def effects(self) -> tuple[Finding, ...]:
        """Give the effect in this model of each of the reference's largest."""
        values = self._values(self.own)
        return tuple(
            Finding(
                f"effect of {self.ref.mediators[at]}",
                values[at],
                self.own.groups,
                unit=self.own.unit,
                layer=self.ref.mediators[at].layer,
                about="one of the reference's largest effects",
            )
            for at in largest(self.ref.mean(), self.k)
        )

    def luck(self, compared: Compared, seed: int) -> float:
        """Give what a comparison gives on average if the reference's effects belonged to other mediators."""
        rng, means = np.random.default_rng(seed), self.ref.mean()
        return float(np.mean([compared(means, rng.permutation(means)) for _ in range(SHUFFLES)]))

    def beside(self) -> Table:
        """Each mediator's effect beside the reference's, the reference's largest first, 2,000 at most."""
        own, ref, names = self.own.mean(), self.ref.mean(), self.ref.mediators
        rows = [
            (str(names[at]), names[at].layer, float(ref[at]), float(own[at])) for at in largest(ref, LISTED)
        ]
        columns = ("mediator", "layer", "reference", "value")
        return Table("effects", "Effects beside the reference's", columns, rows, folded=True)

    @staticmethod
    def between_draws(effects: Effects, other: Effects | None, k: int, seed: int) -> tuple[Between, ...]:
        """How much a model's own ranking changes with the pairs that were drawn.

        Args:
            effects: of the model.
            other: of the same model on pairs of other groups, where there are any.
            k: size of the top list.
            seed: of drawing groups again.
        """
        found: list[Between] = []
        if len(set(effects.groups)) > 1:
            rows = stability(effects, k, seed=seed).itertuples(index=False)
            found += [Between(AGAIN, str(row.what), row.value, row.low, row.high) for row in rows]
        if other is not None:
            one, two = effects.mean(), other.mean()
            found.append(Between("other pairs", OVERLAP, overlap(k)(one, two)))
            found.append(Between("other pairs", "rank correlation", spearman(one, two)))
        return tuple(found)
