"""Stress models whose difficulty is in attention: what feeds queries and keys, and what feeds values."""

from __future__ import annotations

import torch

from tests.board import (
    ANSWER,
    ASK,
    FOUND,
    LOUD,
    PLACE,
    PLACES,
    START,
    TOKEN,
    WIDE,
    blank,
    head,
    letters,
    pair,
    reads,
    to_place,
    to_previous,
    writes,
)
from tests.planted_heads import induction
from tests.stress.truth import BOTH, Stress, stressed

__all__ = ["k_composition", "q_composition", "saturated_attention", "v_composition"]

GAIN, QUIET = 6.0, 0.05
"""Of queries and of keys: a match scores 9 above the rest, so that a pattern is saturated, not one-hot."""
ALL = (1.0, 1.0)


def saturated_attention() -> Stress:
    """An induction head whose pattern is one-hot to rounding: no slope at any usual temperature."""
    made = induction()
    effects = {name: ALL for name in made.heads}
    misses = tuple(("head.0.2", way) for way in BOTH)
    return Stress(made.model, made.pairs, effects, made.heads, made.edges, misses)


def v_composition() -> Stress:
    """Three heads hand the first token on, value by value: nothing bends, attribution is right."""
    hf = blank(0, layers=3, width=WIDE, noise=QUIET)
    head(hf, 0, 0, *to_place(0), reads(TOKEN), writes(FOUND))
    head(hf, 1, 1, *to_place(1), reads(FOUND), writes(ASK))
    head(hf, 2, 2, *to_place(3), reads(ASK), writes(ANSWER, LOUD))
    pairs = [
        pair([a, b, c, d, e], [f, b, c, d, e], a, f, f"{at}")
        for at, (a, b, c, d, e, f) in enumerate(letters(8, 6, 0))
    ]
    edges = {"embed->v.0.0", "head.0.0->v.1.1", "head.1.1->v.2.2", "head.2.2->logits"}
    names = ("head.0.0", "head.1.1", "head.2.2")
    return stressed(hf, pairs, effects={name: ALL for name in names}, heads=names, edges=frozenset(edges))


def k_composition() -> Stress:
    """Two heads note which token was two before; the third looks for where that is the present one."""
    hf = blank(0, layers=3, width=WIDE, noise=QUIET)
    head(hf, 0, 1, *to_previous(), reads(TOKEN), writes(FOUND))
    head(hf, 1, 2, *to_previous(), reads(FOUND), writes(ASK))
    head(hf, 2, 3, reads(TOKEN, None, GAIN), reads(ASK, None, GAIN), reads(TOKEN), writes(ANSWER, LOUD))
    pairs = [
        pair([START, a, e, b, d, a], [START, e, a, b, d, a], b, d, f"{at}")
        for at, (a, b, d, e) in enumerate(letters(8, 4, 0))
    ]
    edges = {"embed->v.0.1", "head.0.1->v.1.2", "head.1.2->k.2.3", "head.2.3->logits"}
    names, missed = ("head.0.1", "head.1.2", "head.2.3"), ("head.0.1", "head.1.2")
    return stressed(
        hf,
        pairs,
        effects={name: ALL for name in names},
        heads=names,
        edges=frozenset(edges),
        misses=dict.fromkeys(missed, BOTH),
    )


def q_composition() -> Stress:
    """A head reads the first token, a second finds where it stands, a third answers what follows it there."""
    hf = blank(0, layers=3, width=WIDE, noise=QUIET)
    head(hf, 0, 0, *to_place(0), reads(TOKEN), writes(FOUND))
    keys = reads(TOKEN, None, GAIN)
    keys[PLACE.start] = -GAIN  # not the first place itself
    places = slice(ASK.start, ASK.start + PLACES)
    head(hf, 1, 1, reads(FOUND, None, GAIN), keys, reads(PLACE), writes(places))
    after = torch.zeros(PLACES, PLACES)
    for at in range(PLACES - 1):
        after[at, at + 1] = 1.0
    head(hf, 2, 2, reads(places, after, GAIN), reads(PLACE, None, GAIN), reads(TOKEN), writes(ANSWER, LOUD))
    pairs = [
        pair([a, a, b, c, d], [c, a, b, c, d], b, d, f"{at}")
        for at, (a, b, c, d) in enumerate(letters(8, 4, 0))
    ]
    edges = {"embed->v.0.0", "head.0.0->q.1.1", "head.1.1->q.2.2", "head.2.2->logits"}
    names = ("head.0.0", "head.1.1", "head.2.2")
    return stressed(
        hf,
        pairs,
        effects={name: ALL for name in names},
        heads=names,
        edges=frozenset(edges),
        misses={"head.0.0": BOTH},
    )
