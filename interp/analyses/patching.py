"""From pairs of prompts to a ranked table of mediators and a circuit that was evaluated on other pairs.

The ranking and the circuit's size come from one set of pairs, its faithfulness from another, whose groups the
first has not seen. Random circuits of the same size and a random order stand beside it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from interp.analyses.agreement import Beside, Narrowed, carried
from interp.errors import ConfigError, DataError, counted
from interp.mediation import SELECTIONS, Curve, Edge, Effects, Evaluation, Search, choose, curve, evaluate
from interp.mediation.circuits.drawing import circuit_figure
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.searches import Attribution
from interp.mediation.searches import effects as effects_of
from interp.mediation.steps import steps_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet, own_pairs
from interp.results import Figure, Finding, Number, Result, Table
from interp.results.findings import prefixed
from interp.tasks.pairs import PAIR_TASKS, lined_up, sample

__all__ = [
    "SAME",
    "TARGET",
    "PairsFor",
    "Patching",
    "Trace",
    "pairs_for",
    "patch",
    "patch_agreement",
    "unchosen",
]

NODES = ("head.*", "mlp_out.*")
ENOUGH, TRIED = 0.5, 12
"""The share of a task's pairs that must line up for it to be taken before later ones are looked at."""

TARGET = 0.8
MOST_NODES = 512
FEWER = {"random_circuits": 2, "knockouts": 1, "removals": 4}
"""What is run beside a circuit of edges, of which there are many."""
ALONE = {"random_circuits": 2, "knockouts": 0, "removals": 0, "controls": ()}
"""What is run beside a circuit that is only carried over to other models."""
OF_THE_LARGEST = "of the largest effects, not of this choice"
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
        select: how its members were chosen, a key of ``SELECTIONS``.
        kept: the share that it keeps on the ranking pairs, where curves are of the largest effects instead.
    """

    target: float
    evaluation: Evaluation
    curve: Curve
    held_out: bool
    heads_per_group: int = 1
    select: str = "top"
    kept: float | None = None

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
        size = f"{len(found.circuit):,}"
        which = f"the {size} largest" if self.select == "top" else f"{size} ({self.select})"
        return (
            f"The circuit of {which} of {len(found.universe):,} keeps {kept:z.0%} "
            f"[{ends.low:z.2f}, {ends.high:z.2f}] of the behaviour on "
            f"{'other pairs' if self.held_out else 'the same pairs'}, random circuits of that size "
            f"{found.random.value:z.0%}."
        )

    def lead(self) -> str:
        """How its size was chosen, and what it was evaluated on."""
        where = "pairs of other groups" if self.held_out else "of the same pairs"
        chosen = (
            "that of the largest effects" if self.select == "top" else SELECTIONS[self.select].description
        )
        size = f"Its size was chosen on the ranking pairs: the smallest that keeps {self.target:.0%}"
        other = ""
        if self.kept is not None:
            size = f"Its size: at most what the largest effects need on ranking pairs for {self.target:.0%}"
            other = (
                f" On ranking pairs this choice keeps {self.kept:z.0%}. Curve, CPR, CMD: {OF_THE_LARGEST}."
            )
        return (
            f"The circuit is {chosen}. {size} of the behaviour. All else about it is measured on "
            f"{len(self.evaluation.groups):,} {where}; all outside the circuit comes from the corrupt prompt."
            f"{other}"
        )

    def numbers(self) -> tuple[Number, ...]:
        """Faithfulness, both readings of completeness, and the areas by size."""
        found = {one.name: one for one in (*self.evaluation.numbers(), *self.curve.numbers())}
        if "faithfulness" in found:
            found["faithfulness"] = replace(found["faithfulness"], label="Faithfulness of the circuit")
        for name in {"cpr", "cmd"} & found.keys() if self.kept is not None else ():
            found[name] = replace(found[name], meaning=f"{found[name].meaning}; {OF_THE_LARGEST}")
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
        beside: the reference's effects, and its circuit in this model; None without a reference.
        narrowed: which mediators have effects, where not all: the circuit is of all.
    """

    schema: ClassVar[str] = "interp.patching/1"

    effects: Effects
    trace: Trace | None = None
    note: str = ""
    beside: Beside | None = None
    narrowed: Narrowed | None = None

    @property
    def _other(self) -> Beside | None:
        """Another model beside this one; None where there is none, or it is this one itself."""
        return None if self.beside is None or self.beside.itself else self.beside

    def question(self) -> str:
        """What carries the answer, in which data and model."""
        return self.effects.question()

    def verdict(self) -> str:
        """The largest effect, and what its circuit keeps."""
        said = [self.effects.verdict()]
        said += [] if self.trace is None else [self.trace.verdict()]
        said += [] if self._other is None else [self._other.verdict(self.effects)]
        return " ".join(said)

    def lead(self) -> tuple[str, ...]:
        """How effects were found, and the circuit; or why there is none."""
        circuit = f"No circuit was evaluated: {self.note}." if self.trace is None else self.trace.lead()
        return (*self.effects.lead(), circuit)

    def numbers(self) -> tuple[Number, ...]:
        """Those of the effects, and of the circuit."""
        other = () if self._other is None else self._other.numbers(self.effects)
        return (*self.effects.numbers(), *(() if self.trace is None else self.trace.numbers()), *other)

    def tables(self) -> tuple[Table, ...]:
        """Those of the effects (see ``Effects.tables``), of the circuit and of what stands beside."""
        other = () if self._other is None else self._other.tables(self.effects, self.seed)
        return (*self.effects.tables(), *(() if self.trace is None else self.trace.tables()), *other)

    def figures(self) -> tuple[Figure, ...]:
        """A map, the largest effects, faithfulness by size, and the circuit as a drawing."""
        found = self.effects.figures()
        if self._other is not None:
            return (*self._other.figures(self.effects), *found)
        if self.trace is None:
            return found
        values = {row["mediator"]: row["effect"] for row in self.effects.rows}
        metric, group = self.effects.metric, self.trace.heads_per_group
        drawn = circuit_figure(self.trace.evaluation.circuit, values, metric, group)
        return (*found, *self.trace.curve.figures(), *(() if drawn is None else (drawn,)))

    def findings(self) -> tuple[Finding, ...]:
        """The effects, and of this model's own circuit the evaluation and the area by size.

        With a reference: the total effect, the reference's circuit in this model, the agreement of both
        rankings, and the effects of the reference's largest mediators.
        """
        if self.beside is not None:
            return self.beside.findings(self.effects, self.seed)
        if self.trace is None:
            return self.effects.findings()
        circuit = self.trace.evaluation.findings() + self.trace.curve.findings()[:1]
        return self.effects.findings() + prefixed(circuit, "circuit")

    def cautions(self) -> tuple[str, ...]:
        """What neither effects nor circuit show."""
        return self.effects.cautions() + (() if self.trace is None else self.trace.evaluation.cautions())


