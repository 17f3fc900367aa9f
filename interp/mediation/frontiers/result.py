"""What a frontier found: for each type what sets of its units do, against what they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from interp.errors import counted
from interp.mediation.circuits.runs import no_total, share_kept
from interp.mediation.frontiers.chance import LEVEL, chosen_of, folded, luck_of, shown_of
from interp.mediation.frontiers.drawing import figure_of
from interp.mediation.frontiers.goals import ENOUGH, GOALS, WITHIN, Goal
from interp.mediation.frontiers.types import FRONTIER_TYPES
from interp.results import Cell, Figure, Finding, Number, Result, Table
from probes.statistics import Estimate, bootstrap, holm

__all__ = ["Frontier", "Line"]

WORDS = {
    "scalars": "fewest real numbers a token",
    "units": "fewest units",
    "bits": "shortest description",
    "forwards": "cheapest search",
    "side": "least side effect",
}
FORMATS: dict[str, str] = {
    **dict.fromkeys(("share", "random", "untrained", "low", "high", "ranking"), "z.2f"),
    **dict.fromkeys(("scalars", "bits", "forwards"), ",.0f"),
    **dict.fromkeys(("side", "random_side", "p"), ".3g"),
}

CLEARLY = 0.1
"""Of the behaviour: so much nearer to all of it than an untrained twin's set a set has to come."""


