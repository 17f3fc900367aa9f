"""Models whose circuit of heads is known, because every weight is set by hand.

The residual stream is divided into slots: which token this is, what an earlier head found, what to answer,
where we are, a constant that keeps every layer norm near a fixed scale, and junk. All heads and MLPs outside
the circuit have random weights, read everything and write into the junk, which nothing else reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from tests.tiny import WORDS, tokenizer

__all__ = ["PLANTED", "Planted", "planted"]

WIDTH, HEADS, LAYERS, LETTERS, PLACES = 64, 4, 2, 16, 8
TOKEN, FOUND, ANSWER, PLACE, CONSTANT, JUNK = (
    slice(0, 16),
    slice(16, 32),
    slice(32, 48),
    slice(48, 56),
    slice(56, 58),
    slice(58, 64),
)
BIG, SHARP, LOUD = 100.0, 30.0, 8.0
START = 20  # a word that is no letter: the first token has none before it and looks at itself


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


def _blank(seed: int) -> GPT2LMHeadModel:
    """Everything random that writes into the junk; nothing else does anything yet."""
    config = GPT2Config(
        vocab_size=64,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=PLACES,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed)

    def noise(shape: torch.Size, size: float) -> Tensor:
        return size * torch.randn(shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            random = name.endswith("weight") and ("attn" in name or "mlp" in name)
            parameter.copy_(noise(parameter.shape, 0.3) if random else torch.zeros_like(parameter))
        for block in model.transformer.h:
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                outside = torch.ones(WIDTH, dtype=torch.bool)
                outside[JUNK] = False
                projection.weight[:, outside] = 0.0
            for projection in (block.attn.c_attn, block.mlp.c_fc):
                projection.weight[CONSTANT] = 0.0
        for at in range(LETTERS):
            model.transformer.wte.weight[4 + at, TOKEN][at] = 1.0
            model.lm_head.weight[4 + at, ANSWER][at] = 1.0
        for at in range(PLACES):
            model.transformer.wpe.weight[at, PLACE][at] = 1.0
        model.transformer.wpe.weight[:, CONSTANT] = torch.tensor([BIG, -BIG])
        norms = [model.transformer.ln_f, *(n for b in model.transformer.h for n in (b.ln_1, b.ln_2))]
        for norm in norms:
            norm.weight.fill_(BIG * (2 / WIDTH) ** 0.5)
    return model


def _head(
    model: GPT2LMHeadModel, layer: int, head: int, q: Tensor, k: Tensor, v: Tensor, out: Tensor
) -> None:
    """Set one head: ``q k v`` are ``[width d_head]``, ``out`` is ``[d_head width]``."""
    size = WIDTH // HEADS
    own = slice(head * size, (head + 1) * size)
    attention = model.transformer.h[layer].attn
    with torch.no_grad():
        for third, part in enumerate((q, k, v)):
            attention.c_attn.weight[:, third * WIDTH :][:, own] = part
        attention.c_proj.weight[own] = out


def _reads(slot: slice, matrix: Tensor | None = None, gain: float = 1.0) -> Tensor:
    """Read a slot into the head's first dimensions, through a matrix where there is one."""
    size = slot.stop - slot.start
    found = torch.zeros(WIDTH, WIDTH // HEADS)
    found[slot, :size] = gain * (torch.eye(size) if matrix is None else matrix)
    return found


def _writes(slot: slice, gain: float = 1.0) -> Tensor:
    found = torch.zeros(WIDTH // HEADS, WIDTH)
    found[:, slot] = gain * torch.eye(WIDTH // HEADS)
    return found


def _to_place(place: int) -> tuple[Tensor, Tensor]:
    """Queries and keys that look at one place from everywhere."""
    every = torch.zeros(PLACES, PLACES)
    every[:, 0] = 1.0
    only = torch.zeros(PLACES, PLACES)
    only[place, 0] = 1.0
    return _reads(PLACE, every, SHARP), _reads(PLACE, only, SHARP)


def _to_previous() -> tuple[Tensor, Tensor]:
    """Queries and keys that look at the token before."""
    before = torch.zeros(PLACES, PLACES)
    for at in range(1, PLACES):
        before[at, at - 1] = 1.0
    return _reads(PLACE, before, SHARP), _reads(PLACE, None, SHARP)


def _pair(clean: list[int], corrupt: list[int], answer: int, foil: int, group: str) -> Pair:
    def text(letters: list[int]) -> str:
        return " ".join(WORDS[letter] for letter in letters)

    return Pair(text(clean), text(corrupt), (WORDS[answer],), (WORDS[foil],), "planted", group)


def _letters(n: int, many: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(LETTERS, generator=generator)[:many].tolist() for _ in range(n)]


def _finish(hf: GPT2LMHeadModel, pairs: list[Pair], heads: set[str], edges: set[str]) -> Planted:
    model = load(hf, tokenizer=tokenizer())
    return Planted(model, PairSet.build(model, pairs), frozenset(heads), frozenset(edges))


def copy(seed: int = 0) -> Planted:
    """One head looks at the second token and answers it."""
    hf = _blank(seed)
    q, k = _to_place(1)
    _head(hf, 0, 1, q, k, _reads(TOKEN), _writes(ANSWER, LOUD))
    pairs = [
        _pair([a, b, c, d], [a, e, c, d], b, e, f"{at}")
        for at, (a, b, c, d, e) in enumerate(_letters(12, 5, seed))
    ]
    return _finish(hf, pairs, {"head.0.1"}, {"embed->v.0.1", "head.0.1->logits"})


def induction(seed: int = 0) -> Planted:
    """A head notes the token before; another looks for the place where that is the present one (keys)."""
    hf = _blank(seed)
    q, k = _to_previous()
    _head(hf, 0, 2, q, k, _reads(TOKEN), _writes(FOUND))
    _head(
        hf, 1, 3, _reads(TOKEN, None, SHARP), _reads(FOUND, None, SHARP), _reads(TOKEN), _writes(ANSWER, LOUD)
    )
    pairs = [
        _pair([START, a, b, c, d, a], [START, c, b, a, d, a], b, d, f"{at}")
        for at, (a, b, c, d) in enumerate(_letters(12, 4, seed))
    ]
    edges = {"embed->v.0.2", "head.0.2->k.1.3", "head.1.3->logits"}
    return _finish(hf, pairs, {"head.0.2", "head.1.3"}, edges)


def composition(seed: int = 0) -> Planted:
    """A head moves the first token to the third place; another reads it there and answers it (values)."""
    hf = _blank(seed)
    q, k = _to_place(0)
    _head(hf, 0, 0, q, k, _reads(TOKEN), _writes(FOUND))
    q, k = _to_place(2)
    _head(hf, 1, 1, q, k, _reads(FOUND), _writes(ANSWER, LOUD))
    pairs = [
        _pair([a, b, c, d, e], [f, b, c, d, e], a, f, f"{at}")
        for at, (a, b, c, d, e, f) in enumerate(_letters(12, 6, seed))
    ]
    edges = {"embed->v.0.0", "head.0.0->v.1.1", "head.1.1->logits"}
    return _finish(hf, pairs, {"head.0.0", "head.1.1"}, edges)


PLANTED = {"copy": copy, "induction": induction, "composition": composition}


def planted(name: str, seed: int = 0) -> Planted:
    """Build one of them."""
    return PLANTED[name](seed)


ON, OFF, LAST, STRENGTH, STEEP = 1, 2, 3, 4.0, 30.0


def _neuron(model: GPT2LMHeadModel, layer: int, at: int, reads: dict[int, float], bias: float) -> None:
    """Set one neuron to ``relu(sum of reads + bias)``, scaled so that the GELU's bend does not show."""
    mlp = model.transformer.h[layer].mlp
    with torch.no_grad():
        mlp.c_fc.weight[:, at] = 0.0
        for dim, weight in reads.items():
            mlp.c_fc.weight[dim, at] = STEEP * weight
        mlp.c_fc.weight[FOUND.stop - 1, at] = -STEEP * sum(reads.values())  # the norm's mean cancels
        mlp.c_fc.bias[at] = STEEP * bias
        mlp.c_proj.weight[at] = 0.0


def _bit(model: GPT2LMHeadModel, head: int, place: int, outputs: dict[int, float]) -> None:
    """Let a head of layer 0 say whether the token at a place is ON."""
    q, k = _to_place(place)
    v, out = torch.zeros(WIDTH, WIDTH // HEADS), torch.zeros(WIDTH // HEADS, WIDTH)
    v[TOKEN.start + ON, 0], v[FOUND.stop - 1, 0] = 1.0, -1.0
    for dim, weight in outputs.items():
        out[0, dim] = weight
    _head(model, 0, head, q, k, v, out)


def gate(kind: str) -> Planted:
    """Two heads that say whether the tokens at places 1 and 2 are ON, joined by what ``kind`` says.

    ``and``, ``or``: an MLP joins ``head.0.0`` and ``head.0.1``. ``backup``: ``head.0.0`` answers, and
    ``head.1.1`` answers instead only where ``head.0.0`` found nothing. ``chain``: ``head.1.1`` passes on what
    ``head.0.0`` found. The answer's logit is 4 where the gate is on and 0 elsewhere.
    """
    hf, a, b, free, answer = _blank(1), FOUND.start, FOUND.start + 1, FOUND.start + 2, ANSWER.start
    _bit(hf, 0, 1, {a: 1.0} | ({answer: STRENGTH} if kind == "backup" else {}))
    _bit(hf, 1, 2, {b: 1.0})
    project = hf.transformer.h[0 if kind == "backup" else 1].mlp.c_proj.weight
    if kind in ("and", "or"):
        _neuron(hf, 1, 0, {a: 1.0, b: 1.0}, -1.0)
        _neuron(hf, 1, 1, {a: 1.0, b: 1.0}, 0.0)
        with torch.no_grad():
            project[0, answer] = (STRENGTH if kind == "and" else -STRENGTH) / STEEP
            project[1, answer] = (0.0 if kind == "and" else STRENGTH) / STEEP
    if kind == "backup":
        _neuron(hf, 0, 0, {b: 1.0, a: -1.0}, 0.0)
        with torch.no_grad():
            project[0, free] = 1.0 / STEEP
    if kind in ("backup", "chain"):
        q, k = _to_place(LAST)
        v, out = torch.zeros(WIDTH, WIDTH // HEADS), torch.zeros(WIDTH // HEADS, WIDTH)
        v[free if kind == "backup" else a, 0], v[FOUND.stop - 1, 0] = 1.0, -1.0
        out[0, answer] = STRENGTH
        _head(hf, 1, 1, q, k, v, out)
    pairs = [
        _pair([c, ON, ON, d], [c, OFF, OFF, d], 0, 9, f"{at}")
        for at, (c, d) in enumerate(product((3, 5, 7, 10, 12, 13), (6, 8)))
    ]
    heads = {"head.0.0", "head.1.1" if kind in ("backup", "chain") else "head.0.1"}
    return _finish(hf, pairs, heads, set())
