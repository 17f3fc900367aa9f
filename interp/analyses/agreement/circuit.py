"""The reference's circuit inside another model: does it still carry the behaviour, beside random ones?"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.analyses.agreement.rankings import Rankings, by_luck, overlap, weighted_jaccard
from interp.analyses.patching import TARGET, PairsFor, no_circuit
from interp.mediation import Effects, curve
from interp.mediation.circuits.runs import no_total, run_all, share_kept
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.findings import Finding
from interp.results.shapes import Table

__all__ = ["Circuit", "circuit_of", "judged"]

RANDOM = 5


@dataclass(frozen=True, eq=False)
class Circuit:
    """Hold a circuit that was found in the reference.

    Attributes:
        nodes: the largest effects, as many as keep 80% of the behaviour on the ranking pairs; none where
            there is no circuit.
        universe: all mediators.
        note: why there is none, or "".
    """

    nodes: tuple[Any, ...]
    universe: tuple[Any, ...]
    note: str = ""


def circuit_of(model: Model, parts: PairsFor, effects: Effects, seed: int) -> Circuit:
    """Take the largest effects until they keep 80% of the behaviour on the pairs they were ranked on."""
    universe: tuple[Any, ...] = tuple(effects.mediators)
    note = no_circuit(effects)
    if note:
        return Circuit((), universe, note)
    order = effects.top(len(universe))
    found = curve(model, parts.ranking, order, universe=list(universe), metric=effects.metric, seed=seed)
    if found.no_share:
        return Circuit((), universe, found.no_share)
    size = found.smallest(TARGET) or len(universe)
    if size >= len(universe):
        return Circuit((), universe, f"no part of the mediators keeps {TARGET:.0%} of the behaviour")
    return Circuit(tuple(order[:size]), universe)


def judged(
    model: Model, pairs: PairSet, circuit: Circuit, rankings: Rankings, seed: int
) -> tuple[tuple[Finding, ...], tuple[Table, ...]]:
    """Run the reference's circuit in a model, random ones of its size, and the model's own.

    Args:
        model: what is run.
        pairs: that the ranking has not seen.
        circuit: the reference's.
        rankings: both models' effects.
        seed: of the random circuits.

    Returns:
        Findings, and the table ``circuits``; neither where the reference has no circuit. Without a total
        effect in this model that is told from zero there is no faithfulness, of which it would be a share.
    """
    if not circuit.nodes:
        return (), ()
    size, every, metric = len(circuit.nodes), set(circuit.universe), rankings.own.metric
    own = set(rankings.own.top(size))
    rng = random.Random(f"circuits:{seed}")
    lucky = [set(rng.sample(circuit.universe, size)) for _ in range(RANDOM)]
    sets = [every, set(), set(circuit.nodes), own, *lucky]
    universe: Any = circuit.universe
    whole, none, inside, mine, *others = run_all(model, pairs, universe, sets, metric, seed)
    chance = np.mean(others, axis=0)
    no_share = no_total(metric, whole, none, pairs.groups, seed)
    shares = [share_kept(part, none, whole) for part in (inside, mine, chance)]
    values = [None if no_share else share(np.ones(len(pairs))) for share in shares]
    faithful = Finding(
        "faithfulness of the reference's circuit",
        inside,
        tuple(pairs.groups),
        control=values[2] or 0.0,
        unit="share",
        statistic=shares[0],
        about="share of this model's behaviour that it keeps alone; random circuits are the control",
    )
    findings = (
        *(() if no_share else (faithful,)),
        Finding(
            "kept by the reference's circuit",
            inside - none,
            tuple(pairs.groups),
            control=chance - none,
            unit=rankings.own.unit,
            about=f"{metric} of it alone, beyond that with everything replaced",
        ),
        *_overlaps(rankings, size, seed),
    )
    members = (circuit.nodes, rankings.own.top(size), ())
    names = ("the reference's", "this model's", f"random, mean of {RANDOM}")
    rows = [
        (name, size, value, ", ".join(map(str, nodes)))
        for name, value, nodes in zip(names, values, members, strict=True)
    ]
    effect = float((whole - none).mean())
    note = (
        f"Faithfulness: the share of {metric} that it keeps alone, on {len(pairs):,} pairs; replacing all "
        f"{len(every)} mediators changes it by {effect:.3g}. The reference's: as few of its largest effects "
        f"as keep {TARGET:.0%} on the pairs they were ranked on."
        f"{f' No faithfulness is given: {no_share}.' if no_share else ''}"
    )
    columns = ("circuit", "size", "faithfulness", "members")
    return findings, (Table("circuits", "Circuits of the same size", columns, rows, note),)


def _overlaps(rankings: Rankings, size: int, seed: int) -> tuple[Finding, ...]:
    n = len(rankings.own.mediators)
    weighted = weighted_jaccard(size)
    return (
        rankings.finding(
            "circuit overlap",
            overlap(size),
            by_luck(size, n),
            f"Jaccard index of both models' {size} largest, the size of the reference's circuit",
        ),
        rankings.finding(
            "circuit overlap, weighted by effect",
            weighted,
            rankings.luck(weighted, seed),
            "each mediator by its share of the circuit's effects; the effects shuffled are the control",
        ),
    )
