"""Does another model do the same thing by the same parts? Effects, their ranking, and a circuit, beside it.

Each number that compares rankings is a function of how often each pair was drawn: both models' mean effects
are taken over the same draw, so that a model agrees with itself by exactly 1 in every draw.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from interp.errors import ConfigError, DataError, counted
from interp.mediation import Effects, stability
from interp.mediation.circuits.runs import no_total, run_all, share_kept
from interp.mediation.mediators import Members
from interp.mediation.rankings import jaccard
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import Cell, Figure, Finding, Number, Table

__all__ = [
    "Beside",
    "Carried",
    "Narrowed",
    "by_luck",
    "carried",
    "kendall",
    "overlap",
    "spearman",
    "weighted_jaccard",
]

Means = Float[np.ndarray, " mediator"]
Compared = Callable[[Means, Means], float]
SHARE = 0.1
SAMPLE = 24
"""Mediators drawn at random from all where only the largest are replaced one by one."""
SHUFFLES, LISTED, RANDOM = 200, 2000, 5


def spearman(one: Means, two: Means) -> float:
    """The rank correlation; 1 for equal effects, 0 where all of one model's are the same."""
    if np.array_equal(one, two):
        return 1.0
    ranks = [stats.rankdata(found) - (len(found) + 1) / 2 for found in (one, two)]
    size = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / size if size else 0.0


def kendall(one: Means, two: Means) -> float:
    """Kendall's tau-b; 1 for equal effects, 0 where all of one model's are the same."""
    if np.array_equal(one, two):
        return 1.0
    found: Any = stats.kendalltau(one, two, method="asymptotic")
    return float(found.statistic) if np.isfinite(found.statistic) else 0.0


def largest(means: Means, k: int) -> list[int]:
    """The places of the k largest effects, whichever way they work."""
    return np.argsort(-np.abs(means), kind="stable")[:k].tolist()


def by_luck(k: int, n: int) -> float:
    """The overlap to expect of two random sets of k of n: ``k / (2n - k)``."""
    return k / (2 * n - k)


def overlap(k: int) -> Compared:
    """Compares the k largest of both models by their Jaccard index."""
    return lambda one, two: jaccard(set(largest(one, k)), set(largest(two, k)))


