"""Mixtures of experts: find router, experts and shared expert, and check that they make up the MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from interp.models import families
from interp.models.architecture import Architecture, Location, out_features
from interp.models.expert_views import Experts, rerouted
from interp.models.families import Family, overridden
from interp.models.forward import forward
from interp.models.hooks import Writer, evaluating
from interp.models.probe_pass import probe_batch, read_once
from interp.models.rounding import relative, tolerance
from interp.sites import Site

__all__ = ["contains", "expert_sums", "mixed", "named", "routing_fault", "with_experts"]

_Call = tuple[Sequence[Any], Any]


def named(block: nn.Module, name: str) -> str:
    """Find a part of a block by its own name, in the block or in one of its children; "" for none."""
    paths = [path for path, _ in block.named_modules() if path.rpartition(".")[2] == name]
    return next((path for depth in (0, 1) for path in paths if path.count(".") == depth), "")


def contains(outer: nn.Module, inner: nn.Module, block: nn.Module) -> bool:
    """Tell whether a contribution is read at a part or around it, rather than at a post-norm after it.

    Args:
        outer: where it is read.
        inner: the part that makes it.
        block: the block of both.
    """
    return outer is not block and any(module is inner for module in outer.modules())


def mixed(architecture: Architecture) -> bool:
    """Tell by the names of classes whether any block holds experts."""
    names = (type(part).__name__.lower() for part in architecture.blocks.modules())
    return any("expert" in name or ("moe" in name and name.endswith(("moe", "block"))) for name in names)


def with_experts(
    architecture: Architecture, groups: Sequence[Sequence[int]], known: Mapping[str, Any]
) -> list[Family]:
    """Complete the rows of blocks that hold routed experts.

    Args:
        architecture: with the rows found so far, their ``mlp_out`` among them.
        groups: layers of one row each.
        known: fields that the user has decided.

    Returns:
        One row per block.
    """
    chosen = [architecture.family.row(layer) for layer in range(architecture.n_layers)]
    for layers in groups:
        layer = layers[0]
        row = overridden(_parts(architecture.blocks[layer], chosen[layer]), known)
        if row.experts:
            row = _with_router(_having(architecture, chosen, layer, row), layer, known)
            row = _with_multiplier(architecture, chosen, layer, row, known)
        for one in layers:
            chosen[one] = row
    return chosen


def _parts(block: nn.Module, row: Family) -> Family:
    """Propose where experts, router and shared expert are, by names."""
    experts = next((path for name in families.EXPERTS_NAMES if (path := named(block, name))), "")
    if not experts:
        return row
    taken = signature(type(block.get_submodule(experts)).forward).parameters
    if len(taken) not in (2, 4):  # the tokens alone, or with the experts chosen and their weights
        return row
    beside = experts.rpartition(".")[0]
    router = next((path for name in families.ROUTER_NAMES if (path := _sibling(block, beside, name))), "")
    shared = next((path for name in families.SHARED_NAMES if (path := named(block, name))), "")
    gate = next((path for name in families.SHARED_GATE_NAMES if (path := named(block, name))), "")
    layout = "each" if len(taken) == 2 else "routed"
    return replace(
        row, experts=experts, expert_layout=layout, router=router, shared_expert=shared, shared_gate=gate
    )


def _sibling(block: nn.Module, parent: str, name: str) -> str:
    path = f"{parent}.{name}" if parent else name
    return path if path in dict(block.named_modules()) else ""


def _having(architecture: Architecture, rows: Sequence[Family], layer: int, row: Family) -> Architecture:
    """The same model with another row for one block, whose experts alone are looked at."""
    bare = [replace(one, experts="") for one in rows]
    bare[layer] = row
    return replace(architecture, family=replace(architecture.family, rows=tuple(bare)))


def _with_router(architecture: Architecture, layer: int, known: Mapping[str, Any]) -> Family:
    """Find the module that gives the logits, and where in its output they are."""
    row = architecture.family.row(layer)
    router = architecture.part(layer, "router")
    if router is None or "router" in known:
        return row
    count = architecture.anatomy.experts[layer]
    inner = [(path, one) for path, one in router.named_modules() if path and out_features(one) == count]
    calls = _calls(architecture, {"": router, **dict(inner)})
    if once := [path for path, _ in inner if len(calls[path]) == 1]:
        return replace(row, router=f"{row.router}.{once[0]}")
    [(args, output), *more] = calls[""] or [((), None)]
    if isinstance(output, Tensor) and not more:
        return row
    given = output if isinstance(output, tuple) and not more else ()
    slot = next((at for at in range(len(given)) if _decides(router, args, given, at, count)), None)
    return replace(row, router="") if slot is None else replace(row, router_slot=slot)


def _decides(router: nn.Module, args: Sequence[Any], output: tuple[Any, ...], slot: int, count: int) -> bool:
    """Tell whether one element of a router's output is what the others are computed from."""
    logits = output[slot]
    if not isinstance(logits, Tensor) or logits.shape[-1] != count or not logits.is_floating_point():
        return False
    try:
        with torch.no_grad():
            found = rerouted(router, args, slot, -logits.flip(-1))
    except (RuntimeError, TypeError, ValueError, LookupError, StopIteration):
        return False
    others = [at for at, one in enumerate(output) if at != slot and isinstance(one, Tensor)]
    return any(not torch.equal(found[at], output[at]) for at in others)


