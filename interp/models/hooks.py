"""Two context managers on plain PyTorch hooks: ``reading`` and ``writing``. Gone on exit, even on error.

Only the handles that a context itself installed are removed, so a user's own hooks survive. The model's
parameters, configuration and forward functions stay untouched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp.errors import ModelError
from interp.models.architecture import Location
from interp.models.feature_views import Code, FeatureView
from interp.models.tensor_views import Given, View, Whole
from interp.sites import Site

__all__ = [
    "ONE_AT_A_TIME",
    "Edit",
    "Frame",
    "Hook",
    "Stop",
    "Writer",
    "by_reference",
    "eager_attention",
    "eager_experts",
    "evaluating",
    "reader_hooks",
    "reading",
    "writer_hooks",
    "writing",
]

ONE_AT_A_TIME = threading.RLock()
"""Held while hooks are on a model or a pass runs: threads share modules, and would get each other's edits."""
Edit = Callable[[Tensor], Tensor]


class Stop(BaseException):
    """End a forward pass early, once everything wanted has been read. Never leaves this package."""


def by_reference(tensor: Tensor) -> Tensor:
    """Gather a whole tensor without copying it; ``Frame.edited`` tells whether that went well."""
    return tensor


@dataclass(eq=False)
class Frame:
    """What changes from one forward pass to the next while the hooks stay installed.

    Attributes:
        batch: rows of the pass.
        width: columns of the pass.
        gather: copies the chosen positions out of ``[batch pos ...]``.
        stop: end the pass when every site has been read.
        found: what was read.
        wanted: how many sites are read.
        shifts: what was added to sites that are computed from a module's input, so that readings see it.
        versions: per site read by reference, how often its tensor had been edited in place by then.
        codes: layer -> what its dictionary made of the pass.
    """

    batch: int = 0
    width: int = 0
    gather: Callable[[Tensor], Tensor] = torch.clone
    stop: bool = False
    found: dict[Site, Tensor] = field(default_factory=dict)
    wanted: int = 0
    shifts: dict[Site, Tensor] = field(default_factory=dict)
    versions: dict[Site, int] = field(default_factory=dict)
    codes: dict[int, Code] = field(default_factory=dict)

    def begin(self, batch: int, width: int) -> None:
        """Forget the last pass and take the shape of the next."""
        self.batch, self.width = batch, width
        self.found.clear()
        self.shifts.clear()
        self.versions.clear()
        self.codes.clear()

    def coded(self, view: FeatureView, tensor: Tensor, given: Given) -> Code:
        """The code of a pass, computed by the first view of a dictionary that is met in it."""
        if view.shared not in self.codes:
            self.codes[view.shared] = view.code(tensor, given, self.codes)
        return self.codes[view.shared]

    def keep(self, site: Site, value: Tensor) -> None:
        """Store what a hook read; end the pass if it was the last."""
        if self.gather is by_reference and value.is_inference():
            self.found[site] = value.clone()  # such a tensor does not count its edits
        elif self.gather is by_reference:
            self.versions[site] = value._version
            self.found[site] = value
        else:
            self.found[site] = self.gather(value)
        if self.stop and len(self.found) == self.wanted:
            raise Stop

    def edited(self) -> list[Site]:
        """List the sites read by reference whose tensors were edited in place later in the pass."""
        return [site for site, version in self.versions.items() if self.found[site]._version != version]

    def square(self, tensor: Tensor) -> Tensor:
        """Undo the flattening of ``[batch pos]`` that some blocks do (OPT)."""
        return tensor.view(self.batch, self.width, -1)