def pairs_for(
    model: Model,
    pairs: Any,
    n: int = 32,
    *,
    counterfactual: str | None = None,
    seed: int = 0,
) -> PairsFor:
    """Divide pairs by group into those for the ranking and those for the evaluation.

    Args:
        model: whose tokenizer decides what lines up.
        pairs: a task, of which twice ``n`` are drawn, or halves of your own (``interp.pairs.own_pairs``).
        n: how many pairs the ranking has, at most (a task only).
        counterfactual: of the task.
        seed: of the draw and of the division.
    """
    own = not isinstance(pairs, str) or pairs.endswith(".jsonl")
    pairs = own_pairs(model, pairs) if own else pairs
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
    pairs: Any = "capitals",
    mediators: Any = "head.*",
    *,
    n: int = 32,
    counterfactual: str | None = None,
    search: str | Search = "exhaustive",
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    select: str = "top",
    reference: Patching | None = None,
    k: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Patching:
    """Rank mediators by their effect on the answer, and evaluate the circuit of the largest on other pairs.

    With a reference, its circuit is run in this model in place of this model's own, and both models' effects
    stand beside each other.

    Args:
        model: what is patched.
        pairs: a task of ``interp.tasks.PAIR_TASKS``, your own (``interp.pairs.own_pairs``), or both halves.
        mediators: names and globs such as ``head.*``; see ``interp.mediation.MEDIATORS``.
        n: pairs of a task to rank on; as many others are drawn for the evaluation.
        counterfactual: of the task.
        search: a key of ``SEARCHES``, or a search with options.
        metric: a key of ``METRICS``.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``.
        positions: as for ``mediators_of``.
        select: how the circuit is chosen at the size that the ranking needs, a key of ``SELECTIONS``.
        reference: what this function returned for another model, asked the same.
        k: size of the top lists that are compared with the reference's.
        seed: of everything random.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown search, what the search refuses, or a reference that was asked something else.
        DataError: clean and corrupt prompts give the same answers, what the pairs refuse, or a reference of
            other pairs, mediators or tokenizer.
    """
    parts = (
        pairs
        if isinstance(pairs, PairsFor)
        else pairs_for(model, pairs, n, counterfactual=counterfactual, seed=seed)
    )
    if reference is None:
        _check_total(model, parts.ranking, metric)
    else:
        _check_reference(reference, k)
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
    found = Patching(effects=effects, about=effects.about, seed=seed, warnings=effects.warnings)
    if reference is not None:
        note = "that of the reference was run instead"
        return replace(found, note=note, beside=_beside(model, parts, found, reference, k))
    trace = no_circuit(effects) or _trace(model, parts, effects, metric, seed, select=select)
    if isinstance(trace, str):
        return replace(found, note=trace)
    notes = [text for text, holds in ((SAME, not trace.held_out), (EDGES, _edges(effects))) if holds]
    said = dict.fromkeys([*effects.warnings, *trace.evaluation.warnings, *notes])
    return replace(found, trace=trace, warnings=tuple(said))


