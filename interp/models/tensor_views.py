"""How a site is cut out of the tensor that a module takes or gives, and put back without changing it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

__all__ = [
    "Fused",
    "Given",
    "HeadOutput",
    "Heads",
    "Neuron",
    "Pattern",
    "Scaled",
    "Shifted",
    "Stream",
    "View",
    "Whole",
    "head_output",
    "head_weights",
]


Given = Tensor | tuple[Tensor, ...] | None
"""What a view may need besides the tensor it cuts."""


class View(ABC):
    """Read a site from a module's tensor, and write it back as a new tensor.

    ``given`` is what a view may need besides: the module's input for a head's output, the block's input for
    ``resid_mid``, all that the experts are called with for one of them.

    Attributes:
        computed: whether the value is computed from what is given, so that what was written there must be
            remembered for later readings; it is written with ``moved``.
    """

    computed: ClassVar[bool] = False

    def given(self, args: Sequence[Any]) -> Given:
        """Choose it from what the module is called with."""
        return args[0] if args and isinstance(args[0], Tensor) else None

    @abstractmethod
    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """The site's value, ``[batch, pos, ...]``."""

    @abstractmethod
    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """What must stand in place of ``tensor`` so that the site's value is ``new``."""

    def moved(self, tensor: Tensor, change: Tensor) -> Tensor:
        """What must stand in place of ``tensor`` so that the site's value changes by so much."""
        return tensor + change

    def replaced(self, output: Any, slot: int, new: Tensor, args: Sequence[Any]) -> Any:
        """Put what ``write`` returned into a module's output."""
        if isinstance(output, Tensor):
            return new
        return type(output)((*output[:slot], new, *output[slot + 1 :]))


@dataclass(frozen=True)
class Whole(View):
    """Take the tensor as it is."""

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """The tensor."""
        return tensor

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """The new value."""
        return new


@dataclass(frozen=True)
class Stream(View):
    """Take one of several streams, ``[stream batch pos d_model]``."""

    index: int

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """That stream."""
        return tensor[self.index]

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """A copy with that stream replaced."""
        copy = tensor.clone()
        copy[self.index] = new
        return copy


@dataclass(frozen=True)
class Scaled(View):
    """Take the tensor times a constant that the block multiplies by later.

    Attributes:
        factor: the constant.
        offset: whether ``given`` is added to the tensor before.
    """

    factor: float
    offset: bool = False

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """The product."""
        return self._whole(tensor, given) * self.factor

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Add the change, divided by the factor, so that no change gives the same bits."""
        return tensor + (new - self._whole(tensor, given) * self.factor) / self.factor

    def _whole(self, tensor: Tensor, given: Given) -> Tensor:
        if not self.offset:
            return tensor
        assert isinstance(given, Tensor)
        return tensor + given


@dataclass(frozen=True)
class Shifted(View):
    """Take ``given`` plus another view: ``resid_mid`` is written through what attention adds."""

    part: View

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """The sum."""
        assert isinstance(given, Tensor)
        return given + self.part.read(tensor, None)

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Write the contribution that brings the sum to ``new``."""
        part = self.part.read(tensor, None)
        assert isinstance(given, Tensor)
        return self.part.write(tensor, None, part + (new - (given + part)))


