"""What every attention and FFN sublayer adds to the log-probability of an answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations import Activations
from interp.models.readout import Readout

__all__ = ["Sublayers", "sublayer_gains"]


@dataclass(frozen=True, eq=False)
class Sublayers:
    """Hold ``log p(w | base + output) - log p(w | base)`` of every sublayer, in nats.

    Attributes:
        attention: ``[layer item token]``; its base is the stream that enters the block.
        ffn: likewise; its base is that plus attention's output, or the same in a parallel block.
    """

    attention: Float[Tensor, "layer item n_tokens"]
    ffn: Float[Tensor, "layer item n_tokens"]


def sublayer_gains(
    readout: Readout, read: Activations, tokens: Int[Tensor, "item n_tokens"], *, parallel: bool
) -> Sublayers:
    """Measure the log-probability increase of whole sublayers (Yu and Ananiadou 2024, section 3.2).

    Args:
        readout: the model's last step.
        read: ``resid_pre``, ``attn_out`` and ``mlp_out`` of all layers at the last token.
        tokens: whose log-probability is read, for each item its own.
        parallel: whether attention and FFN read the same stream.
    """
    layers = sum(site.kind == "resid_pre" for site in read.sites)
    attention: list[Tensor] = []
    ffn: list[Tensor] = []
    for layer in range(layers):
        pre, attn, mlp = (
            read[f"{kind}.{layer}"].to(readout.dtype) for kind in ("resid_pre", "attn_out", "mlp_out")
        )
        base = pre if parallel else pre + attn
        before, middle, after = (
            readout.log_probabilities(states, tokens) for states in (pre, pre + attn, base + mlp)
        )
        attention.append(middle - before)
        ffn.append(after - (before if parallel else middle))
    return Sublayers(torch.stack(attention), torch.stack(ffn))