def _check_reference(reference: Patching, k: int) -> None:
    """Refuse, before anything is run, what nothing can be compared with.

    Raises:
        ConfigError: what stands beside another reference, or top lists of another size.
    """
    if not isinstance(reference, Patching) or reference._other is not None:
        raise ConfigError(
            "the reference is no result of patch alone; give what patch(model) returned for it."
        )
    if reference.beside is not None and reference.beside.k != k:
        raise ConfigError(
            f"patch: k={k} asked, and {reference.beside.k} of the reference; ask both the same."
        )


def _check_total(model: Model, pairs: PairSet, metric: str) -> None:
    """Refuse pairs between which the metric does not change at all.

    Raises:
        DataError: the total effect of every pair is zero up to rounding.
    """
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} asked; there are: {', '.join(METRICS)}.")
    measure = METRICS[metric]
    rows = steps_of(model, pairs, measure).pairs if measure.whole else pairs
    clean, corrupt = model.logits(rows.clean), model.logits(rows.corrupt)
    targets = Targets.of(rows, clean.device, clean)
    change = (measure.values(clean, targets) - measure.values(corrupt, targets)).abs()
    if float(change.max()) <= 1e-6 * max(1.0, float(clean.abs().max())):
        if pairs.clean.token_ids == pairs.corrupt.token_ids:
            raise DataError(
                "the total effect is zero: clean and corrupt prompt are the same in all "
                f"{counted(len(pairs), 'pair')}. Give corrupt prompts that differ in what should change it."
            )
        raise DataError(
            f"the total effect is zero: {metric} is the same on the clean and the corrupt prompt of all "
            f"{counted(len(pairs), 'pair')}, so that nothing can carry it. Give pairs whose answers differ."
        )


def no_circuit(effects: Effects) -> str:
    """Why no circuit is evaluated; "" where one is."""
    if any(mediator.position is not None for mediator in effects.mediators):
        return "cells of single positions form no circuit of nodes"
    if any(not isinstance(mediator, Edge) and mediator.window > 1 for mediator in effects.mediators):
        return "windows of layers overlap, and form no circuit"
    if any(isinstance(mediator, Edge) and mediator.at for mediator in effects.mediators):
        return "parts of edges by position are scored, not cut, and form no circuit"
    if not 2 <= len(effects.mediators) <= MOST_NODES and not _edges(effects):
        return f"a circuit is evaluated of 2 to {MOST_NODES} nodes, here are {len(effects.mediators)}"
    if not effects.differs:
        return "the total effect is not told from zero, so that no share of it means anything"
    return ""


def _edges(effects: Effects) -> bool:
    return isinstance(effects.mediators[0], Edge)


