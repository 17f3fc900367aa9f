"""The metric of MIB's circuit track for any model and search, with intervals and a random order beside it.

Its tasks' data are not shipped: pairs come from this project's tasks of the same kind, so that a score here
says how a search does on this model and these pairs, and stands beside no row of the leaderboard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from interp.errors import ConfigError, DataError, counted
from interp.mediation.circuits.curve import Area, Curve, Measure, away, curve, under
from interp.mediation.circuits.runs import ends_of
from interp.mediation.experiment import spent
from interp.mediation.mib.circuit_file import MIBCircuit
from interp.mediation.searches import SEARCHES, PositionAttribution, effects
from interp.mediation.searches.search import Search
from interp.models.loading import ModelLike, as_model
from interp.pairs import PairSet
from interp.results import About, Cell, Figure, Finding, Number, Result, Table
from interp.results.shapes import FORMS
from probes.statistics import Estimate, holm

__all__ = ["LEVELS", "MIB_TASKS", "MIBScore", "MIBTask", "mib_score"]

LEVELS: dict[str, tuple[str, ...]] = {"edges": ("edge.*",), "nodes": ("embed", "head.*", "mlp_out.*")}
"""What is ranked: MIB's levels, but for that of neurons."""
LEVEL = 0.05
"""How often at most random scores are called better than a random order, in either of two areas."""
RANDOM = 40
"""Random orders, of which none may do as well where two areas are looked at."""
SAME = 1e-9
AREAS: dict[str, tuple[str, Measure, int]] = {"CPR": ("signed", under, 1), "CMD": ("absolute", away, -1)}
"""MIB's two areas: how it ranks for each, how each is measured, and whether more is better."""


@dataclass(frozen=True)
class MIBTask:
    """A task of the circuit track.

    Attributes:
        name: MIB's.
        pairs: this project's task of that kind, a key of ``PAIR_TASKS``; "" where there is none.
        remark: how it differs, or why there is none.
    """

    name: str
    pairs: str
    remark: str


