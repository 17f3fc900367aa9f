"""Claim: an alphabet of thousands of concepts that no label ever covered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.claims.evidence import Evidence, Setting
from interp.analyses.concepts.trial import by_lens, concept_tokens, embeddings
from interp.tasks.protocols import PROTOCOLS
from probes.vsa import MAP, Codebook
from probes.vsa.algebra import unit

__all__ = ["alphabet"]


def alphabet(setting: Setting) -> Evidence:
    """Translate states into the model's final ones, project, and name the nearest of all concepts.

    The translator (``interp.lenses``) was fitted on text that the model wrote, without a label; the codebook
    is made from the model's own unembedding.
    """
    row = PROTOCOLS["concept-disjoint"]
    drawn = row.items(seed=setting.seed, sizes=(1, *setting.sizes[1:]))
    items, held = drawn.part("test"), drawn.part("validation")
    texts, gold = [item.text for item in items], [item.answer for item in items]
    names = tuple(drawn.concepts)
    tokens = concept_tokens(setting.model, names)
    rows = embeddings(setting.model, tokens)
    book = Codebook.from_embeddings(MAP(setting.dimension), names, rows, seed=setting.seed)
    states = setting.states(texts)
    final = setting.final_states(states)
    assert book.projection is not None and book.embeddings is not None
    matrix, embedded = book.projection.matrix(book.algebra), book.embeddings
    centre = rows.mean(dim=0)

    def named(
        scores: Float[torch.Tensor, "example concept"], gold: Sequence[str] = gold
    ) -> Int[np.ndarray, " example"]:
        read = scores.argmax(dim=1).tolist()
        return np.array([int(names[at] == name) for at, name in zip(read, gold, strict=True)])

    def plain(
        states: Float[torch.Tensor, "example d_model"], gold: Sequence[str]
    ) -> dict[str, Int[np.ndarray, " example"]]:
        """What readers without the algebra read right."""
        final, lens = setting.final_states(states), by_lens(setting.model, states, names)
        return {
            "the translator without the algebra": named(final @ embedded.T, gold),
            "the translator, centred": named(unit(final - centre) @ embedded.T, gold),
            "the logit lens": np.array([int(a == b) for a, b in zip(lens, gold, strict=True)]),
        }

    vectors, untrained = (
        final @ matrix,
        setting.untrained.final_states(setting.untrained.states(texts)) @ matrix,
    )
    other = torch.randperm(len(final), generator=torch.Generator().manual_seed(setting.seed))
    known = plain(setting.states([item.text for item in held]), [item.answer for item in held])
    return Evidence(
        f"the answer, among {len(names):,} concepts, without a label",
        named(book.similarities(vectors)),
        {
            "random weights": named(book.similarities(untrained)),
            "a permuted codebook": named(book.permuted(setting.seed).similarities(vectors)),
            "another prompt's state": named(book.similarities(vectors[other])),
        },
        plain(states, gold),
        [item.fact for item in items],
        note="the translator was fitted on text of the model's own; names of several tokens are the mean of "
        "their rows",
        validation={name: float(right.mean()) for name, right in known.items()},
    )
