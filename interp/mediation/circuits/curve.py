"""Faithfulness by the size of a circuit, and the areas that MIB ranks methods by."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError, counted
from interp.mediation.circuits.runs import (
    NODES,
    Circuit,
    ends_of,
    no_total,
    of_dictionaries,
    ranked_of,
    refuse_no_effect,
    run_all,
    share_kept,
    what_are,
)
from interp.mediation.edges.graph import Edge, Graph, on_a_path
from interp.mediation.mediators import Members
from interp.mediation.parsing import members_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About, Cell, Figure, Finding, Number, Result, Table
from interp.results.shapes import FORMS
from probes.statistics import Estimate, bootstrap

__all__ = ["COMPAT", "FRACTIONS", "Area", "Curve", "Measure", "away", "curve", "under"]

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of all nodes or edges: the sizes at which MIB measures (Mueller et al. 2025, 2504.13151)."""
COMPAT: dict[str, str] = {
    "": "sizes 0, 1, 2, 4, ... and all; areas over the fraction of nodes or edges, from 0 to 1",
    "mib": "the largest 0.1% to 100%, rounded down; areas over these fractions, from 0.001 to 1",
}
ENOUGH = 0.8
"""The share of the behaviour that a small circuit keeps."""
FORMATS = {"faithfulness": "z.3f", "random_order": "z.3f", "value": "z.3f"}
AT_ONCE = 1_000_000
"""Members of random circuits that are held at once."""
SMALL = 0.05
"""The share of all nodes or edges that a small circuit may have."""


Area = Callable[[Float[np.ndarray, " size"]], float]
Measure = Callable[[Float[np.ndarray, " size"]], Area]


def under(axis: Float[np.ndarray, " size"]) -> Area:
    """CPR: the area under faithfulness over an axis, by trapezoids."""
    return lambda shares: float(np.trapezoid(shares, axis))


