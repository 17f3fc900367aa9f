"""Prompts as records of subject, relation and answer: one state, several concepts, each in its role."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp.analyses.concepts.trial import concept_tokens, embeddings
from interp.models.model import Model
from probes.vsa import MAP, Codebook

__all__ = ["ROLES", "record_codebook", "record_of"]

ROLES = ("subject", "relation", "answer")


def record_of(subject: str, relation: str, answer: str) -> dict[str, str]:
    """The record of a fact; its relation is a name of its own, which no word is.

    Args:
        subject: what the fact is about.
        relation: its name.
        answer: the object.
    """
    return {"subject": subject, "relation": _named(relation), "answer": answer}


def _named(relation: str) -> str:
    return f"relation {relation}"


def record_codebook(
    model: Model, concepts: Sequence[str], relations: Sequence[str], *, dimension: int, seed: int
) -> Codebook:
    """Concepts by their unembedding, and relations, which are no words, by random directions as long.

    Args:
        model: whose unembedding.
        concepts: subjects and answers.
        relations: their names.
        dimension: of the hypervectors.
        seed: of the projection and of the relations.

    Raises:
        DataError: a concept that the model cannot say.
    """
    rows = embeddings(model, concept_tokens(model, concepts))
    centre = rows.mean(dim=0)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(relations), rows.shape[1], generator=generator)
    length = (rows - centre).norm(dim=1).mean() / drawn.norm(dim=1, keepdim=True)
    names = [*concepts, *map(_named, relations)]
    both = torch.cat([rows, drawn * length + centre])
    return Codebook.from_embeddings(MAP(dimension), names, both, seed=seed, centre=centre)
