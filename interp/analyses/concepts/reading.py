"""A probe for any prompt: trained on everything the headline protocol trains and chooses on."""

from __future__ import annotations

import torch

from interp.analyses.concepts.trial import Trial
from interp.analyses.concepts.vocabulary import codebook_of
from interp.models.model import Model
from interp.tasks.protocols import PROTOCOLS
from probes.hyperdimensional import HyperdimensionalProbe

__all__ = ["next_tokens", "trained_probe"]


def trained_probe(
    model: Model, layer: int, *, seed: int = 0, protocol: str = "concept-disjoint", dimension: int = 4096
) -> HyperdimensionalProbe:
    """Train the probe of a protocol at one layer, without testing it.

    Args:
        model: what is read.
        layer: the block whose ``resid_post`` is read, at the last token.
        seed: of the prompts, the codebook and the fit.
        protocol: a key of ``PROTOCOLS``.
        dimension: of the hypervectors.
    """
    row = PROTOCOLS[protocol]
    drawn = row.items(seed=seed)
    site = f"resid_post.{layer}"
    tokens = model.tokenize([item.text for item in drawn.items])
    states = model.capture(tokens, [site], "last", device="cpu", dtype=torch.float32)[site]
    codebook = codebook_of(model, drawn.concepts, row.codebook, dimension=dimension, seed=seed)
    return Trial(model, drawn, codebook, tokens.token_ids, "linear", seed).fit(states)


def next_tokens(model: Model, prompt: str, k: int) -> list[tuple[str, float]]:
    """Give the model's likeliest next tokens with their probabilities."""
    assert model.tokenizer is not None
    chances = torch.softmax(model.logits([prompt])[0], dim=0)
    values, tokens = chances.topk(min(k, len(chances)))
    texts = [str(model.tokenizer.decode([token])).strip() for token in tokens.tolist()]
    return list(zip(texts, values.tolist(), strict=True))
