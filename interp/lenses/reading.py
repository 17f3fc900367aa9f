"""What a lens reads in states, beside what the model itself says in the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.lenses.base import Lens

__all__ = ["Cells", "read_states"]


@dataclass(frozen=True, eq=False)
class Cells:
    """What a lens reads in some states of one layer, beside the model's own output.

    Attributes:
        best: the likeliest token.
        probability: of that token.
        answer: the probability of the model's own likeliest token.
        rank: of that token; 1 is the likeliest.
        kl: divergence of the lens from the model's own output (nats).
    """

    best: Int[Tensor, " example"]
    probability: Float[Tensor, " example"]
    answer: Float[Tensor, " example"]
    rank: Int[Tensor, " example"]
    kl: Float[Tensor, " example"]


def read_states(
    lens: Lens, states: Float[Tensor, "example d_model"], layer: int, final: Float[Tensor, "example vocab"]
) -> Cells:
    """Compare what a lens says of states with what the model itself said in the end."""
    parts = []
    for part, scores in lens.log_probabilities(states, layer):
        own = final[part].to(scores.device).log_softmax(dim=-1)
        at = own.argmax(dim=-1, keepdim=True)
        value = scores.gather(1, at)
        top = scores.max(dim=-1)
        kl = (own.exp() * (own - scores)).sum(dim=-1)
        parts.append((top.indices, top.values.exp(), value[:, 0].exp(), (scores > value).sum(dim=-1) + 1, kl))
    return Cells(*(torch.cat(one) for one in zip(*parts, strict=True)))
