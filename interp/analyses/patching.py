"""From pairs of prompts to a ranked table of mediators and a circuit that was evaluated on other pairs.

The ranking and the circuit's size come from one set of pairs, its faithfulness from another, whose groups the
first has not seen. Random circuits of the same size and a random order stand beside it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from interp.errors import ConfigError, DataError
from interp.mediation import Curve, Edge, Effects, Evaluation, Search, curve, evaluate
from interp.mediation.circuits.drawing import drawing
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.searches import effects as effects_of
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import Figure, Finding, Number, Result, Table
from interp.results.findings import prefixed
from interp.tasks.pairs import sample

__all__ = ["SAME", "TARGET", "PairsFor", "Patching", "Trace", "no_circuit", "pairs_for", "patch"]

TARGET = 0.8
MOST_NODES = 512
FEWER = {"random_circuits": 2, "knockouts": 1, "removals": 4}
"""What is run beside a circuit of edges, of which there are many."""
SAME = "the circuit is evaluated on the pairs it was found on: expect less on other pairs"
EDGES = (
    "a circuit of edges was held to 2 random circuits, 1 cut of each and 4 removals; more: "
    "interp.mediation.evaluate with the circuit and universe='edge.*'"
)


@dataclass(frozen=True, eq=False)
class PairsFor:
    """The pairs that mediators are ranked on, and others that the circuit is evaluated on.

    Attributes:
        ranking: for effects, the order of nodes and the circuit's size.
        held_out: of other groups; None where there are too few groups to set any aside.
    """

    ranking: PairSet
    held_out: PairSet | None


@dataclass(frozen=True, eq=False)
class Trace:
    """A circuit and how well it stands for the model.

    Attributes:
        target: the share of the behaviour that decided its size, on the ranking pairs.
        evaluation: of the circuit.
        curve: faithfulness by size, nodes in the order of their effects, beside a random order.
        held_out: whether evaluation and curves are over pairs that the ranking has not seen.
        heads_per_group: how many heads share keys and values, for the drawing of edges.
    """

    target: float
    evaluation: Evaluation
    curve: Curve
    held_out: bool
    heads_per_group: int = 1

    @property
    def random_curve(self) -> Curve:
        """The curve with mediators in a random order: the control."""
        assert self.curve.control is not None
        return self.curve.control

    def verdict(self) -> str:
        """What the circuit keeps, on which pairs, beside random ones."""
        found = self.evaluation
        if found.no_share:
            return f"No share of the behaviour is given for a circuit: {found.no_share}."
        kept, ends = found.faithfulness.value, found.faithfulness.interval
        return (
            f"The circuit of the {len(found.circuit):,} largest of {len(found.universe):,} keeps {kept:z.0%} "
            f"[{ends.low:z.2f}, {ends.high:z.2f}] of the behaviour on "
            f"{'other pairs' if self.held_out else 'the same pairs'}, random circuits of that size "
            f"{found.random.value:z.0%}."
        )

    def lead(self) -> str:
        """How its size was chosen, and what it was evaluated on."""
        where = "pairs of other groups" if self.held_out else "of the same pairs"
        return (
            "The circuit is that of the largest effects. Its size was chosen on the ranking pairs: the "
            f"smallest that keeps {self.target:.0%} of the behaviour. All else about it is measured on "
            f"{len(self.evaluation.groups):,} {where}; all outside the circuit comes from the corrupt prompt."
        )

    def numbers(self) -> tuple[Number, ...]:
        """Faithfulness, both readings of completeness, and the areas by size."""
        found = {one.name: one for one in (*self.evaluation.numbers(), *self.curve.numbers())}
        if "faithfulness" in found:
            found["faithfulness"] = replace(found["faithfulness"], label="Faithfulness of the circuit")
        wanted = ("faithfulness", "left-without-it", "completeness-gap", "cpr", "cmd")
        return tuple(found[name] for name in wanted if name in found)

    def tables(self) -> tuple[Table, ...]:
        """The runs of the circuit, the areas, and opened by the reader: members and sizes one by one."""
        circuit, *members = self.evaluation.tables()
        sizes, *areas = self.curve.tables()
        return (circuit, *areas, *(replace(one, folded=True) for one in (*members, sizes)))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Patching(Result):
    """What ``interp.patch`` found.

    Attributes:
        effects: of every mediator.
        trace: the circuit; None where mediators are cells of a grid or too many.
        note: why there is no circuit, or "".
    """

    schema: ClassVar[str] = "interp.patching/1"

    effects: Effects
    trace: Trace | None = None
    note: str = ""

    def question(self) -> str:
        """What carries the answer, in which data and model."""
        return self.effects.question()

    def verdict(self) -> str:
        """The largest effect, and what its circuit keeps."""
        circuit = "" if self.trace is None else f" {self.trace.verdict()}"
        return f"{self.effects.verdict()}{circuit}"

    def lead(self) -> tuple[str, ...]:
        """How effects were found, and the circuit; or why there is none."""
        circuit = f"No circuit was evaluated: {self.note}." if self.trace is None else self.trace.lead()
        return (*self.effects.lead(), circuit)

    def numbers(self) -> tuple[Number, ...]:
        """Those of the effects, and of the circuit."""
        return self.effects.numbers() + (() if self.trace is None else self.trace.numbers())

    def tables(self) -> tuple[Table, ...]:
        """Those of the effects (see ``Effects.tables``), and of the circuit."""
        return self.effects.tables() + (() if self.trace is None else self.trace.tables())

    def figures(self) -> tuple[Figure, ...]:
        """A map, the largest effects, faithfulness by size, and the circuit as a drawing."""
        found = self.effects.figures()
        if self.trace is None:
            return found
        values = {row["mediator"]: row["effect"] for row in self.effects.rows}
        metric, group = self.effects.metric, self.trace.heads_per_group
        drawn = drawing(self.trace.evaluation.circuit, values, metric, group)
        return (*found, *self.trace.curve.figures(), *(() if drawn is None else (drawn,)))

    def findings(self) -> tuple[Finding, ...]:
        """The effects, and of this model's own circuit the evaluation and the area by size."""
        if self.trace is None:
            return self.effects.findings()
        circuit = self.trace.evaluation.findings() + self.trace.curve.findings()[:1]
        return self.effects.findings() + prefixed(circuit, "circuit")

    def cautions(self) -> tuple[str, ...]:
        """What neither effects nor circuit show."""
        return self.effects.cautions() + (() if self.trace is None else self.trace.evaluation.cautions())