def _calls(architecture: Architecture, parts: Mapping[str, nn.Module]) -> dict[str, list[_Call]]:
    """Record what some modules are called with and what they give, in one pass."""
    found: dict[str, list[_Call]] = {path: [] for path in parts}
    with ExitStack() as stack:
        for path, part in parts.items():
            stack.callback(part.register_forward_hook(partial(_keep, found[path])).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(architecture.modules))
        forward(architecture, probe_batch(architecture), "last")
    return found


def _keep(calls: list[_Call], module: nn.Module, args: Sequence[Any], output: Any) -> None:
    calls.append((args, output))


def _with_multiplier(
    architecture: Architecture, rows: Sequence[Family], layer: int, row: Family, known: Mapping[str, Any]
) -> Family:
    """Find the factor on the experts' sum: the first with which it makes up ``mlp_out``."""
    if "expert_multiplier" in known or not row.mlp_out:
        return row
    for name in ("", *families.EXPERT_MULTIPLIER_NAMES):
        tried = replace(row, expert_multiplier=name)
        try:
            error = expert_sums(_having(architecture, rows, layer, tried))[layer]
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, StopIteration):
            continue
        if error <= tolerance(architecture.hf.dtype):
            return tried
    return row


def expert_sums(architecture: Architecture) -> dict[int, float]:
    """How far experts and shared expert are from ``mlp_out``, relative to it, by layer.

    Raises:
        RuntimeError, TypeError, ValueError: the experts are not called as expected.
    """
    layers = architecture.anatomy.layers("expert")
    places: dict[Site, Location] = {}
    for layer in layers:
        each = [Site("expert", layer, index) for index in range(architecture.anatomy.experts[layer])]
        views = tuple(architecture.locate(site).view for site in each)
        places[each[0]] = replace(architecture.locate(each[0]), view=Experts(views))
        for kind in ("mlp_out", "shared_expert"):
            if architecture.has(kind, layer):
                places[Site(kind, layer)] = architecture.locate(Site(kind, layer))
    read, _ = read_once(architecture, places)
    errors = {}
    for layer in layers:
        if Site("expert", layer, 0) not in read:
            raise ValueError(f"the module of the experts of layer {layer} is not called in a pass")
        total, shared = read[Site("expert", layer, 0)], Site("shared_expert", layer)
        total = total + read[shared] if shared in read else total
        errors[layer] = relative(_passed_on(architecture, layer, total), read[Site("mlp_out", layer)])
    return errors


def _passed_on(architecture: Architecture, layer: int, total: Tensor) -> Tensor:
    """What a block makes of the experts' sum: a norm where one follows, and the factor on what it adds."""
    writer, block = architecture.module(layer, "mlp_out", "mlp_out"), architecture.blocks[layer]
    inside = contains(writer, architecture.module(layer, "experts", "expert"), block)
    if not inside and architecture.part(layer, "beside") is None:
        with torch.no_grad(), evaluating(architecture.modules):
            total = writer.forward(total)
    return total * architecture.multiplier


def routing_fault(architecture: Architecture) -> str:
    """Why a router's logits cannot be written: "" where their own values change nothing and others do.

    One layer of each row is tried.
    """
    tried: list[Family] = []
    for layer in architecture.anatomy.layers("router"):
        if (row := architecture.family.row(layer)) in tried:
            continue
        tried.append(row)
        site, after = Site("router", layer), Site("resid_post", layer)
        places = {site: architecture.locate(site), after: architecture.locate(after)}
        try:
            plain, own, other = (
                read_once(architecture, places, writers=[Writer(site, architecture.locate(site), edit)])[0]
                for edit in (lambda now: now, torch.clone, lambda now: -now.flip(-1))
            )
        except (RuntimeError, TypeError, ValueError, LookupError, StopIteration) as error:
            return f"the router of layer {layer} cannot be run on logits that are given ({error})."
        count = architecture.anatomy.experts[layer]
        if plain[site].shape[-1] != count:
            return f"the router of layer {layer} gives {plain[site].shape[-1]} logits for {count} experts."
        if not torch.equal(plain[after], own[after]):
            return f"the router of layer {layer} does not give the same for its own logits."
        if torch.equal(plain[after], other[after]) and count > 1:
            return f"other logits of the router of layer {layer} change nothing."
    return ""
