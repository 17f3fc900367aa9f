"""Hooks and edits: each hook fires once, none stays, and what is written arrives."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import InterpError, counted
from interp.models.architecture import Location
from interp.models.certificate import Check
from interp.models.checks.context import Context, judged
from interp.models.equations import relative
from interp.models.fingerprints import version
from interp.models.forward import forward, make_batch
from interp.models.hooks import Frame, evaluating, reading
from interp.models.interventions import Intervention
from interp.models.positions import Batch
from interp.sites import KINDS, Site

__all__ = ["edits_count", "fire_once", "in_place", "left_as_found", "own_values"]

EDITS = "an edit changes the logits"
OWN = "writing a site's own value changes nothing"
_WRITTEN = ("attn_out", "mixer_out", "mlp_out", "resid_post")
_EVERYWHERE = (
    "resid_pre",
    "q",
    "k",
    "v",
    "z",
    "attn_out",
    "mixer_out",
    "resid_mid",
    "router",
    "shared_expert",
    "mlp_act",
    "mlp_out",
    "resid_post",
)
ONCE = "every site fires once per pass"
LEFT = "hooks and modes are left as found"
IN_PLACE = "no block writes into its input"


class _Counted(dict[Site, Tensor]):
    """Count what is stored instead of keeping it."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        super().__init__()
        self.fired: Counter[Site] = Counter()

    def __setitem__(self, site: Site, tensor: Tensor) -> None:
        """Count one firing."""
        self.fired[site] += 1


class _Interrupted(Exception):
    """Stand for whatever may go wrong in the middle of a pass."""


def fire_once(case: Context) -> Check:
    """Read every site in one pass and count."""
    places = _places(case)
    batch = _one(case)
    seen = _Counted()
    frame = Frame(batch=1, width=batch.width, found=seen)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(case.model.architecture.modules))
        stack.enter_context(reading(places, frame))
        forward(case.model.architecture, batch, "last")
    wrong = [f"{site} fired {seen.fired[site]} times" for site in places if seen.fired[site] != 1]
    detail = (
        "; ".join(wrong[:3]) or f"{counted(len(places), 'site')} in {counted(case.model.n_layers, 'layer')}"
    )
    return judged(ONCE, len(wrong), 0, detail, unit="sites")


def _one(case: Context) -> Batch:
    return make_batch(case.model.tokenize([case.prompts[0]]), [0], case.model.device)


def _places(case: Context) -> dict[Site, Location]:
    """Locate every kind on offer, in every layer; patterns need another attention and are left out."""
    places: dict[Site, Location] = {}
    for kind, row in KINDS.items():
        if kind in case.model.disabled or kind in ("pattern", "logits"):
            continue
        index = 0 if row.index == "required" else None
        for layer in case.model.anatomy.layers(kind) if row.layered else [None]:
            with suppress(InterpError):
                places[Site(kind, layer, index)] = case.model.architecture.locate(Site(kind, layer, index))
    return places


def left_as_found(case: Context) -> Check:
    """Read, write and fail in the middle; count hooks, modes and parameters that differ afterwards."""
    model = case.model

    def fails(chosen: Tensor) -> Tensor:
        raise _Interrupted

    before = _state(model.hf)
    model.run(case.short, capture="resid_post.*", interventions=[Intervention("resid_post.0", torch.clone)])
    with suppress(_Interrupted):
        model.run(case.short, capture="resid_post.*", interventions=[Intervention("resid_post.0", fails)])
    after = _state(model.hf)
    changed = [name for name in before if before[name] != after[name]]
    return judged(LEFT, len(changed), 0, ", ".join(changed[:3]) or "also after an error", unit="changes")


def _state(hf: nn.Module) -> dict[str, Any]:
    """Take down, per module, its hooks and mode, and per parameter its version."""
    state: dict[str, Any] = {}
    for name, module in hf.named_modules():
        hooks = (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
        state[f"hooks of {name or 'the model'}"] = [list(kept) for kept in hooks]
        state[f"mode of {name or 'the model'}"] = module.training
    return state | {name: version(parameter) for name, parameter in hf.named_parameters()}


def in_place(case: Context) -> Check:
    """Compare the version counter of every block's input before and after the block."""
    wrong: list[int] = []
    batch = _one(case)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(case.model.architecture.modules))
        for layer, block in enumerate(case.model.architecture.blocks):
            for handle in _watch(block, layer, wrong):
                stack.callback(handle.remove)
        forward(case.model.architecture, batch, "last")
    detail = f"layers {wrong[:6]}" if wrong else f"{case.model.n_layers} blocks"
    return judged(IN_PLACE, len(wrong), 0, detail, unit="blocks")


def _watch(block: nn.Module, layer: int, wrong: list[int]) -> tuple[Any, Any]:
    versions: list[int] = []

    def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return args[0] if args else kwargs["hidden_states"]

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        versions[:] = [version(given(args, kwargs))]

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if version(given(args, kwargs)) != versions[0]:
            wrong.append(layer)

    first = block.register_forward_pre_hook(before, with_kwargs=True)
    return first, block.register_forward_hook(after, with_kwargs=True)


def edits_count(case: Context) -> Check:
    """Edit one site per row of a batch, at the last token; each must move its logits."""
    sites = _written(case, _WRITTEN)
    prompt = case.short[0]
    stream = case.model.capture([prompt], "resid_post.*").stack()[0].float()
    noise = torch.randn(stream.shape, generator=torch.Generator().manual_seed(case.seed)).to(stream)
    sizes = stream.std(-1, keepdim=True)
    edits = [
        Intervention(site, _adds(noise[site.layer or 0] * sizes[site.layer or 0]), "last", rows=[row])
        for row, site in enumerate(sites)
    ]
    rows = [prompt] * (len(sites) + 1)
    logits = case.model.run(rows, interventions=edits, batch_size=len(rows)).logits
    assert logits is not None
    changes = [relative(logits[row], logits[-1]) for row in range(len(sites))]
    # rows of one batch differ by the edit alone: more than rounding is enough
    value, limit = min(changes), max(1e-4, 4 * torch.finfo(case.model.dtype).eps)
    status = "pass" if value >= limit else "fail"
    detail = f"least at {sites[changes.index(value)]}, of {counted(len(sites), 'site')} edited one at a time"
    return Check(EDITS, status, value, limit, "relative", detail, bound="at least")


def own_values(case: Context) -> Check:
    """Write at every site of every layer what is there; the logits must stay."""
    sites = _written(case, _EVERYWHERE)
    edits = [Intervention(site, torch.clone, "all") for site in sites]
    run = case.model.run(case.short, interventions=edits, batch_size=len(case.short))
    plain = case.model.run(case.short, batch_size=len(case.short))
    assert run.logits is not None and plain.logits is not None
    return judged(
        OWN, relative(run.logits, plain.logits), case.limit, f"{counted(len(sites), 'site')} written at once"
    )


def _written(case: Context, kinds: tuple[str, ...]) -> list[Site]:
    offered = [kind for kind in kinds if kind not in case.model.disabled]
    there = {kind: case.model.anatomy.layers(kind) for kind in offered}
    layers = range(case.model.n_layers)
    return [Site(kind, layer) for layer in layers for kind in offered if layer in there[kind]]


def _adds(change: Tensor) -> object:
    return lambda chosen: chosen + change.to(chosen.dtype)
