"""What a graph explains: tokens' logits, each less the mean of all logits, or an answer's less its foil's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, ModelError
from interp.models.model import Model
from interp.models.readout import finished

__all__ = ["Outputs"]


@dataclass(frozen=True, eq=False)
class Outputs:
    """Logits after the last token.

    Attributes:
        tokens: their ids.
        weights: ``[output]``, of each in the whole, 1 in all.
        probabilities: ``[output]``, the model's own.
        foil: the token whose logit is subtracted; None for the mean of all.
    """

    tokens: tuple[int, ...]
    weights: Float[Tensor, " output"]
    probabilities: Float[Tensor, " output"]
    foil: int | None = None

    @classmethod
    def likeliest(cls, model: Model, ids: list[int], *, most: int = 3, share: float = 0.8) -> Outputs:
        """The tokens that the model says next, by their probability.

        Args:
            model: what is run.
            ids: the prompt.
            most: of them.
            share: of the probability, after which no more are taken.
        """
        chances, tokens = _chances(model, ids).topk(most)
        before = chances.cumsum(0) - chances
        n = max(1, int((before < share).sum()))
        kept = chances[:n]
        return cls(tuple(tokens[:n].tolist()), kept / kept.sum(), kept)

    @classmethod
    def between(cls, model: Model, ids: list[int], answer: int, foil: int | None) -> Outputs:
        """An answer, less a foil where there is one.

        Args:
            model: what is run.
            ids: the prompt.
            answer: a token's id.
            foil: likewise.

        Raises:
            ConfigError: both are one token.
        """
        if answer == foil:
            raise ConfigError("answer and foil are one token to this model, so nothing lies between them.")
        return cls((answer,), torch.ones(1), _chances(model, ids)[[answer]], foil)

    def values(self, logits: Float[Tensor, "*row vocab"]) -> Float[Tensor, "*row output"]:
        """The outputs.

        Args:
            logits: after the last token.
        """
        logits = logits.float()
        less = logits.mean(dim=-1) if self.foil is None else logits[..., self.foil]
        return logits[..., list(self.tokens)] - less[..., None]

    def total(self, logits: Float[Tensor, "*row vocab"]) -> Float[Tensor, "*row"]:
        """Their weighted sum.

        Args:
            logits: after the last token.
        """
        return self.values(logits) @ self.weights.to(logits.device)


def _chances(model: Model, ids: list[int]) -> Tensor:
    raw = torch.tensor([1.0, 2.0], dtype=torch.float64) * 30
    out = finished(model.architecture, raw)
    if not torch.allclose(2 * out[0], out[1]):
        raise ModelError(
            f"{model.name!r} caps its logits, so that they are no sum of what its parts add. Use the search "
            "'attribution', or a model without final_logit_softcapping."
        )
    return model.logits([ids])[0].softmax(dim=-1).cpu()
