"""The logit lens: the final norm and head, applied to the state as it is (nostalgebraist, 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.lenses.base import Lens
from interp.models.model import Model
from interp.models.readout import Readout

__all__ = ["LogitLens"]


@dataclass(frozen=True, eq=False)
class LogitLens(Lens):
    """What the model would say if the blocks after a layer were left out.

    Attributes:
        readout: the model's final norm and head.
        layers: the blocks it reads; -1 stands for the embedding.
    """

    kind: ClassVar[str] = "logit"

    readout: Readout
    layers: tuple[int, ...]

    @classmethod
    def of(
        cls,
        model: Model,
        layers: Sequence[int] | None = None,
        texts: Sequence[str] | None = None,
        seed: int = 0,
    ) -> LogitLens:
        """The logit lens of a model; nothing is fitted.

        Args:
            model: whose norm and head.
            layers: the blocks to read; None for all.
            texts: not used: every row of ``LENSES`` is made with the same arguments.
            seed: likewise.

        Raises:
            SiteError: the model's final norm is unknown.
        """
        chosen = range(model.n_layers) if layers is None else layers
        return cls(Readout.of(model.architecture), tuple(chosen))

    @property
    def vocab_size(self) -> int:
        """How many tokens the model tells apart."""
        return self.readout.vocab_size

    @torch.no_grad()
    def logits(self, states: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch vocab"]:
        """The model's own logits for the state, as if no block came after this one.

        Args:
            states: of ``resid_post.layer``.
            layer: which block; the numbers do not depend on it.

        Raises:
            SiteError: the lens does not read this layer.
        """
        self.check(layer)
        return self.readout.logits(states).float()

    def card(self) -> dict[str, Any]:
        """Its kind and layers."""
        return {"kind": self.kind, "layers": list(self.layers), "fitted_on": None}
