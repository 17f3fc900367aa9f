"""Dictionaries of tiny models: random ones of every activation, and one whose codes are known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.features import Dictionary
from interp.features.activations import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair
from interp.sites import Site
from tests.planted import FIRST, _llama
from tests.tiny import WORDS, tokenizer

__all__ = ["ACTIVATIONS", "PlantedDictionary", "planted_dictionary", "random_dictionary", "transcoder"]


def activations(n: int, generator: torch.Generator) -> dict[str, Activation]:
    """One of each, with random parameters."""

    def drawn() -> Tensor:
        return torch.randn(n, generator=generator)

    return {
        "relu": ReLU(),
        "jumprelu": JumpReLU(drawn().abs()),
        "jumprelu-signed": JumpReLU(drawn(), signed=True),
        "topk": TopK(5),
        "topk-signed": TopK(5, signed=True),
        "batch-topk": BatchTopK(torch.full((n,), 0.7)),
        "gated": Gated(drawn(), drawn().exp(), drawn()),
        "topk-by-size": TopK(5, signed=True, by_size=True),
    }


ACTIVATIONS = tuple(activations(1, torch.Generator()))


def random_dictionary(
    width: int = 32,
    n: int = 48,
    *,
    site: str = "resid_post.1",
    activation: str = "relu",
    seed: int = 0,
    norm: str = "none",
) -> Dictionary:
    """An autoencoder with random weights, that subtracts its decoder's bias."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    bias = drawn(width) * 0.1
    return Dictionary(
        name=f"random-{activation}",
        layout="saelens",
        site_in=Site.parse(site),
        site_out=Site.parse(site),
        encoder=drawn(n, width) / width**0.5,
        encoder_bias=drawn(n) * 0.1,
        decoder=drawn(n, width) / width**0.5,
        decoder_bias=bias,
        activation=activations(n, generator)[activation],
        shift=bias,
        norm=norm,
    )


def transcoder(
    width: int = 32, n: int = 48, *, layer: int = 1, read: str = "norm", seed: int = 0
) -> Dictionary:
    """A random transcoder of an MLP, with a skip connection."""
    plain = random_dictionary(width, n, seed=seed)
    return Dictionary(
        name="transcoder",
        layout="sparsify",
        site_in=Site("resid_mid", layer),
        site_out=Site("mlp_out", layer),
        encoder=plain.encoder,
        encoder_bias=plain.encoder_bias,
        decoder=plain.decoder,
        decoder_bias=plain.decoder_bias,
        activation=ReLU(),
        read=read,
        skip=torch.randn(width, width, generator=torch.Generator().manual_seed(seed)) * 0.1,
    )


@dataclass(frozen=True, eq=False)
class PlantedDictionary:
    """A model whose stream after block 0 is a sparse sum of known directions, and the dictionary of them.

    Attributes:
        model: without its dictionary.
        dictionary: of ``resid_post.0``: feature i is 1 at the token of word i, and 0 elsewhere.
        words: word i writes direction i.
        query: the last word of a prompt; its own direction is the last feature.
    """

    model: Model
    dictionary: Dictionary
    words: tuple[str, ...]
    query: str


def planted_pairs(found: PlantedDictionary) -> list[Pair]:
    """Prompts ``w_a w_b query`` in which a decides the answer, beside those of another answer."""
    return [
        Pair(
            f"{found.words[a]} {found.words[9]} {found.query}",
            f"{found.words[b]} {found.words[9]} {found.query}",
            (WORDS[36 + a // 3],),
            (WORDS[36 + b // 3],),
            "word",
            f"{a}:{b}",
        )
        for a in range(9)
        for b in range(9)
        if a // 3 != b // 3
    ]


def planted_dictionary(seed: int = 0) -> PlantedDictionary:
    """Plant 12 features in 32 dimensions, which overlap (cosines up to 0.5), and a head that reads four.

    Block 0 writes nothing; the embedding of word i is direction i. Attention of block 1 averages the stream
    onto the last token, and the head of answer j reads what words 3j, 3j+1 and 3j+2 wrote.
    """
    width, n = 32, 12
    generator = torch.Generator().manual_seed(seed)
    hf = _llama(width)
    directions = torch.randn(n, width, generator=generator)
    directions = directions / directions.norm(dim=1, keepdim=True)
    readers = torch.linalg.pinv(directions).T  # reads feature i alone out of any sum of directions
    with torch.no_grad():
        embedding = torch.zeros(64, width)
        embedding[FIRST : FIRST + n] = directions
        hf.model.embed_tokens.weight.copy_(embedding)
        attention = hf.model.layers[1].self_attn
        attention.v_proj.weight.copy_(torch.eye(width))
        attention.o_proj.weight.copy_(torch.eye(width))
        hf.lm_head.weight.zero_()
        for answer in range(4):
            hf.lm_head.weight[40 + answer] = readers[3 * answer : 3 * answer + 3].sum(dim=0)
    site = Site("resid_post", 0)
    dictionary = Dictionary(
        name="planted",
        layout="saelens",
        site_in=site,
        site_out=site,
        encoder=readers.contiguous(),
        encoder_bias=torch.zeros(n),
        decoder=directions.contiguous(),
        decoder_bias=torch.zeros(width),
        activation=JumpReLU(torch.full((n,), 0.5)),
    )
    model = load(hf, tokenizer=tokenizer())
    return PlantedDictionary(model, dictionary, tuple(WORDS[:n]), WORDS[n - 1])