def _trace(
    model: Model,
    parts: PairsFor,
    effects: Effects,
    metric: str,
    seed: int,
    *,
    only: bool = False,
    select: str = "top",
) -> Trace | str:
    """Choose the size on the ranking pairs, evaluate on the others; or say why there is no size to choose.

    With ``only`` the circuit alone is run, beside few random ones: no cuts, removals and random orders.
    """
    order = effects.top(len(effects.mediators))
    given: Any = {"universe": list(effects.mediators), "metric": metric, "seed": seed}
    sizes: Any = {"compat": "mib"} if _edges(effects) else {}
    controls: Any = ALONE if only else FEWER if _edges(effects) else {}
    slow = select in SELECTIONS and SELECTIONS[select].connected  # too slow to be done at every size
    sizes |= {} if slow or select == "top" else {"chosen": lambda size: choose(model, effects, size, select)}
    if (ranked := curve(model, parts.ranking, order, **given, **sizes)).no_share:
        return ranked.no_share
    size = ranked.smallest(TARGET) or ranked.sizes[-1]
    circuit: Any = list(choose(model, effects, size, select))
    if not circuit:
        return f"selection {select!r} leaves none of {counted(size, 'mediator')}"
    held = parts.held_out if parts.held_out is not None else parts.ranking
    own = evaluate(model, parts.ranking, circuit, **given, **ALONE) if slow else None
    return Trace(
        TARGET,
        evaluate(model, held, circuit, **given, **controls),
        curve(model, held, order, **given, **sizes, control=not only),
        parts.held_out is not None,
        model.n_heads // max(1, model.n_kv_heads),
        select,
        None if own is None else own.faithfulness.value,
    )


def _beside(model: Model, parts: PairsFor, found: Patching, reference: Patching, k: int) -> Beside:
    """Run the reference's circuit in a model whose effects were found the same way."""
    trace, note, circuit = reference.trace, reference.note, None
    if trace is not None and len(trace.evaluation.circuit) == len(trace.evaluation.universe):
        note = f"no part of the mediators keeps {TARGET:.0%} of the behaviour"
    narrowed = reference.narrowed
    other = Beside(reference.effects, k, None, note, itself=found is reference, narrowed=narrowed)
    other.check(found.effects)
    if trace is not None and not note:
        held = parts.ranking if parts.held_out is None else parts.held_out
        every = None if narrowed is None else trace.evaluation.universe
        nodes = trace.evaluation.circuit
        circuit = carried(model, held, nodes, found.effects, found.seed, universe=every)
    return replace(other, circuit=circuit)


def patch_agreement(
    model: ModelLike,
    *,
    reference: Patching | None = None,
    n: int = 32,
    seed: int = 0,
    pairs: PairSet | str | None = None,
    mediators: str | Sequence[str] = NODES,
    search: str = "exhaustive",
    largest: int | None = None,
    k: int = 10,
) -> Patching:
    """Patch a model as the reference was patched, on pairs that no model has chosen.

    It is :func:`patch` for ``interp.quantization.compare``: pairs that a model gets wrong are kept, and the
    reference stands beside itself, where all agreements are 1.

    Args:
        model: what is patched.
        reference: what this function returned for the reference model; the model itself where left out.
        n: how many pairs of a task the ranking has; as many others are drawn for the circuit.
        seed: of the pairs and of the random circuits.
        pairs: a task of ``interp.tasks.PAIR_TASKS``, or your own pairs; where left out, the first task of
            which half of the pairs line up for the tokenizer, half of whose answers the reference gives, and
            whose total effect is clear.
        mediators: names and globs; see ``interp.mediation.MEDIATORS``.
        search: a key of ``SEARCHES``: ``exhaustive`` is exact and needs no gradients, ``attribution`` is
            quicker on large models.
        largest: replace only so many mediators, the largest of the reference by attribution, and 24 drawn
            at random from all; all where left out. A reference's choice is taken again.
        k: size of the top lists.

    Raises:
        ConfigError: an unknown search or task, a k that is no part of the mediators, gradients that a
            quantized model does not have, or a reference that was asked something else.
        DataError: no pairs line up, or models with other tokenizers or mediators.
    """
    model = as_model(model)
    parts, notes = unchosen(model, pairs, n, seed, reference=reference)
    named: Any = mediators if isinstance(mediators, str) else list(mediators)
    if reference is not None and reference.narrowed is not None:
        named = list(reference.effects.mediators)
    if reference is None and largest is not None:
        found = _narrowed(model, parts, named, max(largest, k), seed)
    else:
        found = patch(model, parts, named, search=search, reference=reference, k=k, seed=seed)
    if reference is None:
        found = replace(found, beside=_beside(model, parts, found, found, k))
    assert found.beside is not None
    narrowed = found.beside.narrowed
    said = [] if narrowed is None else [narrowed.said(len(found.effects.mediators))]
    said += [SAME] if parts.held_out is None else []
    said += [f"no circuit was compared: {found.beside.note}"] if found.beside.note else []
    return replace(found, warnings=tuple(dict.fromkeys([*notes, *said, *found.warnings])))