def pairs_for(
    model: Model,
    pairs: PairSet | str,
    n: int = 32,
    *,
    counterfactual: str | None = None,
    seed: int = 0,
) -> PairsFor:
    """Divide pairs by group into those for the ranking and those for the evaluation.

    Args:
        model: whose tokenizer decides what lines up.
        pairs: a task of ``interp.tasks.PAIR_TASKS``, of which twice ``n`` are drawn, or your own pairs, which
            are divided in halves.
        n: how many pairs the ranking has, at most (a task only).
        counterfactual: of the task.
        seed: of the draw and of the division.
    """
    own = isinstance(pairs, PairSet)
    found = pairs if own else sample(model, pairs, 2 * n, seed=seed, counterfactual=counterfactual)
    groups = list(dict.fromkeys(found.groups))
    if own:
        random.Random(f"halves:{seed}").shuffle(groups)
    wanted = max(1, len(found) // 2) if own else min(n, max(1, len(found) // 2))
    first: set[str] = set()
    for group in groups:
        if sum(one in first for one in found.groups) >= wanted:
            break
        first.add(group)
    rows = [at for at, group in enumerate(found.groups) if group in first]
    rest = [at for at, group in enumerate(found.groups) if group not in first]
    if len({found.groups[at] for at in rest}) < 2:
        return PairsFor(found, None)
    return PairsFor(found[rows], found[rest])


def patch(
    model: Model,
    pairs: PairSet | PairsFor | str = "capitals",
    mediators: Any = "head.*",
    *,
    n: int = 32,
    counterfactual: str | None = None,
    search: str | Search = "exhaustive",
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    seed: int = 0,
    progress: bool = False,
) -> Patching:
    """Rank mediators by their effect on the answer, and evaluate the circuit of the largest on other pairs.

    Args:
        model: what is patched.
        pairs: a task of ``interp.tasks.PAIR_TASKS``, your own pairs, or both halves from :func:`pairs_for`.
        mediators: names and globs such as ``head.*``; see ``interp.mediation.MEDIATORS``.
        n: pairs of a task to rank on; as many others are drawn for the evaluation.
        counterfactual: of the task.
        search: a key of ``SEARCHES``, or a search with options.
        metric: a key of ``METRICS``.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``.
        positions: as for ``mediators_of``.
        seed: of everything random.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown search, or what the search refuses.
        DataError: clean and corrupt prompts give the same answers, or what the pairs refuse.
    """
    parts = (
        pairs
        if isinstance(pairs, PairsFor)
        else pairs_for(model, pairs, n, counterfactual=counterfactual, seed=seed)
    )
    _check_total(model, parts.ranking, metric)
    effects = effects_of(
        model,
        parts.ranking,
        mediators,
        search=search,
        metric=metric,
        replacement=replacement,
        directions=directions,
        positions=positions,
        seed=seed,
        progress=progress,
    )
    trace = no_circuit(effects) or _trace(model, parts, effects, metric, seed)
    found = Patching(effects=effects, about=effects.about, seed=seed, warnings=effects.warnings)
    if isinstance(trace, str):
        return replace(found, note=trace)
    notes = [text for text, holds in ((SAME, not trace.held_out), (EDGES, _edges(effects))) if holds]
    said = dict.fromkeys([*effects.warnings, *trace.evaluation.warnings, *notes])
    return replace(found, trace=trace, warnings=tuple(said))


def _check_total(model: Model, pairs: PairSet, metric: str) -> None:
    """Refuse pairs between which the metric does not change at all.

    Raises:
        DataError: the total effect of every pair is zero up to rounding.
    """
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} asked; there are: {', '.join(METRICS)}.")
    clean, corrupt = model.logits(pairs.clean), model.logits(pairs.corrupt)
    targets = Targets.of(pairs, clean.device, clean)
    measure = METRICS[metric].values
    change = (measure(clean, targets) - measure(corrupt, targets)).abs()
    if float(change.max()) <= 1e-6 * max(1.0, float(clean.abs().max())):
        raise DataError(
            f"the total effect is zero: {metric} is the same on the clean and the corrupt prompt of all "
            f"{len(pairs)} pairs, so that nothing can carry it. Give pairs whose answers differ."
        )


