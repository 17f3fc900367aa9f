"""nnsight: a model given by the user, and a backend that runs traces on a model of its own.

Importing nnsight changes ``object`` and ``torch.Tensor`` for the whole process, so it is imported only on
request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any, ClassVar

import torch
from nnsight import NNsight
from nnsight.intervention.envoy import Envoy
from torch import nn
from transformers import PreTrainedModel

from interp.errors import ModelError
from interp.models.architecture import Architecture, Location
from interp.models.backends import Held
from interp.models.backends.base import Backend, Forward
from interp.models.forward import Logits, arguments, cache_name, forward
from interp.models.hooks import Edit, Frame, Hook, Stop, Writer, eager_attention, reader_hooks, writer_hooks
from interp.models.positions import Batch
from interp.models.probe_pass import probe_batch
from interp.models.tied_weights import twin
from interp.sites import Site

__all__ = ["NNsightTraces", "held", "inner", "made"]


def inner(model: Envoy) -> PreTrainedModel:
    """The Hugging Face model that an nnsight model wraps; its modules answer to nnsight.

    Raises:
        ModelError: it wraps something else, has no weights yet, or holds edits.
    """
    hf = model._module
    if not isinstance(hf, PreTrainedModel):
        raise ModelError(
            f"an nnsight {type(model).__name__} was given that wraps a {type(hf).__name__}, not a Hugging "
            "Face model. Give the whole model, for example TransformersModel(name, task='text-generation')."
        )
    name = _name(hf)
    if any(parameter.is_meta for parameter in hf.parameters()):
        raise ModelError(f"the nnsight model {name!r} has no weights yet. Call its dispatch() first.")
    if model._edits:
        raise ModelError(
            f"the nnsight model {name!r} holds edits, which would not act here. Call clear_edits(), and pass "
            "them as interventions."
        )
    return hf


def _name(hf: PreTrainedModel) -> str:
    return hf.config.name_or_path or type(hf).__name__


def held(model: Envoy) -> Held:
    """Plain Hugging Face modules around the weights of an nnsight model.

    Raises:
        ModelError: as for ``inner``, or the modules are not those that the configuration describes.
    """
    hf = inner(model)
    return Held(twin(hf), model.__dict__.get("tokenizer"), _name(hf))


def made(architecture: Architecture) -> NNsightTraces:
    """Wrap a copy of a model that shares its weights.

    Raises:
        ModelError: the model's modules are not those that its configuration describes.
    """
    hf = twin(architecture.hf).eval()
    own = replace(architecture, hf=hf)
    order = _order(own)
    return NNsightTraces(architecture, own, NNsight(hf), order)


def _order(architecture: Architecture) -> dict[tuple[int, str], int]:
    """Run once and note when each module is entered and left: nnsight must be asked in that order."""
    order: dict[tuple[int, str], int] = {}

    def note(side: str, module: nn.Module, *given: Any) -> None:
        order.setdefault((id(module), side), len(order))

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for module in architecture.modules:
            stack.callback(module.register_forward_pre_hook(partial(note, "in")).remove)
            stack.callback(module.register_forward_hook(partial(note, "out")).remove)
        forward(architecture, probe_batch(architecture), "last")
    return order


@dataclass(frozen=True, eq=False)
class NNsightTraces(Backend):
    """Run traces whose block reads and replaces values in the order in which the model computes them.

    Attributes:
        architecture: of the Hugging Face model.
        own: of the copy that nnsight wraps.
        model: nnsight's wrapper.
        order: when each module is entered and left in a pass.
    """

    name: ClassVar[str] = "nnsight"
    architecture: Architecture
    own: Architecture
    model: NNsight
    order: Mapping[tuple[int, str], int]

    @property
    def caches(self) -> bool:
        """Whether the model takes a key-value cache."""
        return bool(cache_name(self.own))

    @cached_property
    def _envoys(self) -> dict[int, Envoy]:
        return {id(envoy._module): envoy for envoy in self.model.modules()}

    @contextmanager
    def session(
        self, frame: Frame, *, writes: Sequence[Mapping[Site, Edit]], reads: Sequence[Site]
    ) -> Iterator[Forward]:
        """Prepare what the block of every trace does; attention is eager if probabilities are read."""
        self.architecture.check(site.kind for site in reads)
        self.architecture.check(site.kind for group in writes for site in group)
        groups = [
            [Writer(site, self._locate(site, write=True), edit) for site, edit in group.items()]
            for group in writes
        ]
        places = {site: self._locate(site) for site in reads}
        hooks = chain(*(writer_hooks(group, frame) for group in groups), reader_hooks(places, frame))
        frame.wanted = len(places)
        program = self._program(list(hooks))
        with ExitStack() as stack:
            if any(site.kind == "pattern" for site in reads):
                stack.enter_context(eager_attention(self.own.modules))
            yield partial(self._forward, program)

    def _locate(self, site: Site, *, write: bool = False) -> Location:
        """Find a site in the copy; its view uses the untraced modules, since it may call them."""
        return replace(
            self.own.locate(site, write=write), view=self.architecture.locate(site, write=write).view
        )

    def _program(self, hooks: Sequence[Hook]) -> list[tuple[Envoy, str, list[Hook]]]:
        """Group hooks by place, in the order of the pass; a module's input is noted before its output."""
        program: dict[tuple[int, str], list[Hook]] = {}
        for hook in hooks:
            program.setdefault((id(hook.module), "in"), [])
            program.setdefault((id(hook.module), hook.side), []).append(hook)
        steps = sorted(program.items(), key=lambda step: self.order[step[0]])
        return [(self._envoys[module], side, group) for (module, side), group in steps]

    def _forward(
        self, program: Sequence[tuple[Envoy, str, list[Hook]]], batch: Batch, logits: Logits, **cache: Any
    ) -> Any:
        given = arguments(self.own, batch, logits, **cache)
        results: list[Any] = []
        stopped: list[Stop] = []
        tracer: Any = self.model.trace(**given)
        with tracer:  # nnsight compiles this block anew: keep it plain
            _act(program, stopped)
            if stopped:
                tracer.stop()
            results.append(self.model.output)
        if stopped:
            raise stopped[0]
        return results[0]


def _act(program: Sequence[tuple[Envoy, str, list[Hook]]], stopped: list[Stop]) -> None:
    """Read and replace, place by place, until everything wanted has been read."""
    try:
        _walk(program)
    except Stop as stop:
        stopped.append(stop)


def _walk(program: Sequence[tuple[Envoy, str, list[Hook]]]) -> None:
    inputs: dict[int, tuple[Any, ...]] = {}
    for envoy, side, hooks in program:
        module, place = envoy._module, {"in": "inputs", "out": "output"}[side]
        value = before = getattr(envoy, place)
        for hook in hooks:
            given = value if side == "in" else (inputs[id(module)], value)
            changed = hook.call(module, *given)
            value = value if changed is None else changed
        if side == "in":
            inputs[id(module)] = value[0]
        if value is not before:
            setattr(envoy, place, value)
