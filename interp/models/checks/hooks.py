"""The hooks themselves: each fires once, none stays, and no block writes into its own input."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import InterpError
from interp.models.anatomy import Location
from interp.models.batches import make_batch
from interp.models.certificate import Check
from interp.models.checks.case import Case, judged
from interp.models.hooks import Frame, evaluating, reading
from interp.models.interventions import Intervention
from interp.models.passes import forward
from interp.models.positions import Batch
from interp.sites import KINDS, Site

__all__ = ["fire_once", "in_place", "left_as_found"]

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


def fire_once(case: Case) -> Check:
    """Read every site in one pass and count."""
    places = _places(case)
    batch = _one(case)
    counted = _Counted()
    frame = Frame(batch=1, width=batch.width, found=counted)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(case.model.anatomy.modules))
        stack.enter_context(reading(places, frame))
        forward(case.model.anatomy, batch, "last")
    wrong = [f"{site} fired {counted.fired[site]} times" for site in places if counted.fired[site] != 1]
    detail = "; ".join(wrong[:3]) or f"{len(places)} sites in {case.model.n_layers} layers"
    return judged(ONCE, len(wrong), 0, detail, unit="sites")


def _one(case: Case) -> Batch:
    return make_batch(case.model.tokenize([case.prompts[0]]), [0], case.model.device)


def _places(case: Case) -> dict[Site, Location]:
    """Locate every kind on offer, in every layer; patterns need another attention and are left out."""
    places: dict[Site, Location] = {}
    for kind, row in KINDS.items():
        if kind in case.model.disabled or kind in ("pattern", "logits"):
            continue
        index = 0 if row.index == "required" else None
        for layer in range(case.model.n_layers) if row.layered else [None]:
            with suppress(InterpError):
                places[Site(kind, layer, index)] = case.model.anatomy.locate(Site(kind, layer, index))
    return places


def left_as_found(case: Case) -> Check:
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
    return state | {name: parameter._version for name, parameter in hf.named_parameters()}


def in_place(case: Case) -> Check:
    """Compare the version counter of every block's input before and after the block."""
    wrong: list[int] = []
    batch = _one(case)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(case.model.anatomy.modules))
        for layer, block in enumerate(case.model.anatomy.blocks):
            for handle in _watch(block, layer, wrong):
                stack.callback(handle.remove)
        forward(case.model.anatomy, batch, "last")
    detail = f"layers {wrong[:6]}" if wrong else f"{case.model.n_layers} blocks"
    return judged(IN_PLACE, len(wrong), 0, detail, unit="blocks")


def _watch(block: nn.Module, layer: int, wrong: list[int]) -> tuple[Any, Any]:
    versions: list[int] = []

    def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return args[0] if args else kwargs["hidden_states"]

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        versions[:] = [given(args, kwargs)._version]

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if given(args, kwargs)._version != versions[0]:
            wrong.append(layer)

    first = block.register_forward_pre_hook(before, with_kwargs=True)
    return first, block.register_forward_hook(after, with_kwargs=True)
