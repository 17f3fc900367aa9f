"""From pairs of prompts to a ranked table of mediators and a circuit that was evaluated on other pairs.

The ranking and the circuit's size come from one set of pairs, its faithfulness from another, whose groups the
first has not seen. Random circuits of the same size and a random order stand beside it.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from interp import results
from interp.errors import ConfigError, DataError
from interp.mediation import SEARCHES, Curve, Edge, Effects, Evaluation, curve, evaluate
from interp.mediation.chosen import chosen
from interp.mediation.metrics import METRICS, Targets
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.findings import Finding, prefixed
from interp.tasks.pairs import sample

if TYPE_CHECKING:
    import pandas

__all__ = ["SAME", "TARGET", "PairsFor", "Patching", "Trace", "no_circuit", "pairs_for", "patch"]

TARGET = 0.8
MOST_NODES = 512
SMALL = 0.05
"""The share of all nodes or edges that a small circuit may have."""
FEWER = {"random_circuits": 2, "knockouts": 1, "removals": 4}
"""What is run beside a circuit of edges, of which there are many."""
SAME = "the circuit is evaluated on the pairs it was found on: expect less on other pairs"
EDGES = (
    "a circuit of edges was held to 2 random circuits, 1 cut of each and 4 removals; more: "
    "interp.mediation.evaluate with the circuit and universe='edge.*'"
)


@dataclass(frozen=True, eq=False)
class PairsFor:
    """Hold the pairs that mediators are ranked on, and others that the circuit is evaluated on.

    Attributes:
        ranking: for effects, the order of nodes and the circuit's size.
        held_out: of other groups; None where there are too few groups to set any aside.
    """

    ranking: PairSet
    held_out: PairSet | None


@dataclass(frozen=True, eq=False)
class Trace:
    """Hold a circuit and how well it stands for the model.

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


@dataclass(frozen=True, eq=False, repr=False)
class Patching:
    """Hold what ``interp.patch`` found.

    Attributes:
        effects: of every mediator.
        trace: the circuit; None where mediators are cells of a grid or too many.
        note: why there is no circuit, or "".
    """

    effects: Effects
    trace: Trace | None
    note: str = ""

    def table(self, k: int | None = None) -> pandas.DataFrame:
        """Give one row per mediator, the largest effect first; see ``Effects.tables``."""
        return self.effects.table() if k is None else self.effects.table().head(k)

    def findings(self) -> tuple[Finding, ...]:
        """Give the effects, and of this model's own circuit the evaluation and the area by size."""
        if self.trace is None:
            return self.effects.findings()
        circuit = self.trace.evaluation.findings() + self.trace.curve.findings()[:1]
        return self.effects.findings() + prefixed(circuit, "circuit")

    def diff(self, reference: Patching) -> pandas.DataFrame:
        """Give the change of each mediator's mean effect from another result."""
        return results.difference(self.table(), reference.table(), ["mediator"])

    def to_dict(self) -> dict[str, Any]:
        """Give the effects with the circuit under ``circuit``, as JSON types."""
        circuit = None if self.trace is None else _trace_dict(self.trace)
        return {**_effects_dict(self.effects), "circuit": circuit}

    def _repr_html_(self) -> str:
        """Give the ten largest effects as an escaped table for notebooks."""
        return results.table_html(self.table(10), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        circuit = self.note if self.trace is None else repr(self.trace.evaluation)
        return f"Patching({self.effects!r}; {circuit})"


def _effects_dict(effects: Effects) -> dict[str, Any]:
    checked = effects.verified
    exact = {} if checked is None else {"exact": {**asdict(checked), "top": list(map(asdict, checked.top))}}
    plain, _ = results.jsonable(
        {
            "schema": "interp.effects/1",
            "search": effects.search,
            "exact": effects.exact,
            "metric": effects.metric,
            "unit": effects.unit,
            "replacement": effects.replacement,
            "n_mediators": len(effects.mediators),
            "n_pairs": len(effects.clean),
            "n_groups": len(set(effects.groups)),
            "clean": float(effects.clean.mean()),
            "corrupt": float(effects.corrupt.mean()),
            "total": float(effects.total.mean()),
            "noise": effects.noise,
            "few": effects.tests.smallest * len(effects.mediators) > 0.05,
            "notice": effects.tests.notice,
            "cost": {**effects.cost, **exact},
            "model": dict(effects.about.model),
            "seed": effects.seed,
            "effects": [dict(row) for row in effects.rows[:2000]],
            "warnings": list(effects.warnings),
        }
    )
    return plain


def _trace_dict(trace: Trace) -> dict[str, Any]:
    found, control = trace.curve, trace.random_curve
    plain, _ = results.jsonable(
        {
            "nodes": list(map(str, trace.evaluation.circuit)),
            "universe": len(trace.evaluation.universe),
            "target": trace.target,
            "held_out": trace.held_out,
            "heads_per_group": trace.heads_per_group,
            "n_pairs": len(trace.evaluation.groups),
            "evaluation": _evaluation_dict(trace.evaluation),
            "sizes": list(found.sizes),
            "faithfulness": found.faithfulness,
            "random_faithfulness": control.faithfulness,
            "members": found.members,
            "x": found.axis_words,
            "areas": {
                "CPR": [found.cpr, control.cpr],
                "CMD": [found.cmd, control.cmd],
                **_small(found, control),
            },
        }
    )
    return plain


def _evaluation_dict(found: Evaluation) -> dict[str, Any]:
    removals = found.removals
    minimality = removals and {
        "tested": len(removals.members),
        "needed": removals.needed,
        "threshold": removals.threshold,
        "couples": len(removals.couples),
        "covered": len(removals.covering),
        "members": removals.table().frame().to_dict("records"),
    }
    runs = found.table().to_dict("records")
    return {"metric": found.metric, "no_share": found.no_share, "runs": runs, "minimality": minimality}


def _small(found: Curve, control: Curve) -> dict[str, list[float]]:
    """Faithfulness at the largest size that was measured within 5% of all; nothing where there is none."""
    at = found.largest_within(SMALL)
    if at is None:
        return {}
    size = found.sizes[at]
    name = f"of the first {size:,} of {found.total:,} {found.members} ({size / found.total:.1%})"
    return {name: [float(found.faithfulness[at]), float(control.faithfulness[at])]}


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
    search: str = "exhaustive",
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
        search: a key of ``SEARCHES``.
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
    if search not in SEARCHES:
        raise ConfigError(f"search {search!r} asked; there are: {', '.join(SEARCHES)}.")
    parts = (
        pairs
        if isinstance(pairs, PairsFor)
        else pairs_for(model, pairs, n, counterfactual=counterfactual, seed=seed)
    )
    _check_total(model, parts.ranking, metric)
    found = chosen(model, parts.ranking, mediators, positions=positions)
    effects = SEARCHES[search].run(
        model,
        parts.ranking,
        list(found),
        metric=metric,
        replacement=replacement,
        directions=directions,
        positions=positions,
        seed=seed,
        progress=progress,
    )
    note = no_circuit(effects)
    if note:
        return Patching(effects, None, note)
    trace = _trace(model, parts, effects, metric, seed)
    if isinstance(trace, str):
        return Patching(effects, None, trace)
    notes = [text for text, holds in ((SAME, not trace.held_out), (EDGES, _edges(effects))) if holds]
    said = dict.fromkeys([*effects.warnings, *trace.evaluation.warnings, *notes])
    effects = replace(effects, warnings=tuple(said))
    return Patching(effects, trace)


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