@dataclass(frozen=True, eq=False)
class Line:
    """One type of mediator: sets of the units with the largest effects.

    Attributes:
        type: a key of ``FRONTIER_TYPES``.
        total: units that there are.
        sizes: units of each set.
        scalars: real numbers a token that each set moves.
        bits: description length of each set, and of what it moves.
        forwards: forward passes of every pair that the search took.
        search: how the units were ranked.
        first: names of the first units.
        ranking: share that each set reaches on the ranking pairs, where sizes are chosen.
        values: the metric of each set on unseen pairs.
        chance: the same of random sets, a mean over draws.
        lucky: of each random set of the shown size, the mean metric on unseen pairs; of a prediction, what is
            foretold as a share where effects are dealt to units by chance.
        every: whether these are all sets of that size that there are.
        untrained: the share that an untrained twin's sets reach; None without a twin.
        side: on the pairs of other tasks, divergence of the next word from the untouched run (nats).
        chance_side: the same of random sets.
        foretold: the sum of single effects of each set, as a share.
        shuffled: the same where effects are dealt to units by chance.
        agreement: rank correlation of single effects on ranking pairs and on unseen ones.
    """

    type: str
    total: int
    sizes: tuple[int, ...]
    scalars: tuple[int, ...]
    bits: tuple[float, ...]
    forwards: float
    search: str
    first: tuple[str, ...]
    ranking: Float[np.ndarray, " size"]
    values: Float[np.ndarray, "size pair"]
    chance: Float[np.ndarray, "size pair"]
    lucky: Float[np.ndarray, " draw"]
    every: bool = False
    untrained: Float[np.ndarray, " size"] | None = None
    side: Float[np.ndarray, "size control"] | None = None
    chance_side: Float[np.ndarray, "size control"] | None = None
    foretold: Float[np.ndarray, " size"] | None = None
    shuffled: Float[np.ndarray, " size"] | None = None
    agreement: float | None = None

    @property
    def chosen(self) -> int | None:
        """The place of the first size that reaches 80% on the ranking pairs; None where none does."""
        return chosen_of(self.ranking)

    @property
    def shown(self) -> int:
        """The chosen size; else the first that reaches nearly (90% of) the best on the ranking pairs."""
        return shown_of(self.ranking)

    def cost(self, name: str) -> float:
        """What the shown set takes: ``scalars``, ``units``, ``bits``, ``forwards`` or ``side``."""
        at = self.shown
        if name == "side":
            return float("inf") if self.side is None else float(self.side[at].mean())
        table = {"scalars": self.scalars[at], "units": self.sizes[at], "bits": self.bits[at]}
        return float({**table, "forwards": self.forwards}[name])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Frontier(Result):
    """Types of mediators side by side for one goal.

    Attributes:
        goal: a key of ``GOALS``.
        lines: of each type.
        ends: the metric of each unseen pair with nothing replaced, and with everything.
        groups: of the unseen pairs.
        metric: its name.
        budget: forward passes of every pair that each search might take.
        whole_side: of an edit, the divergence of the control pairs when everything is exchanged (nats).
        left_out: type -> why it is not there.
        twin: whether an untrained twin stands beside.
    """

    schema: ClassVar[str] = "interp.frontier/1"
    goal: str
    lines: tuple[Line, ...]
    ends: Float[np.ndarray, "end pair"]
    groups: tuple[str, ...]
    metric: str
    budget: float
    whole_side: Float[np.ndarray, " control"] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    twin: bool = True

    # Numbers ----------------------------------------------------------------------------------------------

    @property
    def _goal(self) -> Goal:
        return GOALS[self.goal]

    @cached_property
    def no_share(self) -> str:
        """Why there are no shares: the total effect is not told from zero. "" where there are."""
        start, end = self.ends
        clean, corrupt = (end, start) if self._goal.direction == "denoising" else (start, end)
        return no_total(self.metric, clean, corrupt, self.groups, self.seed)

    def share(self, line: Line, at: int) -> float:
        """What a set reaches on unseen pairs."""
        return self._score(line, at)(*self._means(line.values[at]))

    def random(self, line: Line, at: int) -> float:
        """What random units of the same number reach, or effects dealt by chance foretell."""
        if self._goal.foretold and line.shuffled is not None:
            return self._score(line, at, line.shuffled)(*self._means(line.values[at]))
        return self._score(line, at)(*self._means(line.chance[at]))

    def _means(self, values: Float[np.ndarray, " pair"]) -> tuple[float, float, float]:
        return float(values.mean()), float(self.ends[0].mean()), float(self.ends[1].mean())

    @staticmethod
    def _part(value: float, start: float, end: float) -> float:
        return (value - start) / (end - start) if abs(end - start) > 1e-12 else 0.0

    def _score(
        self, line: Line, at: int, foretold: Float[np.ndarray, " size"] | None = None
    ) -> Callable[[float, float, float], float]:
        """From the mean of a set and of both ends to the share."""
        said = line.foretold if foretold is None else foretold

        def score(value: float, start: float, end: float) -> float:
            part = self._part(value, start, end)
            return part if said is None else 1 - abs(float(said[at]) - part)

        return score

    @cached_property
    def _estimates(self) -> Mapping[tuple[str, int], tuple[Estimate, Estimate]]:
        """Type and place -> the share, and how far it is above chance, with intervals over groups."""
        found: dict[tuple[str, int], tuple[Estimate, Estimate]] = {}
        for line in self.lines:
            for at in range(len(line.sizes)):
                score = self._score(line, at)
                by_chance = score if line.shuffled is None else self._score(line, at, line.shuffled)
                lucky = line.chance[at] if line.shuffled is None else line.values[at]
                table = np.stack([line.values[at], lucky, *self.ends], axis=1)

                def reached(rows: np.ndarray, score: Any = score) -> float:
                    value, _, *ends = rows.mean(axis=0)
                    return score(value, *ends)

                def above(rows: np.ndarray, score: Any = score, other: Any = by_chance) -> float:
                    value, chance, *ends = rows.mean(axis=0)
                    return float(folded(score(value, *ends)) - folded(other(chance, *ends)))

                given: Any = {"groups": self.groups, "seed": self.seed, "n_resamples": 500}
                found[line.type, at] = (
                    bootstrap(table, statistic=reached, **given),
                    bootstrap(table, statistic=above, **given),
                )
        return found

    def luck(self, line: Line) -> float:
        """How often random units do as well as the shown set: its p-value, of this type alone."""
        value, start, end = self._means(line.values[line.shown])
        if line.shuffled is not None:
            parts = 1 - abs(line.lucky - self._part(value, start, end))
        else:
            parts = np.array([self._part(float(one), start, end) for one in line.lucky])
        return luck_of(self._near(line), np.asarray(folded(parts)), line.every)

    @cached_property
    def p_values(self) -> Mapping[str, float]:
        """The same of every type, corrected (Holm 1979) for how many could be told at all (Tarone 1990)."""
        able = [line for line in self.lines if not self._too_few(line)]
        found = holm([self.luck(line) for line in able]) if able else []
        told = dict(zip([line.type for line in able], map(float, found), strict=True))
        return {line.type: told.get(line.type, 1.0) for line in self.lines}

    def _near(self, line: Line) -> float:
        return float(folded(self.share(line, line.shown)))

    def beats(self, line: Line) -> bool:
        """Whether the shown set is told from random units, and ten points nearer to 100% than the twin's.

        Told: the interval over pairs lies above their mean, and few of them do as well, the number of types
        being reckoned with. What overshoots by as much is as far off. A twin without a share is not beaten.
        An untrained twin is nearly linear, so that its single effects foretell well: it is no bar for that.
        """
        at = line.shown
        if self.no_share or self._estimates[line.type, at][1].interval.low <= 0:
            return False
        if self.p_values[line.type] > LEVEL:
            return False
        if line.untrained is None or self._goal.foretold:
            return True
        return bool(folded(float(line.untrained[at])) <= self._near(line) - CLEARLY)

    def reaches(self, line: Line) -> bool:
        """Whether the shown set reaches 80%, and at most 120%, on ranking pairs and on unseen ones."""
        return not self.no_share and line.chosen is not None and self._near(line) >= ENOUGH

    @property
    def winners(self) -> Mapping[str, Line]:
        """For each axis the type that reaches 80% at the least, of those better than chance."""
        fit = [line for line in self.lines if self.reaches(line) and self.beats(line)]
        if not fit:
            return {}

        def least(axis: str) -> Line:
            return min(fit, key=lambda line: (line.cost(axis), line.cost("bits")))

        return {axis: least(axis) for axis in self._goal.cheap}

    # What it says -----------------------------------------------------------------------------------------

    def question(self) -> str:
        """The survey's question, for this goal, data and model."""
        return f"Which mediators should one use to {self.goal} this? ({self.about.words})"

    def verdict(self) -> str:
        """One paragraph: which type does it with the least of each, and which are no better than chance."""
        if self.no_share:
            return f"Not shown: {self.no_share}."
        if not self.winners:
            than = " and from an untrained model" if self.twin else ""
            return (
                f"Not shown: of {counted(len(self.lines), 'type')} none comes {WITHIN} and is told "
                f"from random units of the same number{than}. {self._rest()}"
            ).strip()
        by: dict[str, list[str]] = {}
        for axis, line in self.winners.items():
            by.setdefault(line.type, []).append(WORDS[axis])
        lines = {line.type: line for line in self.lines}
        said = [f"{name} for the {_listed(axes)} ({self._told(lines[name])})" for name, axes in by.items()]
        return f"To {self.goal} {self.about.words}: {'; '.join(said)}. {self._rest()}".strip()

    def _told(self, line: Line) -> str:
        """What the shown set of a type is, takes and does."""
        at = line.shown
        found, lucky = self._estimates[line.type, at][0], self.random(line, at)
        row = FRONTIER_TYPES[line.type]
        side = "" if line.side is None else f", side effect {line.cost('side'):.2g} nats"
        twin = "" if line.untrained is None else f", {line.untrained[at]:z.0%} in an untrained model"
        return (
            f"{counted(line.sizes[at], row.one)}, {counted(line.scalars[at], 'number')}, "
            f"{counted(round(line.bits[at]), 'bit')}{side}: {found.value:z.0%} {self._goal.short} "
            f"[{found.interval.low:z.2f}, {found.interval.high:z.2f}], {lucky:z.0%} by chance "
            f"(p {self.luck(line):.2g}){twin}"
        )

    def _rest(self) -> str:
        """The types that no claim is made for."""
        few = [line for line in self.lines if self._best_of_few(line)]
        chance = [line.type for line in self.lines if line not in few and not self.beats(line)]
        told = [line for line in self.lines if self.beats(line) and not self.reaches(line)]
        said = []
        if chance:
            than = " or from an untrained model" if self.twin and not self._goal.foretold else ""
            said.append(f"Not told from chance{than}: {_listed(chance)}.")
        if few:
            sets = [f"{o.type} ({counted(len(o.lucky), 'set')})" for o in few]
            said.append(
                f"Best of all sets of that size, which are too few to be told from chance: {_listed(sets)}."
            )
        may = [line for line in told if self._estimates[line.type, line.shown][0].interval.high >= ENOUGH]
        parts = (("May reach", may), ("Short of", [line for line in told if line not in may]))
        for words, lines in parts:
            best = [f"{o.type} ({self.share(o, o.shown):z.0%} by {o.sizes[o.shown]:,})" for o in lines]
            said += [f"{words} {ENOUGH:.0%} on unseen pairs: {_listed(best)}."] if best else []
        return " ".join(said)

    def _best_of_few(self, line: Line) -> bool:
        """Whether no other set of the shown size does as well, and that is not enough."""
        alone = line.every and self.luck(line) * len(line.lucky) < 1.5
        return alone and self.p_values[line.type] > LEVEL

    def _too_few(self, line: Line) -> bool:
        """Whether even the best of all sets of the shown size would be told from none."""
        return line.every and len(line.lucky) * LEVEL < 1

    def lead(self) -> tuple[str, ...]:
        """How it was measured."""
        searched = "; ".join(f"{line.type}: {line.search}" for line in self.lines)
        return (
            f"Units of each type were ranked by their single effects on other pairs, with at most "
            f"{self.budget:,.0f} forward passes of every pair ({searched}). Sets of the largest were then "
            f"measured on {counted(len(self.groups), 'pair')} of groups that no ranking has seen. Share: "
            f"{self._goal.share}. The size shown is the first that comes {WITHIN} on the ranking pairs: "
            "what goes beyond by as much is as far off. Where no size does, the first that comes nearly as "
            "near as the best. What each size reached there stands in the table of every set.",
            "Real numbers are counted a token. Bits: log2(n + 1) for how many units, log2 C(n, k) for which, "
            "16 for each number moved, log2(N)/2 for each number that was fitted to N pairs (Rissanen 1978).",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Of each type the share of the shown set, and what it takes."""
        if self.no_share:
            return ()
        found: list[Number] = []
        for line in self.lines:
            share = self._estimates[line.type, line.shown][0]
            ends = share.interval
            words = f"{counted(line.sizes[line.shown], FRONTIER_TYPES[line.type].one)}, random units "
            words += f"{self.random(line, line.shown):z.2f}"
            found.append(Number(f"{line.type}-share", share.value, ends.low, ends.high, meaning=words))
            for axis in self._goal.cheap:
                unit = {"side": "nats", "bits": "bits", "forwards": "passes"}.get(axis, "")
                found.append(Number(f"{line.type}-{axis}", line.cost(axis), unit=unit, hidden=True))
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """One row for each type, of its shown set; then every set of every type; then the first units."""
        types = [self._row(line, line.shown) | self._test(line) for line in self.lines]
        every = [
            self._row(line, at) | {"ranking": float(line.ranking[at])}
            for line in self.lines
            for at in range(len(line.sizes))
        ]
        note = (
            f"Intervals: 95%, over {counted(len(set(self.groups)), 'group')} of unseen pairs. p: how often "
        )
        note += "random units of that number do as well."
        if self.left_out:
            note += " Left out: " + "; ".join(f"{name} ({why})" for name, why in self.left_out.items())
        main = Table.of("types", f"The smallest set that comes {WITHIN}, or nearly the best", types, note)
        sizes = Table.of("sizes", "Every set", every)
        first: list[Mapping[str, Cell]] = [{"type": o.type, "first": ", ".join(o.first)} for o in self.lines]
        names = Table.of("first", "The units with the largest effects", first)
        return (
            _shaped(main, narrow=("search", "forwards", "untrained", "of")),
            _shaped(sizes, folded=True),
            _shaped(names, folded=True),
        )

    def _row(self, line: Line, at: int) -> dict[str, Cell]:
        usable = not self.no_share
        found = self._estimates[line.type, at][0] if usable else None
        row: dict[str, Cell] = {
            "type": line.type,
            "units": line.sizes[at],
            "of": line.total,
            "scalars": line.scalars[at],
            "bits": line.bits[at],
            "forwards": line.forwards,
            "share": None if found is None else found.value,
            "low": None if found is None else found.interval.low,
            "high": None if found is None else found.interval.high,
            "random": self.random(line, at) if usable else None,
            "untrained": None if line.untrained is None else float(line.untrained[at]),
        }
        if line.side is not None and line.chance_side is not None:
            row |= {"side": float(line.side[at].mean()), "random_side": float(line.chance_side[at].mean())}
        if self._goal.foretold:
            row["rank_correlation"] = line.agreement
        return row

    def _test(self, line: Line) -> dict[str, Cell]:
        """How often random units do as well as the shown set, and how it was found."""
        return {"p": None if self.no_share else self.luck(line), "search": line.search}

    def figures(self) -> tuple[Figure, ...]:
        """What sets reach against what they move (or, of an edit, disturb); nothing without shares."""
        if self.no_share:
            return ()
        rows = [{**self._row(line, at), "place": at} for line in self.lines for at in range(len(line.sizes))]
        return (figure_of(rows, self._goal),)

    def findings(self) -> tuple[Finding, ...]:
        """Of each type what the shown set reaches, beside random units; not where it is foretold."""
        if self.no_share or self._goal.foretold:
            return ()
        start, end = self.ends
        return tuple(
            Finding(
                f"{self.goal} by {line.type}",
                line.values[line.shown],
                self.groups,
                control=self.random(line, line.shown),
                unit="share",
                statistic=share_kept(line.values[line.shown], start, end),
                direction=1,
                about=f"{counted(line.sizes[line.shown], FRONTIER_TYPES[line.type].one)}",
            )
            for line in self.lines
        )

    def cautions(self) -> tuple[str, ...]:
        """What a frontier does not show."""
        said = [
            "What a set does is measured while all else responds; other sets may do as much.",
            "The stream itself is left out: exchanged at every token of one block it carries everything.",
        ]
        if self.goal == "predict":
            said.append("A set of one unit is foretold wherever its own effect is the same on other pairs.")
        if self.goal == "edit":
            said.append("Side effects are on the tasks given as controls, not on all there is.")
        if not self.twin:
            said.append("The model is untrained itself, so that no twin stands beside it.")
        return tuple(said)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _shaped(table: Table, **changes: Any) -> Table:
    return replace(table, formats=FORMATS, **changes)