@dataclass(eq=False)
class Writer:
    """What to write at one site.

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
    frame.wanted = len(places)
    with _installed(reader_hooks(places, frame)):
        yield frame.found


@contextmanager
def writing(writers: Sequence[Writer], frame: Frame) -> Iterator[None]:
    """Replace sites during the forward passes inside the block.

    Enter it before ``reading``, so that what was written is read.

    Args:
        writers: applied in execution order of their sites.
        frame: the shape of the pass; set it before each pass.
    """
    with _installed(writer_hooks(writers, frame)):
        yield


@dataclass(frozen=True, eq=False)
class Hook:
    """A function on one side of a module, as PyTorch calls it.

    Attributes:
        module: the module.
        side: "in" for a pre-hook with keyword arguments, "out" for a forward hook.
        call: the function.
    """

    module: nn.Module
    side: Literal["in", "out"]
    call: Callable[..., Any]

    def install(self) -> RemovableHandle:
        """Register it; the handle removes it."""
        if self.side == "in":
            return self.module.register_forward_pre_hook(self.call, with_kwargs=True)
        return self.module.register_forward_hook(self.call)


@contextmanager
def _installed(hooks: Iterable[Hook]) -> Iterator[None]:
    handles: list[RemovableHandle] = []
    with ONE_AT_A_TIME:
        try:
            for hook in hooks:
                handles.append(hook.install())
            yield
        finally:
            for handle in handles:
                handle.remove()


def reader_hooks(places: Mapping[Site, Location], frame: Frame) -> Iterator[Hook]:
    """The hooks that read sites into ``frame.found``, in the order in which they must be installed."""
    for site, location in places.items():
        yield from _coding(location, frame)
        bases: list[Tensor] = []
        if location.base is not None:
            yield _hook(Location(location.base, location.base_side, Whole()), frame, partial(_stash, bases))
        yield _reader(site, location, frame, bases)


def writer_hooks(writers: Sequence[Writer], frame: Frame) -> Iterator[Hook]:
    """The hooks that replace sites, in the order in which they must be installed."""
    for writer in sorted(writers, key=lambda writer: writer.site):
        yield from _coding(writer.location, frame)
        bases: list[Tensor] = []
        sent: list[Tensor] = []
        if writer.location.base is not None:
            where = Location(writer.location.base, writer.location.base_side, Whole())
            yield _hook(where, frame, partial(_stash, bases))
        yield _hook(writer.location, frame, partial(_edit, writer, bases, frame, sent))
        for at, place in enumerate(writer.location.onward):
            yield _hook(place, frame, partial(_add, writer.location, place, at, sent))


def _coding(location: Location, frame: Frame) -> Iterator[Hook]:
    """Hooks by which the features of earlier layers are known where a site needs them."""
    for place in location.before:
        bases: list[Tensor] = []
        if place.base is not None:
            yield _hook(Location(place.base, place.base_side, Whole()), frame, partial(_stash, bases))
        yield _hook(place, frame, partial(_code, place, bases, frame))


def _code(location: Location, bases: list[Tensor], frame: Frame, tensor: Tensor, given: Given) -> None:
    assert isinstance(location.view, FeatureView)
    frame.coded(location.view, tensor, bases.pop() if bases else given)


def _add(source: Location, place: Location, at: int, sent: list[Tensor], tensor: Tensor, given: Given) -> Any:
    """Add what changed features of an earlier layer write here."""
    if not sent:
        return None
    assert isinstance(source.view, FeatureView)
    current = place.view.read(tensor, given)
    new = current + source.view.onward(sent[0], at).to(current)
    return place.view.write(tensor, given, new).contiguous()


Action = Callable[[Tensor, Given], Tensor | None]


def _reader(site: Site, location: Location, frame: Frame, bases: list[Tensor]) -> Hook:
    """Make a hook that only reads; short, because it runs once per site and pass."""
    view = None if isinstance(location.view, Whole) else location.view
    if location.side == "in":
        return Hook(location.module, "in", partial(_read_input, site, view, bases, frame))
    return Hook(location.module, "out", partial(_read_output, site, view, location.slot, bases, frame))


def _read_input(
    site: Site,
    view: View | None,
    bases: list[Tensor],
    frame: Frame,
    module: nn.Module,
    args: Any,
    kwargs: Any,
) -> None:
    tensor = args[0] if args else kwargs["hidden_states"]
    value = tensor if tensor.dim() > 2 else frame.square(tensor)
    frame.keep(
        site, value if view is None else _seen(site, view, frame, value, bases.pop() if bases else None)
    )


def _seen(site: Site, view: View, frame: Frame, tensor: Tensor, given: Given) -> Tensor:
    """The value of a site, with what was written to it where it is computed from something else."""
    if isinstance(view, FeatureView):
        return view.cut(frame.coded(view, tensor, given))
    value = view.read(tensor, given)
    return value + frame.shifts[site] if site in frame.shifts else value


def _read_output(
    site: Site,
    view: View | None,
    slot: int,
    bases: list[Tensor],
    frame: Frame,
    module: nn.Module,
    args: Any,
    output: Any,
) -> None:
    tensor = output if isinstance(output, Tensor) else output[slot]
    if tensor is None:
        raise ModelError(
            f"{type(module).__name__} returns no attention probabilities, even under eager attention."
        )
    value = tensor if tensor.dim() > 2 else frame.square(tensor)
    if view is not None:
        value = _seen(site, view, frame, value, bases.pop() if bases else view.given(args))
    frame.keep(site, value)


def _stash(bases: list[Tensor], tensor: Tensor, given: Given) -> None:
    bases[:] = [tensor]


def _edit(
    writer: Writer, bases: list[Tensor], frame: Frame, sent: list[Tensor], tensor: Tensor, given: Given
) -> Tensor | None:
    sent.clear()
    site, location = writer.site, writer.location
    given = bases.pop() if bases else given
    current = _seen(site, location.view, frame, tensor, given)
    new = writer.edit(current)
    if new is current:
        return None
    if isinstance(location.view, FeatureView):
        view, code = location.view, frame.coded(location.view, tensor, given)
        frame.codes[view.shared] = view.rewritten(code, new)
        sent[:] = [new - current] if location.onward else []
        return view.changed(tensor, given, new - current, code).contiguous()
    if location.view.computed:
        change = new - current
        frame.shifts[site] = frame.shifts[site] + change if site in frame.shifts else change
        return location.view.moved(tensor, change)
    return location.view.write(tensor, given, new).contiguous()


def _hook(location: Location, frame: Frame, action: Action) -> Hook:
    if location.side == "in":
        return Hook(location.module, "in", partial(_input_hook, frame, action))
    return Hook(location.module, "out", partial(_output_hook, frame, action, location))


def _input_hook(
    frame: Frame, action: Action, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    tensor = args[0] if args else kwargs["hidden_states"]
    flat = tensor.dim() == 2
    new = action(frame.square(tensor) if flat else tensor, None)
    if new is None:
        return None
    new = new.view(tensor.shape) if flat else new
    return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})


def _output_hook(
    frame: Frame, action: Action, location: Location, module: nn.Module, args: tuple[Any, ...], output: Any
) -> Any:
    view, slot = location.view, location.slot
    tensor = output if isinstance(output, Tensor) else output[slot]
    flat = tensor.dim() == 2
    new = action(frame.square(tensor) if flat else tensor, view.given(args))
    if new is None:
        return None
    return view.replaced(output, slot, new.view(tensor.shape) if flat else new, args)


@contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Switch dropout off inside the block and restore every module's own mode after it."""
    with ONE_AT_A_TIME:
        training = [module for module in modules if module.__dict__["training"]]  # quicker than the attribute
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True


@contextmanager
def eager_attention(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Compute attention probabilities explicitly inside the block and restore the implementation after it."""
    with _implemented(modules, "_attn_implementation_internal"):
        yield


@contextmanager
def eager_experts(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Compute experts one by one inside the block: the fused ways know no double precision."""
    with _implemented(modules, "_experts_implementation_internal"):
        yield


@contextmanager
def _implemented(modules: Sequence[nn.Module], name: str) -> Iterator[None]:
    """Choose the eager implementation of something in every configuration, inside the block."""
    configs = {
        id(c): c for m in modules if (c := getattr(m, "config", None)) is not None and hasattr(c, name)
    }
    with ONE_AT_A_TIME:
        before = [(config, getattr(config, name)) for config in configs.values()]
        try:
            for config, _ in before:
                setattr(config, name, "eager")
            yield
        finally:
            for config, implementation in before:
                setattr(config, name, implementation)
