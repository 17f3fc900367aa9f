"""How well a circuit stands for the model: what is outside it is taken from the other prompt.

``m(C)`` is the metric of the clean prompt with every node (or edge) outside C replaced by its corrupt value,
all at once; what is inside responds to what it gets. ``m(all)`` is the clean run, ``m(none)`` has all
replaced.
Faithfulness is ``(m(C) - m(none)) / (m(all) - m(none))``, a ratio of means over pairs (Wang et al. 2022,
2211.00593; Mueller et al. 2025, 2504.13151, section 3).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError, DataError, counted
from interp.mediation.circuits.controls import UNMATCHED, Knockouts, Removals, couples_of, cuts_of, extras_of
from interp.mediation.circuits.runs import (
    NODES,
    Circuit,
    apart,
    ends_of,
    no_total,
    of_dictionaries,
    refuse_no_effect,
    run_all,
    share_kept,
    unit_of,
    what_are,
)
from interp.mediation.doubts import doubts_of
from interp.mediation.edges.graph import Edge
from interp.mediation.mediators import Members
from interp.mediation.metrics import METRICS
from interp.mediation.parsing import members_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About, Cell, Figure, Finding, Number, Result, Table
from interp.results.shapes import FORMS
from probes.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    import pandas

__all__ = ["Evaluation", "evaluate"]

RANDOM = 5
KNOCKOUTS = 5
REMOVALS = 24
LUCKY = "random circuits of this size"
GAP = "gap between the circuit and the model after the same cuts"
FORMATS = {"share": "z.3f", "difference": "z.3f"}
SHOWN = 12
"""Members that are named, and whose removal a figure shows."""
_Ends = tuple[float | None, float | None, float | None]
_Row = tuple[str, float | None, float | None, float | None, float | None, float | None, float | None]
"""What it is of; a share and a difference, each with the ends of its interval."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evaluation(Result):
    """How well a circuit stands for the whole model on some pairs.

    Attributes:
        circuit: its nodes or edges.
        universe: every node or edge that is inside or outside.
        metric: its name.
        values: ``all``, ``none``, ``circuit``, ``without`` (all but the circuit), ``random i``: ``[pair]``.
        groups: of the pairs.
        knockouts: ``circuit`` and ``random`` (a random circuit of its size): each beside the model after the
            same random cuts.
        removals: each member taken out alone, beside members put in at random.
        unmatched: name -> ``m(all)``, ``m(none)``, ``m(circuit)`` of controls in which there is nothing to
            find: keys of ``UNMATCHED``.
    """

    schema: ClassVar[str] = "interp.evaluation/2"
    circuit: Members
    universe: Members
    metric: str
    values: Mapping[str, Float[np.ndarray, " pair"]]
    groups: tuple[str, ...]
    knockouts: Mapping[str, Knockouts] = field(default_factory=dict)
    removals: Removals | None = None
    unmatched: Mapping[str, Mapping[str, Float[np.ndarray, " pair"]]] = field(default_factory=dict)

    @cached_property
    def no_share(self) -> str:
        """Why there are no shares: the total effect is not told from zero. "" where there are."""
        whole, none = self.values["all"], self.values["none"]
        return no_total(self.metric, whole, none, self.groups, self.seed)

    @property
    def faithfulness(self) -> Estimate:
        """The share of the model's behaviour that the circuit alone keeps; see :meth:`share`."""
        return self.share(self.values["circuit"])

    @property
    def completeness(self) -> Estimate:
        """The share that is left without the circuit: near 0 if nothing outside does the task."""
        return self.share(self.values["without"])

    @property
    def random(self) -> Estimate:
        """The mean faithfulness of random circuits of the same size: the control."""
        if self._lucky is None:
            raise ConfigError("no random circuits were run; call evaluate with random_circuits above 0.")
        return self.share(self._lucky)

    @property
    def sparsity(self) -> float:
        """The share of nodes or edges that are outside the circuit."""
        return 1 - len(self.circuit) / len(self.universe)

    def share(self, part: Float[np.ndarray, " pair"]) -> Estimate:
        """Where a metric is between ``m(none)`` (0) and ``m(all)`` (1), with its interval.

        Raises:
            DataError: the total effect ``m(all) - m(none)`` is not told from zero.
        """
        if self.no_share:
            raise DataError(f"{self.no_share}. The table gives differences in units of the metric.")
        table = np.stack([part, self.values["none"], self.values["all"]], axis=1)
        return bootstrap(table, groups=self.groups, statistic=_ratio, seed=self.seed)

    @property
    def _lucky(self) -> Float[np.ndarray, " pair"] | None:
        """The mean of random circuits of the same size; None where none were run."""
        found = [value for name, value in self.values.items() if name.startswith("random")]
        return np.mean(found, axis=0) if found else None

    def minimality(self) -> pandas.DataFrame:
        """One row per member: what taking it out changes, and whether the circuit needs it; see ``Removals``.

        Raises:
            ConfigError: no removals were run.
        """
        if self.removals is None:
            raise ConfigError("no removals were run; call evaluate with removals above 0.")
        return self.table("minimality")

    # What it says -----------------------------------------------------------------------------------------

    @property
    def _size(self) -> str:
        return f"{len(self.circuit):,} of {len(self.universe):,} {what_are(self.universe)}s"

    @property
    def _named(self) -> str:
        return ", ".join(map(str, self.circuit[:SHOWN])) + (", ..." if len(self.circuit) > SHOWN else "")

    def question(self) -> str:
        """The question that was asked."""
        return f"Does the circuit do the task alone? ({self.about.words})"

    def verdict(self) -> str:
        """What the circuit keeps, and what is left without it."""
        if self.no_share:
            return f"No share of the behaviour is given for a circuit of {self._size}: {self.no_share}."
        beside = "" if self._lucky is None else f", random circuits of that size {self.random.value:z.0%}"
        needed = ""
        if self.removals is not None:
            tested = len(self.removals.members)
            needed = f" Of {tested} members taken out one by one {self.removals.needed} are needed."
        return (
            f"The circuit of {self._size} keeps {_percent(self.faithfulness)} of the behaviour{beside}; "
            f"{_percent(self.completeness)} is left without it.{needed}"
        )

    def lead(self) -> tuple[str, ...]:
        """What was run."""
        return (
            "Everything outside the circuit was taken from the corrupt prompt, all at once, in "
            f"{counted(len(self.groups), 'pair')} of prompts. Shares are of the {self.metric} between that "
            "with "
            "everything replaced (0) and that of the model (1); faithfulness is that of the circuit alone.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Faithfulness, what is left without the circuit, random circuits, the gap after the same cuts."""
        rows = {row[0]: row[1:4] for row in self._rows}
        size = f"of {self._size}"
        wanted = (
            ("faithfulness", "the circuit", f"share of the behaviour that the circuit keeps, {size}"),
            ("left-without-it", "left without it", "near 0 if nothing outside does the task"),
            ("random-circuits", LUCKY, "faithfulness of random circuits of this size"),
            ("completeness-gap", GAP, "0 if the circuit takes cuts as the model does"),
        )
        found = [Number(name, *rows[row], meaning=meaning) for name, row, meaning in wanted if row in rows]
        if self.removals is not None:
            tested = f"of {len(self.removals.members):,} taken out one by one"
            found.append(Number("needed-members", self.removals.needed, meaning=tested))
        return (*found, Number("sparsity", self.sparsity, meaning="share that is outside the circuit"))

    def tables(self) -> tuple[Table, ...]:
        """One row per run and control, then one row per member taken out.

        ``share``, ``low``, ``high``: of the model's behaviour, empty where there is none to share or the
        total effect is not told from zero; ``difference``, ``difference_low``, ``difference_high``:
        ``m(...) - m(none)`` in units of the metric.
        """
        columns = ("what", "share", "low", "high", "difference", "difference_low", "difference_high")
        note = (
            f"difference: {self.metric} above that with everything replaced ({unit_of(self.metric)}). "
            f"Intervals: 95%, over {counted(len(set(self.groups)), 'group')} of pairs. Where there is "
            "nothing to find "
            f"(random weights, arbitrary labels) there is no share. Members: {self._named}."
        )
        spare = ("share", "low") if self.no_share else ("difference", "difference_low")
        found = Table(
            "circuit", "The circuit", columns, self._rows, note, 1, shown=15, formats=FORMATS, narrow=spare
        )
        return (found,) if self.removals is None else (found, self.removals.table(unit_of(self.metric)))

    @cached_property
    def _rows(self) -> list[_Row]:
        none = self.values["none"]
        runs = {"the circuit": self.values["circuit"], "left without it": self.values["without"]}
        runs |= {} if self._lucky is None else {LUCKY: self._lucky}
        whole = None if self.no_share else 1.0
        rows: list[_Row] = [("the whole model", whole, None, None, *self._apart(self.values["all"], none))]
        for name, value in runs.items():
            share = None if self.no_share else self.share(value)
            rows.append((name, share and share.value, *ends_of(share), *self._apart(value, none)))
        rows += [self._gap(name, found) for name, found in self.knockouts.items()]
        for name, control in self.unmatched.items():
            for which, words in (("all", "the whole model"), ("circuit", "the circuit")):
                difference = self._apart(control[which], control["none"])
                rows.append((f"{name}: {words}", None, None, None, *difference))
        return rows

    def _apart(self, value: np.ndarray, none: np.ndarray) -> _Ends:
        found = apart(self.metric, value, none, self.groups, self.seed)
        return found.value, *ends_of(found)

    def _gap(self, name: str, found: Knockouts) -> _Row:
        ends = np.stack([self.values["none"], self.values["all"]], axis=1)
        absolute, share = found.gap(ends, self.groups, self.seed)
        words = GAP if name == "circuit" else GAP.replace("the circuit", "a random circuit")
        value, low, high = (None, None, None) if self.no_share else (share.value, *ends_of(share))
        return words, value, low, high, absolute.value, *ends_of(absolute)

    def figures(self) -> tuple[Figure, ...]:
        """The shares (without a total effect the differences), and the members taken out."""
        first, last = (1, 4) if not self.no_share else (4, 7)
        runs = ("the circuit", "left without it", LUCKY)
        rows = [(row[0], *row[first:last]) for row in self._rows if row[0] in runs]
        unit = unit_of(self.metric)
        shares = Figure(
            "shares",
            "intervals",
            _columns(rows),
            "The circuit and its controls",
            f"Intervals: 95%, over {counted(len(set(self.groups)), 'group')} of pairs.",
            x=f"{self.metric} above none ({unit})" if self.no_share else "share of the behaviour",
            reference=0.0 if self.no_share else 1.0,
            reference_name="everything replaced" if self.no_share else "the whole model",
        )
        if self.removals is None:
            return (shares,)
        rows = [row[:4] for row in self.removals.table().rows[:SHOWN]]
        removed = Figure(
            "minimality",
            "intervals",
            _columns(rows),
            "Members taken out one by one",
            "What the circuit loses without each member; intervals: 95%, over groups of pairs.",
            x=f"change of {self.metric} ({unit})",
            reference=0.0,
            reference_name="no change",
        )
        return (shares, removed)

    def findings(self) -> tuple[Finding, ...]:
        """Faithfulness and what is lost without the circuit, then both ends in units of the metric.

        Without a total effect that is told from zero the shares are left out. The circuit is held to the
        random circuits of its size that were run beside it, and to 0 where there were none.
        """
        none, whole, inside = (self.values[name] for name in ("none", "all", "circuit"))
        random = none if self._lucky is None else self._lucky
        unit = unit_of(self.metric)
        # What is lost is "all" less "without", seen from none lost (0) to all lost (1).
        lost = share_kept(whole + none - self.values["without"], none, whole)
        shares = (
            Finding(
                "faithfulness of the circuit",
                inside,
                self.groups,
                control=share_kept(random, none, whole)(np.ones(len(none))),
                unit="share",
                statistic=share_kept(inside, none, whole),
                about="share of the behaviour that the circuit alone keeps; control: random ones of its size",
            ),
            Finding(
                "lost without the circuit",
                self.values["without"],
                self.groups,
                unit="share",
                statistic=lost,
                about="share of the behaviour that goes when the circuit alone is replaced",
            ),
        )
        return (
            *(() if self.no_share else shares),
            Finding(
                "kept by the circuit alone",
                inside - none,
                self.groups,
                control=random - none,
                unit=unit,
                about=f"{self.metric} beyond that with everything replaced",
            ),
            Finding(
                "effect of all of them",
                whole - none,
                self.groups,
                unit=unit,
                about=f"{self.metric} of the model beyond that with everything replaced",
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What the numbers do not show."""
        return (
            "Replaced parts are real values of another prompt, but their combination may be one that the "
            "model never has.",
            "A circuit of one template need not hold for another: see mediation.generality.",
        )


def _percent(found: Estimate) -> str:
    return f"{found.value:z.0%} [{found.interval.low:z.0%}, {found.interval.high:z.0%}]"


def _columns(rows: Sequence[tuple[Cell, ...]]) -> dict[str, Sequence[Cell]]:
    return dict(zip(FORMS["intervals"], zip(*rows, strict=True), strict=True))


def evaluate(
    model: ModelLike,
    pairs: PairSet,
    circuit: Circuit,
    *,
    universe: Circuit = NODES,
    metric: str = "logit-diff",
    random_circuits: int = RANDOM,
    knockouts: int = KNOCKOUTS,
    removals: int = REMOVALS,
    controls: Sequence[str] = tuple(UNMATCHED),
    seed: int = 0,
) -> Evaluation:
    """Run a circuit alone, the model without it, and their controls, all exactly.

    Args:
        model: what is run.
        pairs: better others than those the circuit was found on.
        circuit: its nodes, such as ``effects.top(20)``, or its edges.
        universe: what is inside or outside: nodes, or ``edge.*``; the circuit must be part of it.
        metric: a key of ``METRICS``.
        random_circuits: how many random circuits of the same size.
        knockouts: how many random cuts, of the circuit and of a random one (completeness).
        removals: how many members are taken out one by one, and put in at random (minimality), at most.
        controls: keys of ``UNMATCHED``: in them there is nothing to find.
        seed: of everything random, and of intervals.

    Raises:
        ConfigError: a node outside the universe, or an unknown metric or control.
        DataError: the model behaves the same with every node replaced.
    """
    unknown = [name for name in controls if name not in UNMATCHED]
    if unknown:
        raise ConfigError(f"control {unknown[0]!r} asked; there are: {', '.join(UNMATCHED)}.")
    model = as_model(model)
    every = members_of(model, pairs, universe, positions="all")
    inside = members_of(model, pairs, circuit, positions="all") if circuit else ()
    _check_inside(inside, every, universe)
    plan = _Plan.of(every, inside, random_circuits, knockouts, removals, seed)
    runs = plan.measured(model, pairs, metric, seed)
    refuse_no_effect(runs.values["all"].mean(), runs.values["none"].mean(), what_are(every))
    notes = [*pairs.notes, *(() if METRICS[metric].whole else doubts_of(model, pairs))]
    notes += of_dictionaries(model, every)
    unmatched: dict[str, dict[str, np.ndarray]] = {}
    for name in controls:
        built = UNMATCHED[name].build(model, pairs, seed)
        if built is None:
            notes.append(f"no {name} control: {UNMATCHED[name].missing}")
            continue
        ends = run_all(*built, every, [set(every), set(), set(inside)], metric, seed)
        unmatched[name] = dict(zip(("all", "none", "circuit"), ends, strict=True))
    notes += [runs.no_share] if runs.no_share else []
    return replace(runs, unmatched=unmatched, warnings=tuple(notes))


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which sets of members are run for one evaluation.

    Attributes:
        every: the universe.
        inside: the circuit.
        sets: named runs.
        cuts: name of what is cut -> its members, and the cuts.
        taken: members that are taken out of the circuit one by one.
        put: members that are put into it.
    """

    every: Members
    inside: Members
    sets: dict[str, set[Any]]
    cuts: dict[str, tuple[set[Any], list[set[Any]]]]
    taken: list[Any]
    put: list[Any]

    @classmethod
    def of(
        cls, every: Members, inside: Members, lucky: int, knockouts: int, removals: int, seed: int
    ) -> _Plan:
        rng, whole, own = random.Random(f"circuits:{seed}"), set(every), set(inside)
        drawn = [set(rng.sample(every, len(inside))) for _ in range(lucky)]
        sets: dict[str, set[Any]] = {"all": whole, "none": set(), "circuit": own, "without": whole - own}
        sets |= {f"random {at}": members for at, members in enumerate(drawn)}
        cut = {"circuit": own, **({"random": drawn[0]} if drawn else {})}
        cuts = {name: (members, cuts_of(sorted(members), knockouts, seed)) for name, members in cut.items()}
        return cls(every, inside, sets, cuts, *extras_of(inside, every, removals, seed))

    def measured(self, model: Model, pairs: PairSet, metric: str, seed: int) -> Evaluation:
        """Run all of them together."""
        own, whole = self.sets["circuit"], self.sets["all"]
        runs = [*self.sets.values(), *(own - {one} for one in self.taken), *(own | {one} for one in self.put)]
        for members, cuts in self.cuts.values():
            runs += [members - cut for cut in cuts] + [whole - cut for cut in cuts]
        found = iter(run_all(model, pairs, self.every, runs, metric, seed))
        values = {name: next(found) for name in self.sets}

        def stack(count: int) -> np.ndarray:
            return np.array([next(found) for _ in range(count)]).reshape(count, len(pairs))

        change, extra = values["circuit"] - stack(len(self.taken)), stack(len(self.put)) - values["circuit"]
        groups = tuple(pairs.groups)
        knockouts = {
            name: Knockouts(tuple(map(len, cuts)), stack(len(cuts)), stack(len(cuts)))
            for name, (_, cuts) in self.cuts.items()
            if cuts
        }
        total = float((values["all"] - values["none"]).mean())
        removals = (
            Removals(cast(Members, tuple(self.taken)), change, extra, total, groups, seed)
            if self.taken
            else None
        )
        couples = couples_of(removals) if removals is not None and what_are(self.every) == "node" else ()
        if removals is not None and couples:
            pairwise = [own - {self.taken[one], self.taken[two]} for one, two in couples]
            again = np.stack(run_all(model, pairs, self.every, pairwise, metric, seed))
            removals = replace(removals, couples=couples, together=values["circuit"] - again)
        return Evaluation(
            circuit=self.inside,
            universe=self.every,
            metric=metric,
            values=values,
            groups=groups,
            knockouts=knockouts,
            removals=removals,
            about=About(model.described, pairs.described),
            seed=seed,
        )


def _check_inside(inside: Members, every: Members, universe: Circuit) -> None:
    known = set(every)
    stray = [str(one) for one in inside if one not in known]
    if stray:
        named = ", ".join(map(str, [universe] if isinstance(universe, str | Edge) else universe))
        raise ConfigError(f"{stray[0]} is not in the universe ({named[:80]}); add it there.")


def _ratio(table: np.ndarray) -> float:
    part, none, whole = table.mean(axis=0)
    return float((part - none) / (whole - none)) if abs(whole - none) > 1e-12 else 0.0