_ROWS = (
    MIBTask(
        "ioi", "indirect-object", "the giver's name changes (S2 to IO); names, places and templates are ours"
    ),
    MIBTask("arithmetic_addition", "addition", "another second number; sums of two numbers up to 49"),
    MIBTask("arithmetic_subtraction", "", "no task here subtracts, and MIB's data are not shipped"),
    MIBTask("mcqa", "", "no task here asks with lettered choices, and MIB's data are not shipped"),
    MIBTask("arc_easy", "", "its questions are those of ARC, whose data are not shipped"),
    MIBTask("arc_challenge", "", "its questions are those of ARC, whose data are not shipped"),
)
MIB_TASKS: dict[str, MIBTask] = {row.name: row for row in _ROWS}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MIBScore(Result):
    """CPR and CMD of a ranking, as MIB measures them.

    Attributes:
        signed: faithfulness by size, the highest scores first; its control is the mean of random orders.
        absolute: likewise, the largest scores first, of either sign.
        search: what ranked, or the name of a file.
        level: a key of ``LEVELS``.
        forwards: forward passes of every pair that the search took; None of a file.
        unseen: whether the areas are over pairs that the search has not seen.
    """

    schema: ClassVar[str] = "interp.mib/1"
    signed: Curve
    absolute: Curve
    search: str
    level: str
    forwards: float | None = None
    unseen: bool = True

    @property
    def random(self) -> Curve:
        """The mean curve of random orders."""
        assert self.signed.control is not None
        return self.signed.control

    def _area(self, name: str) -> tuple[float, Estimate | None, float]:
        """An area, with its interval, and the mean of those of random orders."""
        found, of = self._measured(name)
        return of(found.faithfulness), found.estimate(of), float(np.mean(self._lucky(name)))

    def _measured(self, name: str) -> tuple[Curve, Area]:
        """The curve of an area, and what measures it."""
        order, measure, _ = AREAS[name]
        found = self.signed if order == "signed" else self.absolute
        return found, measure(found.axis)

    def _lucky(self, name: str) -> list[float]:
        """An area of every random order."""
        of = AREAS[name][1](self.signed.axis)
        draws = self.random.faithfulness[None] if self.signed.draws is None else self.signed.draws
        return [of(one) for one in draws]

    def p_value(self, area: str) -> float:
        """How often a random order does as well in an area: (b + 1) / (n + 1) of n orders.

        Args:
            area: ``CPR`` or ``CMD``.
        """
        (found, of), sign = self._measured(area), AREAS[area][2]
        value, lucky = sign * of(found.faithfulness), sign * np.array(self._lucky(area))
        return float((np.sum(lucky >= value - SAME) + 1) / (len(lucky) + 1))

    def question(self) -> str:
        """The question that was asked."""
        return f"How well does {self.search} rank {self.level}, as MIB measures it? ({self.about.words})"

    def verdict(self) -> str:
        """Both areas with their intervals beside a random order, and whether they beat it."""
        if self.signed.no_share:
            return f"No score is given: {self.signed.no_share}."
        said: list[str] = []
        for name in AREAS:
            value, found, lucky = self._area(name)
            low, high = ends_of(found)
            interval = "" if low is None or high is None else f" [{low:z.3f}, {high:z.3f}]"
            said.append(f"{name} {value:z.3f}{interval} ({lucky:z.3f} in a random order)")
        return f"{self.search} on {self.level}: {', '.join(said)}; {self._beats()}."

    @property
    def better(self) -> tuple[str, ...]:
        """The areas in which few random orders do as well (Holm 1979), their mean outside of the interval."""
        names = tuple(AREAS)
        p_values = holm([self.p_value(name) for name in names])
        return tuple(
            name for name, p in zip(names, p_values, strict=True) if p <= LEVEL and self._beyond(name)
        )

    def _beyond(self, name: str) -> bool:
        _, found, lucky = self._area(name)
        if found is None:
            return False
        return found.interval.low > lucky if AREAS[name][2] > 0 else found.interval.high < lucky

    def _beats(self) -> str:
        told = self.better
        if not told:
            return "not told from a random order"
        p = max(self.p_value(name) for name in told)
        return f"{' and '.join(told)} better than a random order (p {p:.2g})"

    @property
    def _orders(self) -> str:
        """How many random orders there are, and what an area has to do to be told from them."""
        n = len(self._lucky("CPR"))
        return (
            f"{counted(n, 'random order')}, of which all but few must do worse (p = (b + 1) / (n + 1), "
            "corrected for two areas)"
        )

    def lead(self) -> tuple[str, ...]:
        """How it was measured."""
        where = "pairs of groups that the search has not seen" if self.unseen else "the pairs it was found on"
        return (
            f"{self.search} scored all {self.signed.total:,} {self.level}; circuits of the largest 0.1% to "
            "100% were run with everything outside taken from the corrupt prompt, on "
            f"{len(self.signed.groups):,} {where}; so were {self._orders}. "
            "CPR is the area under faithfulness, the highest scores first; CMD the area to 1, "
            "the largest scores of either sign first (Mueller et al. 2025, "
            "2504.13151). The axis is linear from 0.001: a perfect order has CPR 0.999 and CMD 0, one that "
            "finds nothing before all is in about 0.25 and 0.75.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Both areas, and those of a random order."""
        none = bool(self.signed.no_share)
        found: list[Number] = []
        for name, meaning in (("CPR", "higher is better"), ("CMD", "0 is best")):
            value, estimate, lucky = self._area(name)
            ends = (None, None) if none else ends_of(estimate)
            found.append(Number(name.lower(), None if none else value, *ends, "", meaning, name))
            found.append(
                Number(
                    f"{name.lower()}-random",
                    None if none else lucky,
                    meaning="random order",
                    label=f"Random {name}",
                )
            )
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """The areas; then faithfulness by size in the three orders; then MIB's tasks and which are here."""
        rows: list[tuple[Cell, ...]] = []
        for name in AREAS:
            value, found, lucky = self._area(name)
            rows.append((name, value, *ends_of(found), lucky))
        formats = {name: "z.3f" for name in ("value", "random_order", "signed", "absolute")}
        areas = Table(
            "areas",
            "Areas",
            ("area", "value", "low", "high", "random_order"),
            [] if self.signed.no_share else rows,
            "Intervals: 95%, over groups of pairs.",
            formats=formats,
        )
        by_size = zip(
            self.signed.axis.tolist(),
            self.signed.sizes,
            self.signed.faithfulness.tolist(),
            self.absolute.faithfulness.tolist(),
            self.random.faithfulness.tolist(),
            strict=True,
        )
        sizes = Table(
            "sizes",
            "Faithfulness by size",
            ("fraction", "size", "signed", "absolute", "random_order"),
            list(by_size),
            formats=formats,
        )
        tasks = Table(
            "tasks",
            "Tasks of MIB's circuit track",
            ("task", "here", "remark"),
            [(row.name, row.pairs or "-", row.remark) for row in MIB_TASKS.values()],
            "A score stands beside no row of MIB's leaderboard: the pairs are others.",
            folded=True,
        )
        return areas, sizes, tasks

    def figures(self) -> tuple[Figure, ...]:
        """Faithfulness by size in the three orders; nothing without shares."""
        if self.signed.no_share:
            return ()
        named = (
            ("highest first (CPR)", self.signed),
            ("largest first (CMD)", self.absolute),
            ("random", self.random),
        )
        rows: list[tuple[float, str, float, float, float]] = []
        for name, found in named:
            for at, (x, value) in enumerate(
                zip(found.axis.tolist(), found.faithfulness.tolist(), strict=True)
            ):
                low, high = ends_of(found.estimate(lambda shares, at=at: float(shares[at])))
                rows.append((x, name, value, value if low is None else low, value if high is None else high))
        data = dict(zip(FORMS["curve"], zip(*rows, strict=True), strict=True))
        return (
            Figure(
                "faithfulness",
                "curve",
                data,
                "Faithfulness by size, as MIB measures it",
                "Intervals: 95%, over groups of pairs. CPR is the area under a line, CMD to the dashed one.",
                x=f"share of the {self.signed.total:,} {self.level} that is in the circuit",
                y="share of the behaviour kept",
                reference=1.0,
                reference_name="the whole model",
            ),
        )

    def findings(self) -> tuple[Finding, ...]:
        """Those of the signed curve: the area and each size, beside a random order."""
        return self.signed.findings()

    def cautions(self) -> tuple[str, ...]:
        """What the areas do not show."""
        return (
            "CPR rewards leaving out what works against the answer and may exceed 1; read it with CMD.",
            "Half of the axis lies between 50% and 100%: both areas say little about small circuits.",
        )


def mib_score(
    model: ModelLike,
    pairs: PairSet,
    unseen: PairSet | None = None,
    *,
    search: str | Search = "attribution",
    level: str = "edges",
    scores: MIBCircuit | None = None,
    metric: str = "logit-diff",
    random_orders: int = RANDOM,
    seed: int = 0,
    progress: bool = False,
) -> tuple[MIBScore, MIBCircuit]:
    """Score a search, or the scores of a file, as MIB's circuit track does.

    Args:
        model: what is run.
        pairs: that the search sees.
        unseen: that the areas are over; ``pairs`` where left out, and the result says so.
        search: a key of ``SEARCHES``, or a search with options; unused where scores are given. It measures
            what the clean run loses (noising), as MIB's searches do.
        level: a key of ``LEVELS``.
        scores: of a file.
        metric: a key of ``METRICS``; MIB's is ``logit-diff``.
        random_orders: how many random orders are run beside it; fewer than 39 tell nothing.
        seed: of the random orders and of intervals.
        progress: show a progress bar.

    Returns:
        The score, and all scores as what ``MIBCircuit.save`` writes.

    Raises:
        ConfigError: an unknown level or search, one that does not take edges, or that scores their parts by
            position, or no random order.
        DataError: the model behaves the same with everything replaced, or scores without any value.
    """
    if level not in LEVELS:
        raise ConfigError(f"level {level!r} asked; there are: {', '.join(LEVELS)}.")
    if random_orders < 1:
        raise ConfigError(f"random_orders={random_orders} asked; at least 1 (39 or more tell anything).")
    if scores is None:
        refuse_parts(search)
    model, universe, forwards = as_model(model), list(LEVELS[level]), None
    if scores is None:
        asked: Any = {
            "metric": metric,
            "directions": "noising",
            "positions": "all",
            "seed": seed,
            "progress": progress,
        }
        found = effects(model, pairs, universe, search=search, **asked)
        name = found.search
        forwards = spent(found.cost, len(pairs))
        orders = {one: found.top(len(found.mediators), ranking=one) for one, _, _ in AREAS.values()}
        scores, notes = MIBCircuit.of_effects(found, model), found.warnings
    else:
        name, notes = "the file", ()
        orders = {"signed": scores.ranked, "absolute": _absolute(scores)}
        if isinstance(scores.ranked[0], str) == (level == "edges"):
            raise DataError(f"the file scores no {level}; ask for the other level ({', '.join(LEVELS)}).")
    held = pairs if unseen is None else unseen
    given: Any = {"universe": universe, "compat": "mib", "metric": metric, "seed": seed}
    signed = curve(model, held, orders["signed"], **given, control=random_orders)
    score = MIBScore(
        signed=signed,
        absolute=curve(model, held, orders["absolute"], **given),
        search=name,
        level=level,
        forwards=forwards,
        unseen=unseen is not None,
        about=About(model.described, held.described),
        seed=seed,
        warnings=notes if unseen is not None else (*notes, "scored on the pairs that were searched"),
    )
    return score, scores


def refuse_parts(search: str | Search) -> None:
    """Refuse a search that scores parts of edges by position, of which no circuit can be made.

    Args:
        search: a key of ``SEARCHES``, or a search.

    Raises:
        ConfigError: it does.
    """
    found = SEARCHES.get(search) if isinstance(search, str) else search
    if isinstance(found, PositionAttribution):
        whole = [
            name for name, one in SEARCHES.items() if "edges" in one.over and type(one) is not type(found)
        ]
        raise ConfigError(
            f"search {found.name!r} scores edges by position, and MIB's circuits are of whole edges. Use one "
            f"of: {', '.join(whole)}."
        )


def _absolute(scores: MIBCircuit) -> list[Any]:
    """The largest scores first, of either sign."""
    sizes: dict[str, float] = {str(one): abs(value) for one, value in scores.edge_scores.items()}
    sizes |= {str(one): abs(value) for one, value in scores.node_scores.items()}
    return sorted(scores.ranked, key=lambda one: -sizes[str(one)])
