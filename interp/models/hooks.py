"""Two context managers on plain PyTorch hooks: ``reading`` and ``writing``. Gone on exit, even on error.

Only the handles that a context itself installed are removed, so a user's own hooks survive. The model's parameters,
configuration and forward functions stay untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp.errors import ModelError
from interp.models.anatomy import Location
from interp.sites import Site

__all__ = ["Frame", "Stop", "Writer", "eager_attention", "evaluating", "reading", "writing"]

Edit = Callable[[Tensor], Tensor]


class Stop(BaseException):
    """End a forward pass early, once everything wanted has been read. Never leaves this package."""


@dataclass(eq=False)
class Frame:
    """Hold what changes from one forward pass to the next while the hooks stay installed.

    Attributes:
        batch: rows of the pass.
        width: columns of the pass.
        gather: copies the chosen positions out of ``[batch pos ...]``.
        stop: end the pass when every site has been read.
        found: what was read.
        wanted: how many sites are read.
    """

    batch: int = 0
    width: int = 0
    gather: Callable[[Tensor], Tensor] = torch.clone
    stop: bool = False
    found: dict[Site, Tensor] = field(default_factory=dict)
    wanted: int = 0

    def keep(self, site: Site, tensor: Tensor) -> None:
        """Store what a hook read; end the pass if it was the last."""
        self.found[site] = self.gather(tensor)
        if self.stop and len(self.found) == self.wanted:
            raise Stop

    def square(self, tensor: Tensor) -> Tensor:
        """Undo the flattening of ``[batch pos]`` that some blocks do (OPT)."""
        return tensor.view(self.batch, self.width, -1)


@dataclass(eq=False)
class Writer:
    """Say what to write at one site.

    Attributes:
        site: for messages and for the order of writing.
        location: where.
        edit: returns the new value of ``[batch pos ...]``, or its argument where nothing changes.
    """

    site: Site
    location: Location
    edit: Edit


@contextmanager
def reading(places: Mapping[Site, Location], frame: Frame) -> Iterator[dict[Site, Tensor]]:
    """Read sites during the forward passes inside the block into ``frame.found``, one hook per site.

    Args:
        places: site to its location for reading.
        frame: the shape of the pass and how to gather; set it before each pass.
    """
    handles: list[RemovableHandle] = []
    frame.wanted = len(places)
    try:
        for site, location in places.items():
            handles.append(_install(location, frame, _reader(site, location, frame)))
        yield frame.found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def writing(writers: Sequence[Writer], frame: Frame) -> Iterator[None]:
    """Replace sites during the forward passes inside the block; enter it before ``reading`` to read what was written.

    Args:
        writers: applied in execution order of their sites.
        frame: the shape of the pass; set it before each pass.
    """
    handles: list[RemovableHandle] = []
    try:
        for writer in sorted(writers, key=lambda writer: writer.site):
            bases: list[Tensor] = []
            if writer.location.base is not None:
                stash = Location(writer.location.base, "in", writer.location.view)
                handles.append(_install(stash, frame, _stasher(bases)))
            handles.append(_install(writer.location, frame, _editor(writer, bases)))
        yield
    finally:
        for handle in handles:
            handle.remove()


Action = Callable[[Tensor, Tensor | None], Tensor | None]


def _reader(site: Site, location: Location, frame: Frame) -> Action:
    read = location.view.read

    def action(tensor: Tensor, given: Tensor | None) -> None:
        frame.keep(site, read(tensor, given))

    return action


def _stasher(bases: list[Tensor]) -> Action:
    def action(tensor: Tensor, given: Tensor | None) -> None:
        bases[:] = [tensor]

    return action


def _editor(writer: Writer, bases: list[Tensor]) -> Action:
    view, edit = writer.location.view, writer.edit

    def action(tensor: Tensor, given: Tensor | None) -> Tensor | None:
        given = bases.pop() if bases else given
        current = view.read(tensor, given)
        new = edit(current)
        return None if new is current else view.write(tensor, given, new).contiguous()

    return action


def _install(location: Location, frame: Frame, action: Action) -> RemovableHandle:
    if location.side == "in":
        return location.module.register_forward_pre_hook(_input_hook(frame, action), with_kwargs=True)
    return location.module.register_forward_hook(_output_hook(frame, action, location.slot))


def _input_hook(frame: Frame, action: Action) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensor = args[0] if args else kwargs["hidden_states"]
        flat = tensor.dim() == 2
        new = action(frame.square(tensor) if flat else tensor, None)
        if new is None:
            return None
        new = new.view(tensor.shape) if flat else new
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    return hook


def _output_hook(frame: Frame, action: Action, slot: int) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        tensor = output if isinstance(output, Tensor) else output[slot]
        if tensor is None:
            raise ModelError(f"{type(module).__name__} returns no attention probabilities, even under eager attention.")
        given = args[0] if args and isinstance(args[0], Tensor) else None
        flat = tensor.dim() == 2
        new = action(frame.square(tensor) if flat else tensor, given)
        if new is None:
            return None
        new = new.view(tensor.shape) if flat else new
        if isinstance(output, Tensor):
            return new
        return type(output)((*output[:slot], new, *output[slot + 1 :]))

    return hook


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block and restore every module's own mode after it."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def eager_attention(model: nn.Module, needed: bool) -> Iterator[None]:
    """Compute attention probabilities explicitly inside the block, if needed, and restore the implementation after it."""
    name = "_attn_implementation_internal"
    modules = model.modules() if needed else ()
    configs = {id(c): c for m in modules if (c := getattr(m, "config", None)) is not None and hasattr(c, name)}
    before = [(config, getattr(config, name)) for config in configs.values()]
    try:
        for config, _ in before:
            setattr(config, name, "eager")
        yield
    finally:
        for config, implementation in before:
            setattr(config, name, implementation)