def no_circuit(effects: Effects) -> str:
    """Say why no circuit is evaluated; "" where one is."""
    if any(mediator.position is not None for mediator in effects.mediators):
        return "cells of single positions form no circuit of nodes"
    if not 2 <= len(effects.mediators) <= MOST_NODES and not _edges(effects):
        return f"a circuit is evaluated of 2 to {MOST_NODES} nodes, here are {len(effects.mediators)}"
    if not effects.differs:
        return "the total effect is not told from zero, so that no share of it means anything"
    return ""


def _edges(effects: Effects) -> bool:
    return isinstance(effects.mediators[0], Edge)


def _trace(model: Model, parts: PairsFor, effects: Effects, metric: str, seed: int) -> Trace | str:
    """Choose the size on the ranking pairs, evaluate on the others; or say why there is no size to choose."""
    order = effects.top(len(effects.mediators))
    universe = list(effects.mediators)
    given: Any = {"universe": universe, "metric": metric, "seed": seed}
    sizes: Any = {"compat": "mib"} if _edges(effects) else {}
    controls: Any = FEWER if _edges(effects) else {}
    ranked = curve(model, parts.ranking, order, **given, **sizes)
    if ranked.no_share:
        return ranked.no_share
    size = ranked.smallest(TARGET) or ranked.sizes[-1]
    held = parts.held_out if parts.held_out is not None else parts.ranking
    return Trace(
        TARGET,
        evaluate(model, held, list(order[:size]), **given, **controls),
        curve(model, held, order, **given, **sizes, control=True),
        parts.held_out is not None,
        model.n_heads // model.n_kv_heads,
    )