def away(axis: Float[np.ndarray, " size"]) -> Area:
    """CMD: the area between faithfulness and 1, likewise."""
    return lambda shares: float(np.trapezoid(np.abs(1 - shares), axis))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Curve(Result):
    """Faithfulness by circuit size, nodes or edges added in the order of a ranking.

    Attributes:
        sizes: numbers of nodes or edges, ascending.
        faithfulness: one per size; NaN where the total effect is not told from zero, see ``no_share``.
        total: number of nodes or edges in all.
        order: the ranking.
        fractions: the axis of the areas, one per size; sizes over ``total`` where left out.
        kept: how many of each size lie on a path from the embedding to the logits (edges only); the others
            change nothing.
        metric: its name.
        runs: the metric of each pair at each size; None where it was not kept.
        ends: the metric of each pair with everything replaced, and with nothing.
        groups: of the pairs.
        control: the same in a random order, or the mean of several; None where it was not run.
        draws: faithfulness in each of several random orders; None where one at most was run.
    """

    schema: ClassVar[str] = "interp.curve/2"
    sizes: tuple[int, ...]
    faithfulness: Float[np.ndarray, " size"]
    total: int
    order: Members
    fractions: tuple[float, ...] = ()
    kept: tuple[int, ...] = ()
    metric: str = "logit-diff"
    runs: Float[np.ndarray, "size pair"] | None = None
    ends: Float[np.ndarray, "end pair"] | None = None
    groups: tuple[str, ...] = ()
    control: Curve | None = None
    draws: Float[np.ndarray, "order size"] | None = None

    @cached_property
    def no_share(self) -> str:
        """Why there are no shares: the total effect is not told from zero. "" where there are."""
        if self.ends is None:
            return ""
        none, whole = self.ends
        return no_total(self.metric, whole, none, self.groups, self.seed)

    @property
    def axis(self) -> Float[np.ndarray, " size"]:
        """The fraction of all nodes or edges that each size stands for."""
        return np.array(self.fractions) if self.fractions else np.array(self.sizes) / self.total

    @property
    def members(self) -> str:
        """What is added: ``nodes`` or ``edges``."""
        return f"{what_are(self.order)}s"

    @property
    def axis_words(self) -> str:
        """What the areas are over, in words."""
        parts = f"share of the {self.total:,} {self.members} that is in the circuit"
        start = f"{self.axis[0]:g} to {self.axis[-1]:g}, linear"
        return f"{parts}, in the order of the ranking ({start})"

    @property
    def cpr(self) -> float:
        """The area under faithfulness over the fraction kept (MIB's CPR; higher is better).

        NaN where faithfulness is: the total effect is not told from zero.
        """
        return under(self.axis)(self.faithfulness)

    @property
    def cmd(self) -> float:
        """The area between faithfulness and 1 (MIB's CMD; 0 is best)."""
        return away(self.axis)(self.faithfulness)

    def smallest(self, share: float) -> int | None:
        """The smallest measured size that keeps a share of the behaviour; None where none does."""
        enough = np.flatnonzero(self.faithfulness >= share)
        return self.sizes[int(enough[0])] if len(enough) else None

    def largest_within(self, fraction: float) -> int | None:
        """The place of the largest measured size of at most a fraction of all; None where it is size 0."""
        fitting = [at for at, size in enumerate(self.sizes) if 0 < size <= fraction * self.total]
        return max(fitting, key=lambda at: self.sizes[at], default=None)

    @cached_property
    def _estimates(self) -> tuple[Estimate | None, ...]:
        """Faithfulness at each size with its interval; None at both ends, and where there is none."""
        return tuple(
            self.estimate(lambda shares, at=at: float(shares[at])) if 0 < size < self.total else None
            for at, size in enumerate(self.sizes)
        )

    @cached_property
    def _area(self) -> Estimate | None:
        return self.estimate(under(self.axis))

    def estimate(self, of: Callable[[np.ndarray], float]) -> Estimate | None:
        """A number made of the shares of all sizes, with its interval over groups of pairs."""
        if self.runs is None or self.ends is None or self.no_share:
            return None

        def statistic(table: np.ndarray) -> float:
            *parts, none, whole = table.mean(axis=0)
            return of((np.array(parts) - none) / (whole - none)) if abs(whole - none) > 1e-12 else 0.0

        table = np.vstack([self.runs, self.ends]).T
        return bootstrap(table, groups=self.groups, statistic=statistic, seed=self.seed)

    # What it says -----------------------------------------------------------------------------------------

    def question(self) -> str:
        """The question that was asked."""
        return f"How many {self.members} keep the behaviour? ({self.about.words})"

    def verdict(self) -> str:
        """How many are enough, and the areas."""
        if self.no_share:
            return f"No faithfulness is given: {self.no_share}."
        enough = self.smallest(ENOUGH)
        few = (
            f"The first {enough:,} of {self.total:,} {self.members} keep"
            if enough
            else "No part of them keeps"
        )
        random = "" if self.control is None else f" ({self.control.cpr:.3f} in a random order)"
        return f"{few} {ENOUGH:.0%} of the behaviour; CPR {self.cpr:.3f}{random}, CMD {self.cmd:.3f}."

    def lead(self) -> tuple[str, ...]:
        """How it was measured."""
        return (
            f"{self.members.capitalize()} were added to the circuit in the order of a ranking; everything "
            f"outside of it comes from the corrupt prompt. Faithfulness is the share of the {self.metric} "
            f"kept, over {counted(len(self.groups), 'pair')} of prompts. Areas are over the "
            f"{self.axis_words}.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Both areas."""
        beside = ["", ""]
        if self.control is not None and not self.no_share:
            beside = [f"; {one:.3f} in a random order" for one in (self.control.cpr, self.control.cmd)]
        cpr, cmd = (None, None) if self.no_share else (self.cpr, self.cmd)
        return (
            Number(
                "cpr",
                cpr,
                *ends_of(self._area),
                "",
                f"higher is better{beside[0]}",
                "Area under faithfulness (CPR)",
            ),
            Number("cmd", cmd, meaning=f"0 is best{beside[1]}", label="Area to full faithfulness (CMD)"),
        )

    def tables(self) -> tuple[Table, ...]:
        """One row per size: fraction (see ``axis_words``), size, faithfulness; then the areas.

        Of edges ``on_a_path`` says how many lie on a path from the embedding to the logits.
        """
        columns: dict[str, Sequence[Cell]] = {"fraction": self.axis.tolist(), "size": self.sizes}
        columns |= {"on_a_path": self.kept} if self.kept else {}
        columns["faithfulness"] = self.faithfulness.tolist()
        columns["low"], columns["high"] = zip(*map(ends_of, self._estimates), strict=True)
        if self.control is not None:
            columns["random_order"] = self.control.faithfulness.tolist()
        rows = list(zip(*columns.values(), strict=True))
        note = (
            f"Intervals: 95%, over {counted(len(set(self.groups)), 'group')} of pairs." if self.groups else ""
        )
        size = Table(
            "faithfulness", "Faithfulness by size", tuple(columns), rows, note, shown=15, formats=FORMATS
        )
        return (size,) if self.no_share else (size, self._areas())

    def _areas(self) -> Table:
        """The areas and a small circuit, beside those in a random order."""
        lucky = self.control
        rows: list[tuple[Cell, ...]] = [
            ("area under faithfulness (CPR)", self.cpr, *ends_of(self._area), lucky and lucky.cpr),
            ("area to full faithfulness (CMD)", self.cmd, None, None, lucky and lucky.cmd),
        ]
        at = self.largest_within(SMALL)
        if at is not None:
            size, ends = self.sizes[at], ends_of(self._estimates[at])
            part = f"{size:,} of {self.total:,} {self.members} ({size / self.total:.1%})"
            beside = None if lucky is None else float(lucky.faithfulness[at])
            rows.append((f"faithfulness of the first {part}", float(self.faithfulness[at]), *ends, beside))
        note = f"Areas are over the {self.axis_words}."
        columns = ("what", "value", "low", "high", "random_order")
        return Table("areas", "Areas", columns, rows, note, formats=FORMATS)

    def figures(self) -> tuple[Figure, ...]:
        """Faithfulness by size; nothing where there are no shares."""
        if self.no_share:
            return ()
        points = zip(self.axis, self.faithfulness, self._estimates, strict=True)
        rows = [
            (x, "this ranking", value, *((value, value) if found is None else ends_of(found)))
            for x, value, found in points
        ]
        if self.control is not None:
            lucky = zip(self.axis, self.control.faithfulness, strict=True)
            rows += [(x, "random order", value, value, value) for x, value in lucky]
        data = dict(zip(FORMS["curve"], zip(*rows, strict=True), strict=True))
        areas = f"CPR {self.cpr:.3f}, CMD {self.cmd:.3f}."
        caption = f"{areas} Intervals: 95%, over groups of pairs. Horizontal: {self.axis_words}."
        return (
            Figure(
                "faithfulness",
                "curve",
                data,
                "Faithfulness by size of the circuit",
                caption,
                x=f"share of the {self.total:,} {self.members}",
                y="share of the behaviour kept",
                reference=1.0,
                reference_name="the whole model",
            ),
        )

    def findings(self) -> tuple[Finding, ...]:
        """The area under faithfulness, then the faithfulness at each size between none and all.

        The control is a random order; 0 where there is none. Nothing is found without the numbers of every
        pair, or with a total effect that is not told from zero.
        """
        if self.runs is None or self.ends is None or self.no_share:
            return ()
        none, whole = self.ends
        shares = [share_kept(run, none, whole) for run in self.runs]
        lucky = self.control
        area = Finding(
            "area under faithfulness",
            self.runs.mean(axis=0),
            self.groups,
            control=0.0 if lucky is None else lucky.cpr,
            unit="share",
            statistic=lambda weights: under(self.axis)(np.array([share(weights) for share in shares])),
            about=f"over the {self.axis_words}",
        )
        sizes = (
            Finding(
                f"faithfulness of the first {size} {self.members}",
                self.runs[at],
                self.groups,
                control=0.0 if lucky is None else float(lucky.faithfulness[at]),
                unit="share",
                statistic=shares[at],
            )
            for at, size in enumerate(self.sizes)
            if 0 < size < self.total and size not in self.sizes[:at]
        )
        return (area, *sizes)

    def cautions(self) -> tuple[str, ...]:
        """What the curve does not show."""
        return ("On the pairs that the ranking was found on, a curve looks better than on others.",)


def curve(
    model: ModelLike,
    pairs: PairSet,
    order: Sequence[Any],
    *,
    universe: Circuit = NODES,
    sizes: Sequence[int] | None = None,
    chosen: Callable[[int], Sequence[Any]] | None = None,
    compat: str = "",
    metric: str = "logit-diff",
    control: bool | int = False,
    seed: int = 0,
) -> Curve:
    """Faithfulness by size, nodes or edges added from the front of a ranking, or chosen at each size.

    Args:
        model: what is run.
        pairs: better others than those the ranking was found on.
        order: the ranking, such as ``effects.top(len(effects.mediators))`` or names; what it leaves out comes
            last. MIB ranks by signed effects for CPR (``ranking="signed"``) and by their size for CMD.
        universe: what is inside or outside: nodes, or edges (``"edge.*"``).
        sizes: numbers of nodes or edges; as ``compat`` says where left out.
        chosen: from a size to a circuit of at most that size, such as ``choose`` gives; the front of the
            ranking where left out. All is all, and none is none.
        compat: a key of ``COMPAT``: which sizes, and over which axis the areas are.
        metric: a key of ``METRICS``.
        control: run the same in a random order too, or in so many.
        seed: of the rows that are checked, the random order and the intervals.

    Raises:
        ConfigError: a size that there is not, an unknown compat, sizes besides a compat, an unknown metric,
            or something ranked that is not in the universe.
        DataError: the model behaves the same with everything replaced.
        SiteError: a node or edge that the model does not have.
    """
    model = as_model(model)
    every = members_of(model, pairs, universe, positions="all")
    ranked = ranked_of(model, pairs, order, every)
    steps, fractions = _steps(len(every), sizes, compat, what_are(every))
    measured = sorted({0, len(every), *steps})
    fronts = {size: list(ranked[:size]) for size in measured}
    if chosen is not None:
        fronts |= {size: list(chosen(size)) for size in measured if 0 < size < len(every)}
    runs = run_all(model, pairs, every, [set(fronts[size]) for size in measured], metric, seed)
    none, whole = runs[0].mean(), runs[-1].mean()
    refuse_no_effect(whole, none, what_are(every))
    by_size = dict(zip(measured, runs, strict=True))
    found = np.array([(by_size[size].mean() - none) / (whole - none) for size in steps])
    if no_total(metric, runs[-1], runs[0], pairs.groups, seed):
        found = np.full(len(steps), np.nan)
    made = Curve(
        sizes=tuple(steps),
        faithfulness=found,
        total=len(every),
        order=ranked,
        fractions=fractions,
        kept=_kept(model, [fronts[size] for size in steps]),
        metric=metric,
        runs=np.stack([by_size[size] for size in steps]),
        ends=np.stack([runs[0], runs[-1]]),
        groups=tuple(pairs.groups),
        about=About(model.described, pairs.described),
        seed=seed,
        warnings=of_dictionaries(model, every),
    )
    return _beside_random(made, model, pairs, every, int(control)) if control else made


def _beside_random(made: Curve, model: Model, pairs: PairSet, every: Members, count: int) -> Curve:
    """A curve beside the mean of some random orders."""
    assert made.runs is not None and made.ends is not None
    rng, shuffled, orders = random.Random(f"order:{made.seed}"), list(made.order), []
    for _ in range(count):
        rng.shuffle(shuffled)
        orders.append(tuple(shuffled))
    inner = sorted({size for size in made.sizes if 0 < size < made.total})
    at_once = max(1, AT_ONCE // max(1, len(inner) * made.total))
    table = np.repeat(made.runs[None], count, axis=0)
    for first in range(0, count, at_once) if inner else ():
        some = orders[first : first + at_once]
        sets = [set(order[:size]) for order in some for size in inner]
        rows = np.stack(run_all(model, pairs, every, sets, made.metric, made.seed))
        rows = rows.reshape(len(some), len(inner), -1)
        for at, size in enumerate(made.sizes):
            if size in inner:
                table[first : first + len(some), at] = rows[:, inner.index(size)]
    none, whole = made.ends.mean(axis=1)
    shares = (
        np.full(table.shape[:2], np.nan) if made.no_share else (table.mean(axis=2) - none) / (whole - none)
    )
    lucky = replace(
        made,
        order=orders[0],
        kept=_kept(model, [orders[0][:size] for size in made.sizes]),
        faithfulness=shares.mean(axis=0),
        runs=table.mean(axis=0),
    )
    return replace(made, control=lucky, draws=shares if count > 1 else None)


def _steps(
    n: int, sizes: Sequence[int] | None, compat: str, what: str
) -> tuple[list[int], tuple[float, ...]]:
    """The sizes, and the axis of the areas where it is not size over number."""
    if compat not in COMPAT:
        raise ConfigError(f"compat {compat!r} asked; there are: {', '.join(map(repr, COMPAT))}.")
    if compat and sizes is not None:
        raise ConfigError(f"compat {compat!r} has sizes of its own; leave sizes out.")
    if compat:
        return [int(fraction * n + 1e-9) for fraction in FRACTIONS], FRACTIONS
    steps = sorted({0, n, *(sizes or _doubling(n))})
    if steps[0] < 0 or steps[-1] > n:
        raise ConfigError(f"sizes from {steps[0]} to {steps[-1]} asked, but there are {n} {what}s.")
    return steps, ()


def _doubling(n: int) -> list[int]:
    return [2**at for at in range(n.bit_length()) if 2**at < n]


def _kept(model: Model, fronts: Sequence[Sequence[Any]]) -> tuple[int, ...]:
    """How many edges of each set lie on a path; nothing of nodes."""
    if not any(isinstance(one, Edge) for front in fronts for one in front[:1]):
        return ()
    graph = Graph.of(model)
    return tuple(len(on_a_path(graph, list(front))) for front in fronts)
