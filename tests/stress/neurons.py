"""Stress models whose difficulty is in the MLP, or in what two paths add up to."""

from __future__ import annotations

from itertools import product

import torch

from interp.pairs import Pair
from tests.board import (
    ANSWER,
    D_HEAD,
    FOUND,
    OFF,
    ON,
    PLACE,
    PLACES,
    SHARP,
    STEEP,
    WIDE,
    bit,
    blank,
    head,
    neuron,
    pair,
    reads,
    to_place,
)
from tests.planted_heads import Planted, gate
from tests.stress.truth import BOTH, Stress, stressed

__all__ = ["backup", "cancelling", "one_position", "or_gate", "saturated_activation"]

A, LOGIT, STRENGTH = FOUND.start, ANSWER.start, 4.0


def _switched(first: int, second: int, then: int, other: int) -> list[Pair]:
    """Pairs that differ at places 1 and 2: ``first second`` clean, ``then other`` corrupt."""
    return [
        pair([c, first, second, d], [c, then, other, d], 0, 9, f"{at}")
        for at, (c, d) in enumerate(product((3, 5, 7, 10), (6, 8)))
    ]


def saturated_activation() -> Stress:
    """A tanh that is flat at both ends of the path: ``head.0.0`` flips it, and no slope shows it."""
    hf = blank(1, activation="tanh")
    bit(hf, 0, 1, {A: 1.0})
    neuron(hf, 1, 0, {A: 1.0}, -0.5, steep=8.0)
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_proj.weight[0, LOGIT] = STRENGTH / 2
    effects = {"head.0.0": (1.0, 1.0), "mlp_out.1": (1.0, 1.0)}
    pairs = _switched(ON, 4, OFF, 4)
    return stressed(hf, pairs, effects=effects, heads={"head.0.0"}, misses={"head.0.0": BOTH})


def cancelling() -> Stress:
    """``head.0.0`` answers; an MLP takes its answer back as steeply at both ends, but hardly in between."""
    hf = blank(1)
    bit(hf, 0, 1, {A: 1.0, LOGIT: STRENGTH})
    for at, (threshold, sign) in enumerate(((0.1, 1.0), (-0.1, -1.0), (-0.9, 1.0))):
        neuron(hf, 1, at, {A: 1.0}, threshold)
        with torch.no_grad():
            hf.transformer.h[1].mlp.c_proj.weight[at, LOGIT] = -sign * STRENGTH / STEEP
    effects = {"head.0.0": (1.0, 1.0), "mlp_out.1": (-0.25, -0.25)}
    pairs = _switched(ON, 4, OFF, 4)
    return stressed(hf, pairs, effects=effects, heads={"head.0.0"}, misses={"head.0.0": BOTH})


def _gate(kind: str, effects: dict[str, tuple[float, float]], invents: tuple[tuple[str, str], ...]) -> Stress:
    made: Planted = gate(kind)
    return Stress(made.model, made.pairs, effects, frozenset({"head.0.0", "head.0.1"}), invents=invents)


def or_gate() -> Stress:
    """Either of two heads is enough, so neither is needed: noising shows no single head."""
    return _gate("or", {"head.0.0": (1.0, 0.0), "head.0.1": (1.0, 0.0), "mlp_out.1": (1.0, 1.0)}, ())


def backup() -> Stress:
    """``head.1.1`` answers when ``head.0.0`` does not: the slope sees what is lost, not what stands in."""
    effects = {"head.0.0": (1.0, 0.0), "head.0.1": (1.0, 0.0)}
    return _gate("backup", effects, (("head.0.0", "noising"), ("head.0.1", "noising")))


def one_position() -> Stress:
    """``head.0.1`` answers; another circuit works for the answer at place 1 and against it at place 2.

    ``head.0.0`` notes at each place whether it is ON there, and ``head.1.1`` looks at places 1 and 2 alike:
    over all positions their effects cancel, at one position each has half the total effect.
    """
    hf = blank(1, noise=0.05)
    bit(hf, 1, 1, {LOGIT: STRENGTH, LOGIT + 1: -STRENGTH})  # the mean stays, which the norm takes off
    here = reads(PLACE, None, SHARP)
    note, out = torch.zeros(WIDE, D_HEAD), torch.zeros(D_HEAD, WIDE)
    note[ON, 0], note[FOUND.stop - 1, 0] = 1.0, -1.0
    out[0, A], out[0, A + 1] = 1.0, -1.0
    head(hf, 0, 0, here, here, note, out)
    two = torch.zeros(PLACES, PLACES)
    two[1, 0] = two[2, 0] = 1.0
    take, give = torch.zeros(WIDE, D_HEAD), torch.zeros(D_HEAD, WIDE)
    take[A, 0], take[FOUND.stop - 1, 0], give[0, LOGIT] = 1.0, -1.0, STRENGTH
    head(hf, 1, 1, to_place(1)[0], reads(PLACE, two, 1.0), take, give)
    pairs = _switched(ON, OFF, OFF, ON)
    return stressed(hf, pairs, effects={"head.0.1": (1.0, 1.0)}, heads={"head.0.1"})
