"""Neuron attribution of one model, and how it compares with that of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor, nn

from interp.activations import Activations
from interp.errors import ModelError
from interp.mediation.rankings import jaccard
from interp.models.model import Model
from interp.models.readout import Readout
from interp.models.tensor_views import Whole, head_weights
from interp.results.findings import Finding
from interp.results.shapes import Cell
from interp.sites import Site

__all__ = [
    "SITES",
    "Attribution",
    "attribute",
    "first_order",
    "importances",
    "neuron_counts",
    "neuron_findings",
    "neuron_writes",
    "top_by_layer",
]

SITES = ("resid_pre", "attn_out", "mlp_out", "mlp_act")
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}


@dataclass(frozen=True, eq=False)
class Writes:
    """What the neurons of one layer add to the stream: ``scale * activation * column``.

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
        """The stream with one neuron's write on top of the base, for pairs of item and neuron."""
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
    columns, bias = _columns(projection, act.shape[1], model.dtype, act.device)
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


def _columns(
    projection: nn.Module, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What the projection makes of each neuron alone, ``[neuron d_model]``, and of nothing."""
    plain = head_weights(projection, Whole())
    if plain is not None:
        weight, bias = plain
        return weight, weight.new_zeros(weight.shape[1]) if bias is None else bias
    one_each = torch.eye(width, dtype=dtype, device=device)
    with torch.no_grad():
        nothing = projection.forward(one_each[:1] * 0)[0]
        found = torch.cat([projection.forward(rows) for rows in one_each.split(1024)])
    return found - nothing, nothing


def _post_norm(model: Model, layer: int, projection: nn.Module, raw: Tensor) -> Tensor:
    """The factor ``[item d_model]`` by which a norm behind the projection multiplies; ones without."""
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


MOST_WORK = 2e11
"""Multiplications up to which every neuron gets a softmax of its own."""
CANDIDATES = 2
"""How many times the top neurons are measured, chosen by first order, where not all can be."""
Threshold = str


@dataclass(frozen=True, eq=False)
class Attribution:
    """The importances of FFN neurons, prompt by prompt.

    Attributes:
        values: ``[item, layer * neuron]`` in nats; minus infinity where not measured.
        top: per item the most important neurons, the best first.
        k: how many.
        exact: whether every neuron was measured.
    """

    values: Float[np.ndarray, "item neuron"]
    top: Int[np.ndarray, "item k"]
    k: int
    exact: bool

    def tau(self, threshold: Threshold) -> Float[np.ndarray, " item"]:
        """The threshold of each item: its k-th best value, or one that leaves k per item on average."""
        if threshold == "per-prompt":
            return np.take_along_axis(self.values, self.top[:, -1:], axis=1)[:, 0]
        best = np.sort(self.values, axis=None)[::-1]
        return np.full(len(self.values), best[self.k * len(self.values) - 1])


def attribute(
    readout: Readout,
    writes: Sequence[Writes],
    tokens: Int[Tensor, " item"],
    k: int,
    *,
    reference: Attribution | None,
) -> Attribution:
    """Measure the neurons of all layers, or where that is too much those that first order puts forward.

    Args:
        readout: the model's last step.
        writes: of all layers.
        tokens: the answers.
        k: how many neurons count as the top.
        reference: of another model, whose top neurons are measured in any case.
    """
    n = len(tokens)
    total = sum(layer.activations.shape[1] for layer in writes)
    exact = float(n) * total * readout.vocab_size * writes[0].base.shape[1] <= MOST_WORK
    wanted = torch.full((n, total), exact)
    if not exact:
        best = first_order(readout, writes, tokens).topk(min(CANDIDATES * k, total)).indices.cpu()
        wanted.scatter_(1, best, True)
        if reference is not None:
            wanted.scatter_(1, torch.from_numpy(reference.top), True)
    values = importances(readout, writes, tokens, wanted.to(tokens.device)).double().cpu().numpy()
    top = np.argsort(-values, axis=1, kind="stable")[:, :k]
    if not exact:  # the control asks each item about the top neurons of the one whose partner it is
        asked = torch.from_numpy(top if reference is None else reference.top)
        more = torch.zeros_like(wanted).scatter_(1, asked[np.argsort(partners(n))], True) & ~wanted
        found = importances(readout, writes, tokens, more.to(tokens.device)).double().cpu().numpy()
        values = np.where(more.numpy(), found, values)
    return Attribution(values, top, k, exact)


def partners(n: int) -> list[int]:
    """For each item another one, half the list away."""
    return [(row + max(1, n // 2)) % n for row in range(n)]


def neuron_findings(
    own: Attribution, reference: Attribution, groups: Sequence[str], threshold: Threshold
) -> tuple[Finding, ...]:
    """Compare two attributions item by item; of one with itself all agree.

    Args:
        own: of the model at hand.
        reference: of the reference.
        groups: of the items.
        threshold: ``per-prompt`` or ``pooled``.
    """
    k, total = own.k, own.values.shape[1]
    above = (own.values >= reference.tau(threshold)[:, None]).sum(axis=1)
    shared = [jaccard(set(a), set(b)) for a, b in zip(own.top.tolist(), reference.top.tolist(), strict=True)]
    ranks = [_rank_correlation(own, reference, row, row) for row in range(len(groups))]
    strangers = [_rank_correlation(own, reference, row, at) for row, at in enumerate(partners(len(groups)))]
    where = "of each prompt" if threshold == "per-prompt" else "on average over the prompts"
    return (
        Finding(
            "neurons above the threshold",
            above.astype(np.float64),
            tuple(groups),
            unit="neurons",
            about=f"FFN neurons that raise the answer's log-probability by at least what the reference's "
            f"neuron number {k} {where} does; a count rises with noise too: read it with the overlap",
        ),
        Finding(
            f"top {k} neurons shared",
            np.array(shared),
            tuple(groups),
            k / (2 * total - k),
            "Jaccard",
            about="overlap of the most important neurons with the reference's; by chance as for random sets",
        ),
        Finding(
            "rank correlation of neurons",
            np.array(ranks),
            tuple(groups),
            np.array(strangers) if len(groups) > 1 else 0.0,
            "Spearman",
            about=f"importances of the reference's top {k} neurons, here and there; the control asks another "
            "prompt about the same neurons",
        ),
    )


def top_by_layer(own: Attribution, width: int) -> list[float]:
    """The share of the top neurons in each layer of so many neurons."""
    layers = np.bincount(own.top.ravel() // width, minlength=own.values.shape[1] // width)
    return (layers / own.top.size).tolist()


def neuron_counts(own: Attribution, threshold: Threshold) -> dict[str, Cell]:
    """What was measured of neurons."""
    return {
        "top": own.k,
        "neurons": own.values.shape[1],
        "threshold": threshold,
        "exact": own.exact,
        "measured neurons per prompt": float(np.isfinite(own.values).sum(axis=1).mean()),
    }


def _rank_correlation(own: Attribution, reference: Attribution, row: int, asked: int) -> float:
    """Correlate the reference's top neurons of one item with what they do for the item ``asked`` here."""
    at = reference.top[row]
    there, here = reference.values[row, at], own.values[asked, at]
    if len(at) < 2 or np.ptp(there) == 0 or np.ptp(here) == 0:
        return float(np.array_equal(there, here))
    found: Any = stats.spearmanr(there, here)
    return float(found.statistic)
