"""What reads concepts in states and writes them: a Hyperdimensional Probe, or a translator with the head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float

from interp.analyses.concepts.trial import concept_tokens, embeddings
from interp.errors import ConfigError
from interp.lenses.translator import TranslatorLens
from interp.models.model import Model
from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.editing import ScoreMap, exchanged

__all__ = ["ProbeWriter", "TranslatorWriter", "Writer"]

States = Float[torch.Tensor, "example d_model"]


class Writer(ABC):
    """Read and write concepts at the states of one layer."""

    words: ClassVar[str]

    @abstractmethod
    def edit(self, states: States, pairs: Sequence[tuple[str, str]], dose: float) -> States:
        """The states after the least change that exchanges the scores of each pair of concepts."""

    @abstractmethod
    def read(self, states: States) -> list[str]:
        """The concept with the highest score in each state."""


@final
@dataclass(frozen=True, eq=False)
class ProbeWriter(Writer):
    """A Hyperdimensional Probe with a linear encoder.

    Attributes:
        probe: trained on bare concepts or on records.
        role: of records, what is read and written; None for bare concepts.
    """

    words: ClassVar[str] = "a Hyperdimensional Probe"
    probe: HyperdimensionalProbe
    role: str | None = None

    def edit(self, states: States, pairs: Sequence[tuple[str, str]], dose: float) -> States:
        """Exchange what the probe reads, in its role where it reads records."""
        return torch.as_tensor(self.probe.edit(states, pairs, role=self.role, dose=dose))

    def read(self, states: States) -> list[str]:
        """What the probe reads, abstention aside."""
        return [names[0] for names in self.probe.decode(states, role=self.role, k=1).names]


@final
@dataclass(frozen=True, eq=False)
class TranslatorWriter(Writer):
    """A translator: a concept's score is the product of the translated state with its unembedding row.

    A name of several tokens has the mean of their rows.

    Attributes:
        names: of the concepts.
        scores: how they are scored.
    """

    words: ClassVar[str] = "a translator"
    names: tuple[str, ...]
    scores: ScoreMap

    @classmethod
    def of(
        cls,
        model: Model,
        layer: int,
        names: Sequence[str],
        *,
        lens: TranslatorLens | None = None,
        seed: int = 0,
    ) -> TranslatorWriter:
        """Of a layer of a model, fitted where it was not yet.

        Args:
            model: whose states.
            layer: the block; not the last, whose states are the final ones.
            names: the concepts.
            lens: translators of this model; its own ones where left out.
            seed: of the text that the translator is fitted on.

        Raises:
            ConfigError: the last layer.
            DataError: a name that the model cannot say.
            SiteError: a lens that does not read the layer.
        """
        if layer == model.n_layers - 1:
            raise ConfigError(
                f"layer {layer} is the last of {model.name!r}, and no translator is fitted there; take one "
                "before it."
            )
        known = tuple(dict.fromkeys(names))
        lens = TranslatorLens.of(model, [layer], seed=seed) if lens is None else lens
        lens.check(layer)
        translator = lens.translators[layer]
        rows = embeddings(model, concept_tokens(model, known)).double()
        return cls(known, ScoreMap(rows @ translator.weight.T, rows @ translator.offset))

    def edit(self, states: States, pairs: Sequence[tuple[str, str]], dose: float) -> States:
        """Exchange the scores of the two names of each state."""
        return exchanged(self.scores, self.names, states, pairs, dose=dose).to(states.dtype)

    def read(self, states: States) -> list[str]:
        """The name whose row fits the translated state best."""
        return [self.names[at] for at in self.scores(states.double()).argmax(dim=1).tolist()]