def _narrowed(model: Model, parts: PairsFor, mediators: Any, largest: int, seed: int) -> Patching:
    """Effects of the mediators that attribution ranks first and of a random sample, a circuit of all.

    The circuit's order is that of the estimates, with exact effects where there are some.
    """
    _check_total(model, parts.ranking, "logit-diff")
    first = Attribution(verify=0)
    estimated = effects_of(model, parts.ranking, mediators, search=first, seed=seed)
    chosen, places = Narrowed.of(estimated, largest, seed)
    effects = effects_of(model, parts.ranking, [estimated.mediators[at] for at in places], seed=seed)
    values = {name: found.copy() for name, found in estimated.values.items()}
    for name, exact in effects.values.items():
        values[name][places] = exact
    ranking = replace(estimated, values=values)
    trace = no_circuit(ranking) or _trace(model, parts, ranking, "logit-diff", seed, only=True)
    chosen = chosen.measured(estimated, effects)
    found = Patching(
        effects=effects, narrowed=chosen, about=effects.about, seed=seed, warnings=effects.warnings
    )
    return replace(found, note=trace) if isinstance(trace, str) else replace(found, trace=trace)


def unchosen(
    model: Model, pairs: PairSet | str | None, n: int, seed: int, *, reference: Patching | None = None
) -> tuple[PairsFor, tuple[str, ...]]:
    """Pairs chosen by seed and tokenizer alone, never by what a model says, and what is to be known of them.

    Where no task is named, the first is taken of which enough pairs line up, whose answers the model gives
    and whose total effect is clear, on some other pairs of it; a reference's task is taken again.

    Raises:
        DataError: no task has pairs that line up.
    """
    if isinstance(pairs, PairSet):
        return pairs_for(model, pairs, seed=seed), ()
    if pairs is None and reference is not None:
        pairs = str(reference.about.data.get("name", ""))
        pairs = pairs if pairs in PAIR_TASKS else None
    task, notes = (pairs, ()) if pairs is not None else _suitable(model, n, seed)
    drawn = sample(model, task, 2 * n, seed=seed, only_correct=False)
    return pairs_for(model, drawn, seed=seed), notes


def _suitable(model: Model, n: int, seed: int) -> tuple[str, tuple[str, ...]]:
    """The first task that suits a model, or else the one of which most pairs line up; and why.

    Raises:
        DataError: no task has pairs that line up.
    """
    shares: dict[str, float] = {}
    passed: list[str] = []
    for name in PAIR_TASKS:
        shares[name] = lined_up(model, name, 2 * n, seed=seed)
        if shares[name] < ENOUGH:
            passed.append(f"{name!r}: {shares[name]:.0%} of its pairs line up")
            continue
        right, clear = _answered(model, name, seed)
        if right >= ENOUGH and clear:
            why = f"{right:.0%} of its answers are the model's own, and its total effect is clear"
            note = f"task {name!r} was chosen ({why}, on {TRIED} other pairs), after {'; '.join(passed)}"
            return name, (note,) if passed else ()
        said = f"the model gives {right:.0%} of its answers" if right < ENOUGH else "no clear total effect"
        passed.append(f"{name!r}: {said}")
    if not any(shares.values()):
        raise DataError(
            f"no pairs of any task line up for the tokenizer of {model.name!r} ({', '.join(shares)}). Give "
            "pairs of your own, pairs=PairSet.build(model, ...)."
        )
    task = max(shares, key=lambda name: shares[name])
    return task, (
        f"no task suits this model ({'; '.join(passed)}), and {task!r} was taken, of which most pairs line "
        "up: a model that cannot do it shows effects all the same",
    )


def _answered(model: Model, task: str, seed: int) -> tuple[float, bool]:
    """The share of answers that a model gives, and whether the total effect is clear, on few pairs."""
    found = sample(model, task, TRIED, seed=seed + 1, only_correct=False)
    clean, corrupt = model.logits(found.clean).float(), model.logits(found.corrupt).float()
    targets = Targets.of(found, clean.device)
    measure = METRICS["logit-diff"]
    change = (measure.values(clean, targets) - measure.values(corrupt, targets)).double()
    clear = float(change.mean()) > 2 * float(change.std()) / len(change) ** 0.5
    return float(METRICS["accuracy"].values(clean, targets).mean()), clear
