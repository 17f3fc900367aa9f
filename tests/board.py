"""Build a GPT-2 by hand: a residual stream divided into slots, and heads and neurons that use them.

The slots are which token this is, what an earlier head found, what to answer, where we are, a constant that
keeps every layer norm near a fixed scale, junk, and (in wide models) what is asked. All heads and MLPs that
are not set have random weights, read everything and write into the junk, which nothing else reads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from interp.pairs import Pair
from tests.tiny import WORDS

__all__ = ["bit", "blank", "head", "letters", "neuron", "pair", "reads", "to_place", "to_previous", "writes"]

WIDTH, WIDE, D_HEAD, LETTERS, PLACES = 64, 80, 16, 16, 8
TOKEN, FOUND, ANSWER, PLACE, CONSTANT, JUNK, ASK = (
    slice(0, 16),
    slice(16, 32),
    slice(32, 48),
    slice(48, 56),
    slice(56, 58),
    slice(58, 64),
    slice(64, 80),
)
BIG, SHARP, LOUD, STEEP = 100.0, 30.0, 8.0, 30.0
ON, OFF = 1, 2
START = 20  # a word that is no letter: the first token has none before it and looks at itself


def blank(
    seed: int,
    *,
    layers: int = 2,
    width: int = WIDTH,
    activation: str = "gelu_new",
    noise: float = 0.3,
) -> GPT2LMHeadModel:
    """Everything random, of size ``noise``, that writes into the junk; nothing else does anything yet."""
    config = GPT2Config(
        vocab_size=64,
        n_embd=width,
        n_layer=layers,
        n_head=width // D_HEAD,
        n_positions=PLACES,
        activation_function=activation,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            random = name.endswith("weight") and ("attn" in name or "mlp" in name)
            parameter.copy_(
                noise * torch.randn(parameter.shape, generator=generator)
                if random
                else torch.zeros_like(parameter)
            )
        for block in model.transformer.h:
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                outside = torch.ones(width, dtype=torch.bool)
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
            norm.weight.fill_(BIG * (2 / width) ** 0.5)
    return model


def head(model: GPT2LMHeadModel, layer: int, head: int, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    """Set one head: ``q k v`` are ``[WIDE d_head]``, ``out`` is ``[d_head WIDE]``, cut to the model's."""
    width = model.config.n_embd
    own = slice(head * D_HEAD, (head + 1) * D_HEAD)
    attention = model.transformer.h[layer].attn
    with torch.no_grad():
        for third, part in enumerate((q, k, v)):
            attention.c_attn.weight[:, third * width :][:, own] = part[:width]
        attention.c_proj.weight[own] = out[:, :width]


def reads(slot: slice, matrix: Tensor | None = None, gain: float = 1.0) -> Tensor:
    """Read a slot into the head's first dimensions, through a matrix where there is one."""
    size = slot.stop - slot.start
    found = torch.zeros(WIDE, D_HEAD)
    found[slot, :size] = gain * (torch.eye(size) if matrix is None else matrix)
    return found


def writes(slot: slice, gain: float = 1.0) -> Tensor:
    """Write the head's first dimensions into a slot."""
    found = torch.zeros(D_HEAD, WIDE)
    found[: slot.stop - slot.start, slot] = gain * torch.eye(slot.stop - slot.start)
    return found


def to_place(place: int) -> tuple[Tensor, Tensor]:
    """Queries and keys that look at one place from everywhere."""
    every = torch.zeros(PLACES, PLACES)
    every[:, 0] = 1.0
    only = torch.zeros(PLACES, PLACES)
    only[place, 0] = 1.0
    return reads(PLACE, every, SHARP), reads(PLACE, only, SHARP)


def to_previous() -> tuple[Tensor, Tensor]:
    """Queries and keys that look at the token before."""
    before = torch.zeros(PLACES, PLACES)
    for at in range(1, PLACES):
        before[at, at - 1] = 1.0
    return reads(PLACE, before, SHARP), reads(PLACE, None, SHARP)


def pair(clean: list[int], corrupt: list[int], answer: int, foil: int, group: str) -> Pair:
    """Two prompts of numbered words, and the words that are right after each."""

    def text(letters: list[int]) -> str:
        return " ".join(WORDS[letter] for letter in letters)

    return Pair(text(clean), text(corrupt), (WORDS[answer],), (WORDS[foil],), "planted", group)


def letters(n: int, many: int, seed: int) -> list[list[int]]:
    """Draw some different letters, n times."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(LETTERS, generator=generator)[:many].tolist() for _ in range(n)]


def neuron(
    model: GPT2LMHeadModel, layer: int, at: int, reads: dict[int, float], bias: float, steep: float = STEEP
) -> None:
    """Set one neuron to ``f(steep * (sum of reads + bias))``: steep enough, GELU's bend does not show."""
    mlp = model.transformer.h[layer].mlp
    with torch.no_grad():
        mlp.c_fc.weight[:, at] = 0.0
        for dim, weight in reads.items():
            mlp.c_fc.weight[dim, at] = steep * weight
        mlp.c_fc.weight[FOUND.stop - 1, at] = -steep * sum(reads.values())  # the norm's mean cancels
        mlp.c_fc.bias[at] = steep * bias
        mlp.c_proj.weight[at] = 0.0


def bit(model: GPT2LMHeadModel, at: int, place: int, outputs: dict[int, float]) -> None:
    """Let a head of layer 0 say whether the token at a place is ON: 1 or 0, written to some dimensions."""
    q, k = to_place(place)
    v, out = torch.zeros(WIDE, D_HEAD), torch.zeros(D_HEAD, WIDE)
    v[TOKEN.start + ON, 0], v[FOUND.stop - 1, 0] = 1.0, -1.0
    for dim, weight in outputs.items():
        out[0, dim] = weight
    head(model, 0, at, q, k, v, out)