def weighted_jaccard(k: int) -> Compared:
    """Compares the k largest of both models, each weighing its share of the k largest effects' size.

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
class Narrowed:
    """Which mediators were replaced one by one, where not all were: the largest, and a random sample of all.

    Attributes:
        total: how many mediators there are.
        largest: how many of them are the largest by a first estimate (attribution) in the reference.
        sample: the names of those that were drawn at random, some of which may be among the largest.
        rank: the rank correlation of estimated and exact effects in the sample, in the reference.
    """

    total: int
    largest: int
    sample: tuple[str, ...]
    rank: float = 0.0

    @classmethod
    def of(cls, estimated: Effects, largest: int, seed: int) -> tuple[Narrowed, list[int]]:
        """The choice, and the places of the mediators that are replaced, in order of execution."""
        total = len(estimated.mediators)
        drawn = np.random.default_rng(seed).permutation(total)[:SAMPLE].tolist()
        top = np.argsort(-np.abs(estimated.mean()), kind="stable")[:largest].tolist()
        sample = tuple(str(estimated.mediators[at]) for at in sorted(drawn))
        return cls(total, len(top), sample), sorted({*top, *drawn})

    def at(self, mediators: Members) -> list[int]:
        """The places of the random sample."""
        return [place for place, one in enumerate(mediators) if str(one) in set(self.sample)]

    def measured(self, estimated: Effects, exact: Effects) -> Narrowed:
        """The same with how well the estimates that chose rank the random sample."""
        rows = self.at(exact.mediators)
        guess = np.array([estimated.mean()[estimated.place(str(exact.mediators[at]))] for at in rows])
        return replace(self, rank=spearman(guess, exact.mean()[rows]))

    def said(self, replaced: int) -> str:
        """What was chosen; for a reader.

        Args:
            replaced: how many mediators were replaced one by one.
        """
        return (
            f"of {counted(self.total, 'mediator')} only {replaced} were replaced one by one: the "
            f"{self.largest} largest of the reference by attribution, and {len(self.sample)} drawn at random "
            f"from all, whose exact effects there the estimates rank with a correlation of {self.rank:.2f}. "
            "Rank correlations are over those drawn at random; a mediator outside both that only another "
            "model needs is not seen but in what the circuit keeps, which is of all"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Carried:
    """The metric of each pair where only some nodes are as in the clean run.

    Attributes:
        nodes: the reference's circuit.
        own: this model's largest effects, as many; none where not all effects are known.
        whole: nothing replaced.
        none: everything replaced.
        inside: all but the reference's circuit replaced.
        mine: all but this model's largest replaced; None where they are not known.
        chance: the mean over random circuits of that size.
        groups: of the pairs.
        no_share: why no share of the total effect means anything, or "".
    """

    nodes: Members
    own: Members
    whole: Float[np.ndarray, " pair"]
    none: Float[np.ndarray, " pair"]
    inside: Float[np.ndarray, " pair"]
    mine: Float[np.ndarray, " pair"] | None
    chance: Float[np.ndarray, " pair"]
    groups: tuple[str, ...]
    no_share: str = ""

    def share(self, values: Float[np.ndarray, " pair"]) -> float | None:
        """The share of the behaviour that is kept; None where it has no meaning."""
        if self.no_share:
            return None
        return share_kept(values, self.none, self.whole)(np.ones(len(values)))

    def findings(self, metric: str, unit: str) -> tuple[Finding, ...]:
        """What the reference's circuit keeps of this model's behaviour, beside random circuits."""
        faithful = Finding(
            "faithfulness of the reference's circuit",
            self.inside,
            self.groups,
            control=self.share(self.chance) or 0.0,
            unit="share",
            statistic=share_kept(self.inside, self.none, self.whole),
            about="share of this model's behaviour that it keeps alone; random circuits are the control",
        )
        return (
            *(() if self.no_share else (faithful,)),
            Finding(
                "kept by the reference's circuit",
                self.inside - self.none,
                self.groups,
                control=self.chance - self.none,
                unit=unit,
                about=f"{metric} of it alone, beyond that with everything replaced",
            ),
        )


def carried(
    model: Model,
    pairs: PairSet,
    nodes: Members,
    effects: Effects,
    seed: int,
    *,
    universe: Members | None = None,
) -> Carried:
    """Run the reference's circuit in a model, random ones of its size, and the model's own.

    Args:
        model: what is run.
        pairs: that the ranking has not seen.
        nodes: the reference's circuit.
        effects: of this model.
        seed: of the random circuits.
        universe: every mediator, where only some of them have effects: which of all are the model's own
            largest is then not known.
    """
    members: Any = effects.mediators if universe is None else universe
    own = effects.top(len(nodes)) if universe is None else ()
    rng = random.Random(f"circuits:{seed}")
    lucky = [set(rng.sample(members, len(nodes))) for _ in range(RANDOM)]
    sets = [set(members), set(), set(nodes), *([set(own)] if own else []), *lucky]
    whole, none, inside, *others = run_all(model, pairs, members, sets, effects.metric, seed)
    mine = others.pop(0) if own else None
    groups = tuple(pairs.groups)
    no_share = no_total(effects.metric, whole, none, groups, seed)
    return Carried(nodes, own, whole, none, inside, mine, np.mean(others, axis=0), groups, no_share)


@dataclass(frozen=True, eq=False, repr=False)
class Beside:
    """A reference's effects of the same mediators on the same pairs, and its circuit in this model.

    Attributes:
        reference: its effects.
        k: size of the top lists.
        circuit: its circuit in this model; None where it has none.
        note: why it has none, or "".
        itself: whether these are this model's own effects, so that every agreement is 1.
        narrowed: which mediators the effects are of, where not all.
    """

    reference: Effects
    k: int
    circuit: Carried | None
    note: str = ""
    itself: bool = False
    narrowed: Narrowed | None = None

    def check(self, own: Effects) -> None:
        """Refuse effects that were found in another way.

        Raises:
            ConfigError: of other mediators, or by another search, metric, replacement or direction, or a k
                that is no part of the mediators.
            DataError: on other pairs, or read by another tokenizer.
        """
        ref = self.reference
        if not 1 <= self.k < len(own.mediators):
            raise ConfigError(
                f"k={self.k} asked, of {counted(len(own.mediators), 'mediator')}: a top list has 1 or more, "
                "not all."
            )
        for what in ("search", "metric", "replacement", "directions"):
            if (here := getattr(own, what)) != (there := getattr(ref, what)):
                raise ConfigError(
                    f"patch: {what} is {here} here and {there} in the reference; ask both the same."
                )
        for what, where in (("fingerprint", "data"), ("tokenizer_fingerprint", "model")):
            if getattr(own.about, where).get(what) != getattr(ref.about, where).get(what):
                raise DataError(
                    "patch: the reference read other tokens. Use the same pairs, n and seed, and models that "
                    "share a tokenizer."
                )
        if own.mediators != ref.mediators:
            raise DataError(
                f"patch: the reference has {counted(len(ref.mediators), 'mediator')} and this model "
                f"{len(own.mediators)}, or others. Compare models of one architecture, mediators alike."
            )

    def findings(self, own: Effects, seed: int) -> tuple[Finding, ...]:
        """Total effect, circuit, agreement of the rankings, and the effects of the reference's k largest."""
        total = Finding(
            "total effect",
            own.total,
            own.groups,
            unit=own.unit,
            about="the metric of the clean prompt less that of the corrupt one",
        )
        circuit = () if self.circuit is None else self.circuit.findings(own.metric, own.unit)
        return (total, *circuit, *self._agreements(own, seed), *self._effects(own))

    def _agreements(self, own: Effects, seed: int) -> list[Finding]:
        k, n, size = self.k, len(own.mediators), 0 if self.circuit is None else len(self.circuit.own)
        ref = self.reference.mean()
        if self.narrowed is None:
            rows, few = list(range(n)), min(n, max(k, round(SHARE * n)))
            over = f"over all {counted(n, 'mediator')}, with the reference"
            top = f"top-{k} overlap"
        else:
            rows, few = self.narrowed.at(own.mediators), self.narrowed.largest
            over = f"over {len(rows)} of {counted(self.narrowed.total, 'mediator')}, drawn at random"
            top = f"top-{k} overlap among {n}"
        at, weighted = largest(ref, few), weighted_jaccard(size)
        rng = np.random.default_rng(seed)
        found: list[tuple[str, Compared, float, str]] = [
            (
                "rank correlation of effects (Spearman)",
                lambda one, two: spearman(one[rows], two[rows]),
                0.0,
                over,
            ),
            (top, overlap(k), by_luck(k, n), "Jaccard index, beside that of two random lists"),
        ]
        if size:
            luck = float(np.mean([weighted(ref, rng.permutation(ref)) for _ in range(SHUFFLES)]))
            about = f"Jaccard index of both models' {size} largest, the size of the reference's circuit"
            found.append(("circuit overlap", overlap(size), by_luck(size, n), about))
            about = (
                "each mediator by its share of the circuit's effects; the effects shuffled are the control"
            )
            found.append(("circuit overlap, weighted by effect", weighted, luck, about))
        few_name = f"rank correlation among the reference's top {few} (Spearman)"
        found += [
            (
                "rank correlation of effects (Kendall)",
                lambda one, two: kendall(one[rows], two[rows]),
                0.0,
                "tau-b, with the reference" if self.narrowed is None else f"tau-b, {over}",
            ),
            (
                few_name,
                lambda one, two: spearman(one[at], two[at]),
                0.0,
                "whether those that matter keep their order",
            ),
        ]
        return [self._agreement(own, *one) for one in found]

    def _agreement(self, own: Effects, name: str, compared: Compared, control: float, about: str) -> Finding:
        """Compare the two models' mean effects over the same draws of pairs."""
        here, there = own.per_pair(), self.reference.per_pair()

        def statistic(weights: Float[np.ndarray, " item"]) -> float:
            return compared(here @ weights / weights.sum(), there @ weights / weights.sum())

        return Finding(name, own.total, own.groups, control=control, statistic=statistic, about=about)

    def _effects(self, own: Effects) -> list[Finding]:
        names, values = self.reference.mediators, own.per_pair()
        return [
            Finding(
                f"effect of {names[at]}",
                values[at],
                own.groups,
                unit=own.unit,
                layer=names[at].layer,
                about="one of the reference's largest effects",
            )
            for at in largest(self.reference.mean(), self.k)
        ]

    def verdict(self, own: Effects) -> str:
        """How alike the rankings are, and what the circuit keeps."""
        one, two = own.mean(), self.reference.mean()
        said = (
            f"Beside the reference: rank correlation {self._correlation(own):.2f}, the top {self.k} overlap "
            f"by {overlap(self.k)(one, two):.2f} ({by_luck(self.k, len(one)):.2f} by luck)"
        )
        if self.circuit is None:
            return f"{said}."
        kept, luck = self.circuit.share(self.circuit.inside), self.circuit.share(self.circuit.chance)
        if kept is None or luck is None:
            return f"{said}; {self.circuit.no_share}."
        return f"{said}; its circuit keeps {kept:.0%} of the behaviour here (random ones {luck:.0%})."

    def _correlation(self, own: Effects) -> float:
        """Spearman's, over all or over those drawn at random."""
        rows = list(range(len(own.mediators))) if self.narrowed is None else self.narrowed.at(own.mediators)
        return spearman(own.mean()[rows], self.reference.mean()[rows])

    def numbers(self, own: Effects) -> tuple[Number, ...]:
        """Rank correlation, overlap, and what the reference's circuit keeps."""
        one, two = own.mean(), self.reference.mean()
        found = (
            Number("rank-correlation-with-reference", self._correlation(own)),
            Number("top-overlap-with-reference", overlap(self.k)(one, two)),
        )
        if self.circuit is None:
            return found
        return (*found, Number("kept-by-the-references-circuit", self.circuit.share(self.circuit.inside)))

    def tables(self, own: Effects, seed: int) -> tuple[Table, ...]:
        """``circuits``, ``draws`` (how the reference's ranking changes with the pairs) and ``beside``."""
        here, there, names = own.mean(), self.reference.mean(), self.reference.mediators
        rows = [
            (str(names[at]), names[at].layer, float(there[at]), float(here[at]))
            for at in largest(there, LISTED)
        ]
        columns = ("mediator", "layer", "reference", "value")
        beside = Table("beside", "Effects beside the reference's", columns, rows, folded=True)
        return (*self._circuits(own), self._draws(own, seed), beside)

    def _circuits(self, own: Effects) -> tuple[Table, ...]:
        found = self.circuit
        if found is None:
            return ()
        rows: list[tuple[Cell, ...]] = [
            (
                "the reference's",
                len(found.nodes),
                found.share(found.inside),
                ", ".join(map(str, found.nodes)),
            ),
            *(
                ()
                if found.mine is None
                else (
                    ("this model's", len(found.own), found.share(found.mine), ", ".join(map(str, found.own))),
                )
            ),
            (f"random, mean of {RANDOM}", len(found.nodes), found.share(found.chance), ""),
        ]
        effect = float((found.whole - found.none).mean())
        total = len(own.mediators) if self.narrowed is None else self.narrowed.total
        note = (
            f"Faithfulness: the share of {own.metric} that it keeps alone, on "
            f"{counted(len(found.groups), 'pair')}; "
            f"replacing all {counted(total, 'mediator')} changes it by {effect:.3g}."
            f"{f' No faithfulness is given: {found.no_share}.' if found.no_share else ''}"
        )
        return (
            Table(
                "circuits",
                "Circuits of the same size",
                ("circuit", "size", "faithfulness", "members"),
                rows,
                note,
            ),
        )

    def _draws(self, own: Effects, seed: int) -> Table:
        """How the reference's ranking changes with the pairs, and whether this model's differs by less."""
        k, now = self.k, overlap(self.k)(own.mean(), self.reference.mean())
        rows: list[tuple[Cell, ...]] = [("this model beside the reference", "top overlap", now, None, None)]
        note = "All pairs are of one group, so that none can be drawn again."
        if len(set(self.reference.groups)) > 1:
            drawn = stability(self.reference, k, seed=seed)
            rows += [("the reference, groups drawn again", *row) for row in drawn.itertuples(index=False)]
            again = float(drawn.set_index("what").loc["top overlap", "value"])
            note = (
                f"The top {k} shares {now:.2f} with the reference's, {'more' if now > again else 'no more'} "
                f"than the reference's own does between draws of pairs ({again:.2f}, the median)."
            )
        return Table(
            "draws",
            "Rankings between draws of pairs",
            ("rankings", "what", "value", "low", "high"),
            rows,
            note,
        )

    def figures(self, own: Effects) -> tuple[Figure, ...]:
        """Effects against the reference's."""
        names, x, y = list(map(str, own.mediators)), self.reference.mean(), own.mean()
        return (
            Figure(
                "beside",
                "scatter",
                {"name": names, "series": ["effects"] * len(names), "x": x.tolist(), "y": y.tolist()},
                "Effects beside the reference's",
                f"One mark per mediator ({len(names):,}); on the dashed line both are the same.",
                x=f"effect in the reference ({own.unit})",
                y=f"effect here ({own.unit})",
            ),
        )