@dataclass(frozen=True)
class Heads(View):
    """Split the last axis into heads; take all, or one."""

    count: int
    index: int | None = None

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """``[..., head, d_head]``, or ``[..., d_head]`` for one head."""
        heads = tensor.unflatten(-1, (self.count, -1))
        return heads if self.index is None else heads[..., self.index, :]

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Join the heads again."""
        if self.index is None:
            return new.flatten(-2)
        heads = tensor.unflatten(-1, (self.count, -1)).clone()
        heads[..., self.index, :] = new
        return heads.flatten(-2)


@dataclass(frozen=True)
class Fused(View):
    """Take queries, keys or values out of one fused projection.

    ``thirds`` is ``[all queries | all keys | all values]``; ``groups`` is, per key-value head,
    ``[its queries | its key | its value]`` (one query each in GPT-NeoX and BLOOM).
    """

    layout: Literal["thirds", "groups"]
    n_heads: int
    n_kv_heads: int
    part: Literal["q", "k", "v"]
    index: int | None = None

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """``[..., head, d_head]``, or ``[..., d_head]`` for one head."""
        heads = self._all(tensor)
        return heads if self.index is None else heads[..., self.index, :]

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Put the part back among the others."""
        if self.index is not None:
            heads = self._all(tensor).clone()
            heads[..., self.index, :] = new
            new = heads
        d_head = new.shape[-1]
        fused = tensor.clone()
        if self.layout == "thirds":
            start = {"q": 0, "k": self.n_heads, "v": self.n_heads + self.n_kv_heads}[self.part] * d_head
            fused[..., start : start + new.shape[-2] * d_head] = new.flatten(-2)
            return fused
        per_group = self.n_heads // self.n_kv_heads
        groups = fused.unflatten(-1, (self.n_kv_heads, per_group + 2, d_head))
        if self.part == "q":
            groups[..., :per_group, :] = new.unflatten(-2, (self.n_kv_heads, per_group))
        else:
            groups[..., per_group + (self.part == "v"), :] = new
        return groups.flatten(-3)

    def _all(self, tensor: Tensor) -> Tensor:
        if self.layout == "thirds":
            total = self.n_heads + 2 * self.n_kv_heads
            sizes = [self.n_heads, self.n_kv_heads, self.n_kv_heads]
            return tensor.unflatten(-1, (total, -1)).split(sizes, dim=-2)["qkv".index(self.part)]
        per_group = self.n_heads // self.n_kv_heads
        groups = tensor.unflatten(-1, (self.n_kv_heads, per_group + 2, -1))
        if self.part == "q":
            return groups[..., :per_group, :].flatten(-3, -2)
        return groups[..., per_group + (self.part == "v"), :]


@dataclass(frozen=True)
class Neuron(View):
    """Take one coordinate, keeping an axis of size one."""

    index: int

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """``[..., 1]``."""
        return tensor[..., self.index : self.index + 1]

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """A copy with that coordinate replaced."""
        copy = tensor.clone()
        copy[..., self.index : self.index + 1] = new
        return copy


@dataclass(frozen=True)
class Pattern(View):
    """Turn ``[batch, head, query, key]`` into ``[batch, query, head, key]``, or one head of it."""

    index: int | None = None

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """The probabilities with the query position as the position axis."""
        pattern = tensor.transpose(1, 2)
        return pattern if self.index is None else pattern[..., self.index, :]

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Refuse: the probabilities have been used already when a module returns them."""
        raise NotImplementedError("attention patterns are read-only")


@dataclass(frozen=True)
class HeadOutput(View):
    """Take one head's part of the output projection, ``W_O[h] z.h``, without the bias."""

    projection: nn.Module
    count: int
    index: int

    computed = True

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """``[..., d_model]`` computed from the projection's input ``given``."""
        assert isinstance(given, Tensor)
        return head_output(self.projection, given, self.count, self.index)

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """Add the head's change to the projection's output."""
        return tensor + (new - self.read(tensor, given))


def head_output(
    projection: nn.Module, z: Float[Tensor, "*batch width"], count: int, index: int
) -> Float[Tensor, "*batch d_model"]:
    """Compute one head's part of an output projection from the projection's whole input.

    A plain linear layer is sliced; any other kind (a quantized one, or one whose weights are on disk) is run
    on an input that is zero elsewhere.
    """
    d_head = z.shape[-1] // count
    part = slice(index * d_head, (index + 1) * d_head)
    weight: Any = getattr(projection, "weight", None)
    here = type(weight) is nn.Parameter and not weight.is_meta
    if type(projection) is nn.Linear and here:
        return z[..., part] @ weight[:, part].T
    if type(projection) is Conv1D and here:
        return z[..., part] @ weight[part]
    alone = torch.zeros_like(z)
    alone[..., part] = z[..., part]
    return projection.forward(alone) - projection.forward(torch.zeros_like(z))


def head_weights(projection: nn.Module, view: View) -> tuple[Tensor, Tensor | None] | None:
    """Cut weights ``[d_model head d_head]`` and bias ``[head d_head]`` of one part out of a projection.

    Args:
        projection: gives queries, keys or values, or all three.
        view: how the part is cut out of its output.

    Returns:
        None where the projection is no plain linear layer (a quantized one, say).
    """
    weight: Any = getattr(projection, "weight", None)
    bias: Any = getattr(projection, "bias", None)
    if type(weight) is not nn.Parameter or weight.is_meta or type(projection) not in (nn.Linear, Conv1D):
        return None
    table = weight.detach().T if type(projection) is nn.Linear else weight.detach()
    return view.read(table, None), None if bias is None else view.read(bias.detach(), None)
