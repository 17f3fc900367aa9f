"""Mixtures of experts: how an expert, a gated shared expert and the router's logits are cut out and put back.

Hugging Face keeps the experts of a block in one module, called with the tokens, the experts that each token
is sent to, and their weights. It gives a weighted sum, so one expert's part is what the same module gives for
the tokens that were sent there and for that expert alone, whichever way it computes and stores its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interp.models.tensor_views import Given, View

__all__ = ["ExpertOutput", "ExpertSlice", "Experts", "Gated", "Routed", "rerouted"]


@dataclass(frozen=True)
class ExpertOutput(View):
    """Take one expert's part of what the experts give, its weight included; zero where it is not chosen.

    Attributes:
        experts: the module that holds them all.
        index: which expert.
        factor: what the block multiplies their sum by.
    """

    experts: nn.Module
    index: int
    factor: float = 1.0

    computed = True

    def given(self, args: Sequence[Any]) -> Given:
        """The tokens ``[token width]``, and the experts and weights ``[token chosen]`` of each."""
        return tuple(one for one in args if isinstance(one, Tensor))

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """Run the expert on the tokens that were sent to it."""
        assert isinstance(given, tuple)
        tokens, chosen, weights = (one.reshape(-1, one.shape[-1]) for one in given[:3])
        row, slot = (chosen == self.index).nonzero(as_tuple=True)
        out = torch.zeros_like(tensor).reshape(len(tokens), -1)
        if len(row):
            only = torch.full_like(row, self.index)[:, None].to(chosen.dtype)
            part = self.experts.forward(tokens[row], only, weights[row, slot][:, None])
            out = out.index_add(0, row, part.reshape(len(row), -1).to(out.dtype))
        return self.factor * out.view(tensor.shape) if self.factor != 1.0 else out.view(tensor.shape)

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Add the expert's change to the sum."""
        return self.moved(tensor, new - self.read(tensor, given))

    def moved(self, tensor: Tensor, change: Tensor) -> Tensor:
        """Add a change of the expert's part to the sum."""
        return tensor + (change if self.factor == 1.0 else change / self.factor)


@dataclass(frozen=True)
class Experts(View):
    """Take the sum of some views of the same tensor: of all experts, to check that they add up."""

    parts: tuple[View, ...]

    def given(self, args: Sequence[Any]) -> Given:
        """What the parts need."""
        return self.parts[0].given(args)

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """The sum."""
        total = self.parts[0].read(tensor, given)
        for part in self.parts[1:]:
            total = total + part.read(tensor, given)
        return total

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Refuse: a sum says nothing of its parts."""
        raise NotImplementedError("the sum of all experts is read-only")


@dataclass(frozen=True)
class ExpertSlice(View):
    """Take one expert's output where every expert is run on every token, ``[expert*batch*pos d_model]``.

    A pass squares that tensor to ``[batch pos expert*d_model]`` without moving a number.
    """

    count: int
    index: int

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """``[batch pos d_model]``."""
        return tensor.reshape(self.count, *tensor.shape[:2], -1)[self.index]

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """A copy with that expert's output replaced."""
        copy = tensor.reshape(self.count, *tensor.shape[:2], -1).clone()
        copy[self.index] = new
        return copy.view(tensor.shape)


@dataclass(frozen=True)
class Gated(View):
    """Take a module's output times the sigmoid of what a gate gives for the module's input."""

    gate: nn.Module

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """The product."""
        return tensor * self._open(tensor, given)

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Add the change, divided by the gate, so that no change gives the same bits."""
        gate = self._open(tensor, given)
        return tensor + (new - tensor * gate) / gate

    def _open(self, tensor: Tensor, given: Given) -> Tensor:
        assert isinstance(given, Tensor)
        return torch.sigmoid(self.gate.forward(given)).reshape(*tensor.shape[:-1], -1)


@dataclass(frozen=True)
class Routed(View):
    """Take the logits among what a router gives; writing them makes it choose anew."""

    router: nn.Module

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """The logits ``[batch pos expert]``."""
        return tensor

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """The new logits; ``replaced`` does the rest."""
        return new

    def replaced(self, output: Any, slot: int, new: Tensor, args: Sequence[Any]) -> Any:
        """What the router gives for those logits."""
        if isinstance(output, Tensor):
            return new
        return rerouted(self.router, args, slot, new)


def rerouted(router: nn.Module, args: Sequence[Any], slot: int, new: Float[Tensor, "*token expert"]) -> Any:
    """Run a router with other logits than it computes.

    The logits are the first tensor inside the router that it returns in that slot; they are put in its place
    and everything after it is computed as the router itself does.

    Args:
        router: its output is a tuple.
        args: what it is called with.
        slot: where its logits are in that tuple.
        new: the logits.
    """
    watched = _Watched(lambda at, found: found)
    with watched:
        own = router.forward(*args)[slot]
    where = next(at for at, found in enumerate(watched.results) if found is own)
    with _Watched(lambda at, found: new if at == where else found):
        return router.forward(*args)


class _Watched(TorchFunctionMode):
    """Look at, and replace, what every call of torch gives."""

    def __init__(self, change: Callable[[int, Any], Any]) -> None:
        super().__init__()
        self.change = change
        self.results: list[Any] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = self.change(len(self.results), func(*args, **(kwargs or {})))
        self.results.append(found)
        return found
