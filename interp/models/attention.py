"""What ties pattern, values, keys and queries together: how attention mixes, and whose scores they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from interp.models import families
from interp.models.architecture import Architecture, Location, out_features
from interp.models.hooks import Writer, evaluating
from interp.models.probe_pass import read_once
from interp.models.rounding import relative, tolerance
from interp.models.tensor_views import Pattern as Probabilities
from interp.models.tensor_views import Whole
from interp.sites import Site

__all__ = ["attention_error", "mixing_errors", "score_fault"]

Heads = Float[Tensor, "batch pos head d_head"]
Values = Float[Tensor, "batch pos group d_head"]
Pattern = Float[Tensor, "batch pos head key"]


def attention_error(pattern: Tensor, z: Tensor, v: Tensor) -> float:
    """How far ``pattern v`` is from ``z``; heads share values by group."""
    if v.shape[-1] != z.shape[-1] or pattern.shape[-2] != z.shape[-2] or z.shape[-2] % v.shape[-2]:
        return float("inf")
    return relative(_mixed(pattern, v), z)


def _mixed(pattern: Pattern, v: Values) -> Heads:
    """The values mixed by the pattern."""
    values = v.repeat_interleave(pattern.shape[-2] // v.shape[-2], dim=-2)
    return torch.einsum("bqhk,bkhd->bqhd", pattern.float(), values.float())


def mixing_errors(architecture: Architecture, read: Mapping[Site, Tensor]) -> dict[int, float]:
    """How far every layer's ``z`` is from its values mixed by its pattern, where all three were read.

    Values may be clipped or normed before (``v`` is what the projection gives), and the mix may be multiplied
    by a gate after, as long as the modules of the attention say so exactly.
    """
    clip = float(getattr(architecture.hf.config.get_text_config(), "clip_qkv", None) or 0.0)
    errors = {}
    for layer in architecture.anatomy.layers("pattern"):
        sites = [Site(kind, layer) for kind in ("pattern", "z", "v")]
        if not all(site in read for site in sites):
            continue
        pattern, z, v = (read[site] for site in sites)
        errors[layer] = attention_error(pattern, z, v.clamp(-clip, clip) if clip else v)
        if tolerance(architecture.hf.dtype) < errors[layer] < float("inf"):
            errors[layer] = min(errors[layer], _otherwise(architecture, layer, pattern, z, v))
    return errors


def _otherwise(architecture: Architecture, layer: int, pattern: Pattern, z: Heads, v: Values) -> float:
    """The least error with normed values, and with a gate behind the mix."""
    attention = architecture.module(layer, "attention", "pattern")
    norms = [getattr(attention, name, None) for name in families.V_NORM_NAMES]
    with torch.no_grad(), evaluating(architecture.modules):
        values = [v, *(norm.forward(v) for norm in norms if isinstance(norm, nn.Module))]
    gates = [torch.ones_like(z), *_gates(architecture, layer, attention, z)]
    return min(relative(gate * _mixed(pattern, one), z) for one, gate in product(values, gates))


def _gates(architecture: Architecture, layer: int, attention: nn.Module, z: Heads) -> Iterator[Tensor]:
    """What may multiply the mix: functions of a gate's own projection, or of the second half of a query's."""
    heads, width = z.shape[-2], z.shape[-1]
    asked = {name: getattr(attention, name, None) for name in families.GATE_NAMES}
    places = {
        Site("attn_out", at): Location(part, "out", Whole())
        for at, part in enumerate(asked.values())
        if isinstance(part, nn.Module) and out_features(part) in (heads, heads * width)
    }
    query = architecture.part(layer, "q")
    if query is not None and out_features(query) == 2 * heads * width:
        places[Site("q", layer)] = Location(query, "out", Whole())
    found, _ = read_once(architecture, places, eager=True) if places else ({}, None)
    for site, tensor in found.items():
        cut = tensor.unflatten(-1, (heads, -1)).float()
        logits = cut[..., width:] if site.kind == "q" else cut
        yield torch.sigmoid(logits)
        yield softplus(logits)


def score_fault(architecture: Architecture, kind: str) -> str:
    """Why a site holds no queries, or no keys, of its layer's pattern; "" where it does.

    One token's query decides that token's row of the pattern, and its key its column, in the heads of its
    group, and nothing else: the odds of the other keys stay. So no norm and no rotation need be known. One
    layer of each row is tried.

    Args:
        architecture: with eager attention patterns on offer.
        kind: ``q`` or ``k``.
    """
    tried = []
    for layer in architecture.anatomy.layers(kind):
        row = architecture.family.row(layer)
        size = architecture.anatomy.heads[layer], architecture.anatomy.kv_heads[layer]
        if (row, size) in tried or architecture.part(layer, "attention") is None:
            continue
        tried.append((row, size))
        off = _misplaced(architecture, kind, layer)
        if off > 10 * tolerance(architecture.hf.dtype):
            what = "query" if kind == "q" else "key"
            wrong = "no score at all" if off == float("inf") else f"scores that are not its own ({off:.1e})"
            return f"another {what} in layer {layer} changes {wrong}."
    return ""


def _misplaced(architecture: Architecture, kind: str, layer: int) -> float:
    """By how much another query or key changes probabilities that are not its own; infinite where none."""
    site, pattern = Site(kind, layer, 0), Site("pattern", layer)
    at = 1

    def edit(current: Tensor) -> Tensor:
        new = current.clone()
        new[:, at] = new[:, at].flip(-1)  # of the same size, for norms over all heads (OLMo 2)
        return new

    attention = architecture.module(layer, "attention", kind)
    places = {pattern: Location(attention, "out", Probabilities(), slot=1)}
    writer = Writer(site, architecture.locate(site, write=True), edit)
    before = read_once(architecture, places, eager=True)[0][pattern].double()
    after = read_once(architecture, places, writers=[writer], eager=True)[0][pattern].double()
    count = architecture.anatomy.heads[layer]
    own = 1 if kind == "q" else count // architecture.anatomy.kv_heads[layer]
    if torch.equal(before[:, :, :own], after[:, :, :own]):
        return float("inf")
    wrong = [(before - after)[:, :, own:]]  # heads of other groups
    if kind == "q":
        wrong += [(before - after)[:, :at], (before - after)[:, at + 1 :]]
    else:  # the other keys keep their odds
        first, second = (_without(one[:, :, :own], at) for one in (before, after))
        wrong.append(first - second)
    return max(float(one.abs().max()) if one.numel() else 0.0 for one in wrong)


def _without(pattern: Float[Tensor, "batch pos head key"], key: int) -> Float[Tensor, "batch pos head key"]:
    """The probabilities of all other keys, as shares of their sum; nothing where they have none."""
    others = pattern.index_fill(-1, torch.tensor([key], device=pattern.device), 0.0)
    return others / others.sum(-1, keepdim=True).clamp_min(1e-6)
