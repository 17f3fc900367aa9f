"""What readers are made of: a model, prompts that they may learn from, and one pass of it over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float

from interp.analyses.concepts.one_pass import OnePass, one_pass
from interp.analyses.concepts.trial import Trial, concept_tokens, embedded, embeddings, trial_of
from interp.models.model import Model
from interp.models.readout import Readout
from interp.tasks.protocols import ProtocolItems

__all__ = ["Material"]


@dataclass(frozen=True, eq=False)
class Material:
    """What a ready reader is made of: a model, and true statements that it may learn from.

    Attributes:
        model: whose states it will read; never the edited twin.
        drawn: prompts; those for training and validation may be learned from.
        layers: the blocks it shall read.
        codebook: ``embeddings`` (of the model's unembedding) or ``random``, for hypervectors.
        seed: of every fit.
        batch_size: prompts per pass.
        passed: the pass over the prompts, where it was made already.
        subjects: of prompts that are not among these, whom they ask about.
    """

    model: Model
    drawn: ProtocolItems
    layers: tuple[int, ...]
    codebook: str = "embeddings"
    seed: int = 0
    batch_size: str | int = "auto"
    passed: OnePass | None = None
    subjects: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def token_ids(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of each prompt."""
        found = self.model.tokenize([item.text for item in self.drawn.items]).token_ids
        return tuple(tuple(ids) for ids in found)

    @cached_property
    def seen(self) -> OnePass:
        """The states of every prompt, from one pass."""
        if self.passed is not None:
            return self.passed
        given = (self.model, self.drawn.items, self.token_ids, self.layers)
        return one_pass(*given, batch_size=self.batch_size)

    @cached_property
    def readout(self) -> Readout:
        """The model's final norm and head."""
        return Readout.precise(self.model.architecture)

    @cached_property
    def names(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of each concept."""
        return tuple(concept_tokens(self.model, self.drawn.concepts))

    @property
    def first(self) -> list[int]:
        """The first token of each concept."""
        return [ids[0] for ids in self.names]

    @cached_property
    def rows(self) -> Float[torch.Tensor, "concept d_model"]:
        """Of the unembedding, the mean over each concept's tokens."""
        return embeddings(self.model, self.names)

    @cached_property
    def answers(self) -> list[str]:
        """Of each prompt."""
        return [item.answer for item in self.drawn.items]

    @cached_property
    def asked(self) -> Mapping[str, str]:
        """Whom each prompt asks about."""
        return {item.text: item.subject for item in self.drawn.items} | dict(self.subjects)

    def part(self, name: str) -> list[int]:
        """The rows of a part."""
        return [row for row, item in enumerate(self.drawn.items) if item.part == name]

    def trial(self, encoder: str = "auto") -> Trial:
        """The fits of a Hyperdimensional Probe on these prompts."""
        given = (self.model, self.drawn, self.codebook, self.token_ids, encoder)
        found = trial_of(*given, seed=self.seed)
        return replace(found, seen=self.seen, finals=self.seen.finals)

    def subject_rows(self, prompts: Sequence[str]) -> Float[torch.Tensor, "example d_model"]:
        """The mean row of the model's input embedding over the tokens of each prompt's subject."""
        return embedded(self.model, [self.asked[text] for text in prompts])
