"""How much each FFN neuron alone raises the log-probability of an answer (Yu and Ananiadou 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.activations import Activations
from interp.errors import ModelError
from interp.models.model import Model
from interp.models.readout import Readout
from interp.models.tensor_views import Whole, head_weights
from interp.sites import Site

__all__ = ["SITES", "Writes", "first_order", "importances", "neuron_writes"]

SITES = ("resid_pre", "attn_out", "mlp_out", "mlp_act")
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}


@dataclass(frozen=True, eq=False)
class Writes:
    """Hold what the neurons of one layer add to the stream: ``scale * activation * column``.

    Attributes:
        base: the stream that enters the FFN, or the block where both sublayers read it.
        activations: of the neurons at the last token.
        columns: of the down projection.
        scale: the multiplier, and the post-norm with its divisor held at the run's own value.
    """

    base: Float[Tensor, "item d_model"]
    activations: Float[Tensor, "item neuron"]
    columns: Float[Tensor, "neuron d_model"]
    scale: Float[Tensor, "item d_model"]

    def added(self, items: Int[Tensor, " row"], neurons: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """Give the stream with one neuron's write on top of the base, for pairs of item and neuron."""
        write = self.activations[items, neurons, None] * self.columns[neurons] * self.scale[items]
        return self.base[items] + write


def neuron_writes(model: Model, readout: Readout, read: Activations) -> list[Writes]:
    """Take the neurons of every layer apart.

    Args:
        model: whose down projections.
        readout: for its precision.
        read: the sites ``SITES`` of all layers at the last token.

    Raises:
        ModelError: the neurons of a layer do not add up to what the FFN adds to the stream.
    """
    return [_layer(model, readout, read, layer) for layer in range(model.n_layers)]


def _layer(model: Model, readout: Readout, read: Activations, layer: int) -> Writes:
    pre, attn, out, act = (read[f"{kind}.{layer}"].to(readout.dtype) for kind in SITES)
    projection = model.architecture.locate(Site("mlp_act", layer)).module
    columns, bias = _columns(projection, act.shape[1], model.dtype)
    columns, bias = columns.to(act), bias.to(act)
    raw = act @ columns + bias
    factor = model.architecture.multiplier * _post_norm(model, layer, projection, raw)
    off = float((raw * factor - out).abs().max() / out.abs().max().clamp_min(1e-12))
    if not off <= TOLERANCE.get(model.dtype, 0.1):
        raise ModelError(
            f"the neurons of layer {layer} of {model.name!r} do not add up to mlp_out (relative error "
            f"{off:.1e}): an unknown norm stands between them and the stream, or the projection rounds its "
            "input. A quantized model in mode 'dense' has no such projection."
        )
    base = pre if model.architecture.parallel else pre + attn
    return Writes(base, act, columns, factor.expand_as(out))


def _columns(projection: nn.Module, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Give what the projection makes of each neuron alone, ``[neuron d_model]``, and of nothing."""
    plain = head_weights(projection, Whole())
    if plain is not None:
        weight, bias = plain
        return weight, weight.new_zeros(weight.shape[1]) if bias is None else bias
    device = next(iter([*projection.parameters(), *projection.buffers()])).device
    one_each = torch.eye(width, dtype=dtype, device=device)
    with torch.no_grad():
        nothing = projection.forward(one_each[:1] * 0)[0]
        found = torch.cat([projection.forward(rows) for rows in one_each.split(1024)])
    return found - nothing, nothing


def _post_norm(model: Model, layer: int, projection: nn.Module, raw: Tensor) -> Tensor:
    """Give the factor ``[item d_model]`` by which a norm behind the projection multiplies; ones without."""
    writer: Any = model.architecture.locate(Site("mlp_out", layer)).module
    if any(module is projection for module in writer.modules()):
        return torch.ones_like(raw)
    with torch.no_grad():
        gain = writer.forward(torch.full_like(raw[:1], 1e3, dtype=model.dtype)).to(raw)
        out = writer.forward(raw.to(model.dtype)).to(raw)
    moved = gain * raw
    return gain * (moved * out).sum(1, keepdim=True) / moved.square().sum(1, keepdim=True).clamp_min(1e-30)


def first_order(
    readout: Readout, writes: Sequence[Writes], tokens: Int[Tensor, " item"]
) -> Float[Tensor, "item neuron"]:
    """Estimate every neuron's increase by the slope of the log-probability at the base.

    Args:
        readout: the model's last step.
        writes: of all layers.
        tokens: the answers.

    Returns:
        ``[item, layer * neuron]``, in nats.
    """
    found: list[Tensor] = []
    for layer in writes:
        base = layer.base.detach().requires_grad_(True)
        slopes = torch.zeros_like(layer.base)
        for part in readout.parts(len(base)):
            with torch.enable_grad():
                total = readout.of_tokens(base[part], tokens[part, None]).sum()
            slopes[part] = torch.autograd.grad(total, base)[0][part]
        found.append(layer.activations * ((slopes * layer.scale) @ layer.columns.T))
    return torch.cat(found, dim=1)


def importances(
    readout: Readout,
    writes: Sequence[Writes],
    tokens: Int[Tensor, " item"],
    wanted: Bool[Tensor, "item neuron"],
) -> Float[Tensor, "item neuron"]:
    """Measure ``log p(w | base + v) - log p(w | base)`` of neurons, each by a softmax of its own.

    Args:
        readout: the model's last step.
        writes: of all layers.
        tokens: the answers.
        wanted: which neurons of which item, ``[item, layer * neuron]``.

    Returns:
        In nats; minus infinity where not wanted.
    """
    found: list[Tensor] = []
    width = writes[0].activations.shape[1]
    for layer, mask in zip(writes, wanted.split(width, dim=1), strict=True):
        items, neurons = mask.nonzero(as_tuple=True)
        before = readout.log_probabilities(layer.base, tokens[:, None])[:, 0]
        gained = torch.full(mask.shape, -torch.inf, dtype=layer.base.dtype, device=layer.base.device)
        for part in readout.parts(len(items)):
            states = layer.added(items[part], neurons[part])
            after = readout.log_probabilities(states, tokens[items[part], None])[:, 0]
            gained[items[part], neurons[part]] = after - before[items[part]]
        found.append(gained)
    return torch.cat(found, dim=1)
