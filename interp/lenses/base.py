"""What every lens is: it says which word a state of the stream stands for, layer by layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import SiteError
from interp.models.readout import NUMBERS

__all__ = ["Lens", "without_text"]


class Lens(ABC):
    """A reader of states: ``resid_post.l`` in, scores over the vocabulary out.

    After the last block every lens gives the model's own logits: there is nothing left to read ahead.

    Attributes:
        kind: the row of ``LENSES`` that made it.
        layers: the blocks whose ``resid_post`` it reads, in order.
    """

    kind: ClassVar[str]
    layers: tuple[int, ...]

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many words it tells apart."""

    @abstractmethod
    def logits(self, states: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch vocab"]:
        """The float32 logits that the lens gives for states after a block.

        Args:
            states: of ``resid_post.layer``.
            layer: which block.

        Raises:
            SiteError: the lens does not read this layer.
        """

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """What the lens is and how it was made, as JSON types: kind, layers, and what it was fitted on."""

    def check(self, layer: int) -> None:
        """Refuse a layer that the lens does not read.

        Raises:
            SiteError: names the layer, and those that it reads.
        """
        if layer not in self.layers:
            known = ", ".join(map(str, self.layers))
            raise SiteError(f"the {self.kind} lens reads no layer {layer}; its layers: {known}.")

    def parts(self, n: int) -> Iterator[slice]:
        """Cut ``n`` states into slices whose logits fit memory."""
        step = max(1, NUMBERS // self.vocab_size)
        yield from (slice(start, start + step) for start in range(0, n, step))

    @torch.no_grad()
    def log_probabilities(
        self, states: Float[Tensor, "example d_model"], layer: int
    ) -> Iterator[tuple[slice, Float[Tensor, "part vocab"]]]:
        """The log-probabilities (nats) of many states, part by part, so that they fit memory.

        Args:
            states: of ``resid_post.layer``.
            layer: which block.

        Yields:
            Which states, and their log-probabilities in float32.
        """
        for part in self.parts(len(states)):
            yield part, self.logits(states[part], layer).log_softmax(dim=-1)


def without_text(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a lens without the texts that a model read.

    Args:
        card: as :meth:`Lens.card` gives it.
    """
    return {key: one for key, one in card.items() if key != "target"}
