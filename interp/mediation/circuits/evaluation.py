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
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp import results
from interp.errors import ConfigError, DataError
from interp.mediation.circuits.controls import UNMATCHED
from interp.mediation.circuits.knockouts import Knockouts, Removals, couples_of, cuts_of, extras_of
from interp.mediation.circuits.runs import (
    NODES,
    Circuit,
    Members,
    apart,
    members_of,
    no_total,
    refuse_no_effect,
    run_all,
    what_are,
)
from interp.mediation.edges.graph import Edge
from interp.mediation.itemised import of_evaluation
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.findings import Finding
from probes.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    import pandas

__all__ = ["Evaluation", "evaluate"]

RANDOM = 5
KNOCKOUTS = 5
REMOVALS = 24


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Hold how well a circuit stands for the whole model on some pairs.

    Attributes:
        circuit: its nodes or edges.
        universe: every node or edge that is inside or outside.
        metric: its name.
        values: ``all``, ``none``, ``circuit``, ``without`` (all but the circuit), ``random i``: ``[pair]``.
        groups: of the pairs.
        seed: of random circuits, knock-outs and intervals.
        knockouts: ``circuit`` and ``random`` (a random circuit of its size): each beside the model after the
            same random cuts.
        removals: each member taken out alone, beside members put in at random.
        unmatched: name -> ``m(all)``, ``m(none)``, ``m(circuit)`` of controls in which there is nothing to
            find: keys of ``UNMATCHED``.
        warnings: what a reader should know.
    """

    circuit: Members
    universe: Members
    metric: str
    values: Mapping[str, Float[np.ndarray, " pair"]]
    groups: tuple[str, ...]
    seed: int
    knockouts: Mapping[str, Knockouts] = field(default_factory=dict)
    removals: Removals | None = None
    unmatched: Mapping[str, Mapping[str, Float[np.ndarray, " pair"]]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

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
        """Give the share that is left without the circuit: near 0 if nothing outside does the task."""
        return self.share(self.values["without"])

    @property
    def random(self) -> Estimate:
        """Give the mean faithfulness of random circuits of the same size: the control."""
        return self.share(self._random())

    @property
    def sparsity(self) -> float:
        """Give the share of nodes or edges that are outside the circuit."""
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

    def _random(self) -> np.ndarray:
        found = [value for name, value in self.values.items() if name.startswith("random")]
        if not found:
            raise ConfigError("no random circuits were run; call evaluate with random_circuits above 0.")
        return np.mean(found, axis=0)

    def table(self) -> pandas.DataFrame:
        """Give one row per run and control.

        Returns:
            ``what``; ``share``, ``low``, ``high``: of the model's behaviour, empty where there is none to
            share or the total effect is not told from zero; ``difference``, ``difference_low``,
            ``difference_high``: ``m(...) - m(none)`` in units of the metric.
        """
        import pandas

        none = self.values["none"]
        whole = self._row("the whole model", self.values["all"], none, None)
        runs = {"the circuit": self.values["circuit"], "left without it": self.values["without"]}
        if any(name.startswith("random") for name in self.values):
            runs["random circuits of this size"] = self._random()
        usable = not self.no_share
        rows = [whole | ({"share": 1.0} if usable else {})]
        rows += [
            self._row(name, value, none, self.share(value) if usable else None)
            for name, value in runs.items()
        ]
        rows += [self._gap(name, found) for name, found in self.knockouts.items()]
        for name, control in self.unmatched.items():
            for which, words in (("all", "the whole model"), ("circuit", "the circuit")):
                rows.append(self._row(f"{name}: {words}", control[which], control["none"], None))
        return pandas.DataFrame(rows)

    def _gap(self, name: str, found: Knockouts) -> dict[str, Any]:
        ends = np.stack([self.values["none"], self.values["all"]], axis=1)
        absolute, share = found.gap(ends, self.groups, self.seed)
        words = "the circuit" if name == "circuit" else "a random circuit"
        share = None if self.no_share else share
        return _row(f"{words} and the model apart after the same cuts", absolute, share)

    def _row(self, what: str, value: np.ndarray, none: np.ndarray, share: Estimate | None) -> dict[str, Any]:
        return _row(what, apart(self.metric, value, none, self.groups, self.seed), share)

    def minimality(self) -> pandas.DataFrame:
        """One row per member: what taking it out changes, and whether the circuit needs it; see ``Removals``.

        Raises:
            ConfigError: no removals were run.
        """
        if self.removals is None:
            raise ConfigError("no removals were run; call evaluate with removals above 0.")
        return self.removals.table()

    def to_dict(self) -> dict[str, Any]:
        """Give the tables and what they are of as JSON types."""
        removals = self.removals
        plain, _ = results.jsonable(
            {
                "members": list(map(str, self.circuit)),
                "universe": len(self.universe),
                "sparsity": self.sparsity,
                "metric": self.metric,
                "n_pairs": len(self.groups),
                "n_groups": len(set(self.groups)),
                "no_share": self.no_share,
                "runs": self.table().to_dict("records"),
                "minimality": None
                if removals is None
                else {
                    "tested": len(removals.members),
                    "needed": removals.needed,
                    "threshold": removals.threshold,
                    "couples": len(removals.couples),
                    "covered": len(removals.covering),
                    "members": removals.table().to_dict("records"),
                },
                "seed": self.seed,
                "warnings": list(self.warnings),
            }
        )
        return plain

    def findings(self) -> tuple[Finding, ...]:
        """Give faithfulness and what is lost without the circuit; see ``itemised.of_evaluation``."""
        return of_evaluation(self)

    def diff(self, reference: Evaluation) -> pandas.DataFrame:
        """Give the change of every share and difference from another result.

        Raises:
            ConfigError: another metric.
        """
        if self.metric != reference.metric:
            raise ConfigError(f"an evaluation by {self.metric} cannot be compared with {reference.metric}.")
        return results.difference(self.table(), reference.table(), ["what"])

    def _repr_html_(self) -> str:
        """Give the table, escaped, for notebooks."""
        return results.table_html(self.table(), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        size = f"{len(self.circuit):,} of {len(self.universe):,}"
        if self.no_share:
            return f"Evaluation({size}; {self.no_share})"
        return f"Evaluation({size}, faithfulness {self.faithfulness}, left without it {self.completeness})"


def _row(what: str, difference: Estimate, share: Estimate | None) -> dict[str, Any]:
    row: dict[str, Any] = {"what": what, "share": None, "low": None, "high": None}
    if share is not None:
        row |= {"share": share.value, "low": share.interval.low, "high": share.interval.high}
    low, high = difference.interval.low, difference.interval.high
    return row | {"difference": difference.value, "difference_low": low, "difference_high": high}


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
    every = members_of(model, pairs, universe)
    inside = members_of(model, pairs, circuit) if circuit else ()
    _check_inside(inside, every, universe)
    plan = _Plan.of(every, inside, random_circuits, knockouts, removals, seed)
    runs = plan.measured(model, pairs, metric, seed)
    refuse_no_effect(runs.values["all"].mean(), runs.values["none"].mean(), what_are(every))
    notes = list(pairs.notes)
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
        removals = Removals(tuple(self.taken), change, extra, total, groups, seed) if self.taken else None
        couples = couples_of(removals) if removals is not None and what_are(self.every) == "node" else ()
        if removals is not None and couples:
            pairwise = [own - {self.taken[one], self.taken[two]} for one, two in couples]
            again = np.stack(run_all(model, pairs, self.every, pairwise, metric, seed))
            removals = replace(removals, couples=couples, together=values["circuit"] - again)
        return Evaluation(self.inside, self.every, metric, values, groups, seed, knockouts, removals)


def _check_inside(inside: Members, every: Members, universe: Circuit) -> None:
    known = set(every)
    stray = [str(one) for one in inside if one not in known]
    if stray:
        named = ", ".join(map(str, [universe] if isinstance(universe, str | Edge) else universe))
        raise ConfigError(f"{stray[0]} is not in the universe ({named[:80]}); add it there.")


def _ratio(table: np.ndarray) -> float:
    part, none, whole = table.mean(axis=0)
    return float((part - none) / (whole - none)) if abs(whole - none) > 1e-12 else 0.0
