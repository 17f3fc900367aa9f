"""Models whose circuit of heads is known, because every weight is set by hand.

The residual stream is divided into the slots of ``tests.board``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from transformers import GPT2LMHeadModel

from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from tests.board import (
    ANSWER,
    D_HEAD,
    FOUND,
    LOUD,
    OFF,
    ON,
    SHARP,
    START,
    STEEP,
    TOKEN,
    WIDE,
    bit,
    blank,
    head,
    letters,
    neuron,
    pair,
    reads,
    to_place,
    to_previous,
    writes,
)
from tests.tiny import tokenizer

__all__ = ["PLANTED", "Planted", "planted"]


@dataclass(frozen=True)
class Planted:
    """Hold a model whose circuit is known.

    Attributes:
        model: wrapped.
        pairs: that the circuit tells apart.
        heads: the names of the heads of the circuit.
        edges: the names of the edges that carry the difference.
    """

    model: Model
    pairs: PairSet
    heads: frozenset[str]
    edges: frozenset[str]


def _finish(hf: GPT2LMHeadModel, pairs: list[Pair], heads: set[str], edges: set[str]) -> Planted:
    model = load(hf, tokenizer=tokenizer())
    return Planted(model, PairSet.build(model, pairs), frozenset(heads), frozenset(edges))


def copy(seed: int = 0) -> Planted:
    """One head looks at the second token and answers it."""
    hf = blank(seed)
    q, k = to_place(1)
    head(hf, 0, 1, q, k, reads(TOKEN), writes(ANSWER, LOUD))
    pairs = [
        pair([a, b, c, d], [a, e, c, d], b, e, f"{at}")
        for at, (a, b, c, d, e) in enumerate(letters(12, 5, seed))
    ]
    return _finish(hf, pairs, {"head.0.1"}, {"embed->v.0.1", "head.0.1->logits"})


def induction(seed: int = 0) -> Planted:
    """A head notes the token before; another looks for the place where that is the present one (keys)."""
    hf = blank(seed)
    q, k = to_previous()
    head(hf, 0, 2, q, k, reads(TOKEN), writes(FOUND))
    head(hf, 1, 3, reads(TOKEN, None, SHARP), reads(FOUND, None, SHARP), reads(TOKEN), writes(ANSWER, LOUD))
    pairs = [
        pair([START, a, b, c, d, a], [START, c, b, a, d, a], b, d, f"{at}")
        for at, (a, b, c, d) in enumerate(letters(12, 4, seed))
    ]
    edges = {"embed->v.0.2", "head.0.2->k.1.3", "head.1.3->logits"}
    return _finish(hf, pairs, {"head.0.2", "head.1.3"}, edges)


def composition(seed: int = 0) -> Planted:
    """A head moves the first token to the third place; another reads it there and answers it (values)."""
    hf = blank(seed)
    q, k = to_place(0)
    head(hf, 0, 0, q, k, reads(TOKEN), writes(FOUND))
    q, k = to_place(2)
    head(hf, 1, 1, q, k, reads(FOUND), writes(ANSWER, LOUD))
    pairs = [
        pair([a, b, c, d, e], [f, b, c, d, e], a, f, f"{at}")
        for at, (a, b, c, d, e, f) in enumerate(letters(12, 6, seed))
    ]
    edges = {"embed->v.0.0", "head.0.0->v.1.1", "head.1.1->logits"}
    return _finish(hf, pairs, {"head.0.0", "head.1.1"}, edges)


PLANTED = {"copy": copy, "induction": induction, "composition": composition}


def planted(name: str, seed: int = 0) -> Planted:
    """Build one of them."""
    return PLANTED[name](seed)


LAST, STRENGTH = 3, 4.0


def gate(kind: str) -> Planted:
    """Two heads that say whether the tokens at places 1 and 2 are ON, joined by what ``kind`` says.

    ``and``, ``or``: an MLP joins ``head.0.0`` and ``head.0.1``. ``backup``: ``head.0.0`` answers, and
    ``head.1.1`` answers instead only where ``head.0.0`` found nothing. ``chain``: ``head.1.1`` passes on what
    ``head.0.0`` found. The answer's logit is 4 where the gate is on and 0 elsewhere.
    """
    hf, a, b, free, answer = blank(1), FOUND.start, FOUND.start + 1, FOUND.start + 2, ANSWER.start
    bit(hf, 0, 1, {a: 1.0} | ({answer: STRENGTH} if kind == "backup" else {}))
    bit(hf, 1, 2, {b: 1.0})
    project = hf.transformer.h[0 if kind == "backup" else 1].mlp.c_proj.weight
    if kind in ("and", "or"):
        neuron(hf, 1, 0, {a: 1.0, b: 1.0}, -1.0)
        neuron(hf, 1, 1, {a: 1.0, b: 1.0}, 0.0)
        with torch.no_grad():
            project[0, answer] = (STRENGTH if kind == "and" else -STRENGTH) / STEEP
            project[1, answer] = (0.0 if kind == "and" else STRENGTH) / STEEP
    if kind == "backup":
        neuron(hf, 0, 0, {b: 1.0, a: -1.0}, 0.0)
        with torch.no_grad():
            project[0, free] = 1.0 / STEEP
    if kind in ("backup", "chain"):
        q, k = to_place(LAST)
        v, out = torch.zeros(WIDE, D_HEAD), torch.zeros(D_HEAD, WIDE)
        v[free if kind == "backup" else a, 0], v[FOUND.stop - 1, 0] = 1.0, -1.0
        out[0, answer] = STRENGTH
        head(hf, 1, 1, q, k, v, out)
    pairs = [
        pair([c, ON, ON, d], [c, OFF, OFF, d], 0, 9, f"{at}")
        for at, (c, d) in enumerate(product((3, 5, 7, 10, 12, 13), (6, 8)))
    ]
    heads = {"head.0.0", "head.1.1" if kind in ("backup", "chain") else "head.0.1"}
    return _finish(hf, pairs, heads, set())
