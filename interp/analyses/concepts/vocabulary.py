"""Concepts in a model's own terms: their tokens, their unembedding rows, the codebook made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float

from interp.errors import DataError
from interp.models.model import Model
from probes.vsa import MAP, Codebook

__all__ = ["codebook_of", "concept_tokens", "embeddings"]

PREFIX = "the"


def concept_tokens(model: Model, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Give the tokens of each name as they stand after another word.

    Raises:
        DataError: a name that adds no token.
    """
    before = list(model.tokenize([PREFIX]).token_ids[0])
    rows = model.tokenize([f"{PREFIX} {name}" for name in names]).token_ids
    found = [tuple(row[len(before) :]) for row in rows]
    empty = next((name for name, tokens in zip(names, found, strict=True) if not tokens), None)
    if empty is not None:
        raise DataError(
            f"the concept {empty!r} has no token in the vocabulary of {model.name!r}; leave it out."
        )
    return found


def embeddings(model: Model, tokens: Sequence[Sequence[int]]) -> Float[torch.Tensor, "concept d_model"]:
    """Give the mean row of the unembedding matrix over each concept's tokens, in float32 on the CPU."""
    head: Any = model.hf.get_output_embeddings()
    matrix = head.weight.detach()
    return torch.stack(
        [matrix[torch.tensor(ids, device=matrix.device)].float().mean(dim=0).cpu() for ids in tokens]
    )


def codebook_of(
    model: Model, names: Sequence[str], source: str, *, dimension: int = 4096, seed: int = 0
) -> Codebook:
    """Make the codebook of a protocol: ``embeddings`` of the model's unembedding, or ``random``."""
    if source == "random":
        return Codebook.random(MAP(dimension), names, seed=seed)
    rows = embeddings(model, concept_tokens(model, names))
    return Codebook.from_embeddings(MAP(dimension), names, rows, seed=seed)
