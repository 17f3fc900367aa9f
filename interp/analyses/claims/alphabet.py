"""Claim: an alphabet of thousands of concepts that no label ever covered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.claims.evidence import Evidence, Setting
from interp.analyses.concepts.known import LEAST
from interp.analyses.concepts.trial import LATER, by_lens, concept_tokens, embeddings, preferred
from interp.models.readout import Readout
from probes.vsa import MAP, Codebook
from probes.vsa.algebra import unit

__all__ = ["alphabet"]

NEEDED = {part: n for part, n in LEAST.items() if part != "train"}
"""Prompts answered right of each part: nothing is trained on prompts."""


def alphabet(setting: Setting) -> Evidence:
    """Translate states into the model's final ones, project, and name the nearest of all concepts.

    The translator (``interp.lenses``) was fitted on text that the model wrote, without a label; the codebook
    is made from the model's own unembedding. A translated state is taken from the mean one of validation
    prompts, which says what all such prompts have in common.
    """
    facts = setting.facts((1, *setting.sizes[1:]), NEEDED)
    drawn = facts.drawn
    rows_of = {part: [row for row, item in enumerate(drawn.items) if item.part == part] for part in NEEDED}
    items, held = drawn.part("test"), drawn.part("validation")
    states = {part: facts.states[rows] for part, rows in rows_of.items()}
    names = tuple(drawn.concepts)
    tokens = concept_tokens(setting.model, names)
    rows = embeddings(setting.model, tokens, later=LATER)
    book = Codebook.from_embeddings(MAP(setting.dimension), names, rows, seed=setting.seed)
    assert book.projection is not None and book.embeddings is not None
    matrix, embedded = book.projection.matrix(book.algebra), book.embeddings
    readout, first, centre = (
        Readout.precise(setting.model.architecture),
        [ids[0] for ids in tokens],
        rows.mean(dim=0),
    )

    def named(
        scores: Float[torch.Tensor, "example concept"], gold: Sequence[str]
    ) -> Int[np.ndarray, " example"]:
        return _right([names[at] for at in scores.argmax(dim=1).tolist()], gold)

    def vectors(
        where: Setting, held: Float[torch.Tensor, "held d_model"], asked: Float[torch.Tensor, "test d_model"]
    ) -> Float[torch.Tensor, "test width"]:
        """Hypervectors of the test prompts."""
        return (where.final_states(asked) - where.final_states(held).mean(dim=0)) @ matrix

    def plain(part: str, gold: Sequence[str]) -> dict[str, Int[np.ndarray, " example"]]:
        """What readers without the algebra read right."""
        final, lens = setting.final_states(states[part]), by_lens(setting.model, states[part], names)
        said = preferred(readout, lambda some: some, final, first)
        return {
            "the translator and the model's head": _right([names[at] for at in said], gold),
            "the translator without the algebra": named(final @ embedded.T, gold),
            "the translator, centred": named(unit(final - centre) @ embedded.T, gold),
            "the logit lens": _right(lens, gold),
        }

    own = vectors(setting, states["validation"], states["test"])
    twin = setting.untrained
    untrained = vectors(twin, *(twin.states([item.text for item in part]) for part in (held, items)))
    other = torch.randperm(len(own), generator=torch.Generator().manual_seed(setting.seed))
    gold = [item.answer for item in items]
    known = plain("validation", [item.answer for item in held])
    return Evidence(
        f"the answer, among {len(names):,} concepts, without a label",
        named(book.similarities(own), gold),
        {
            "random weights": named(book.similarities(untrained), gold),
            "a permuted codebook": named(book.permuted(setting.seed).similarities(own), gold),
            "another prompt's state": named(book.similarities(own[other]), gold),
        },
        plain("test", gold),
        [item.fact for item in items],
        note=f"{facts.note}the translator was fitted on text of the model's own; a name of several tokens is "
        "mostly its first one",
        validation={name: float(one.mean()) for name, one in known.items()},
    )


def _right(read: Sequence[str], gold: Sequence[str]) -> Int[np.ndarray, " example"]:
    """1 where the name read is the right one."""
    return np.array([int(one == name) for one, name in zip(read, gold, strict=True)])
