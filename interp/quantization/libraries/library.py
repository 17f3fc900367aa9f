"""What every quantization library gives: modules that hold the weights, and the weights they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.fingerprints import parts
from interp.quantization.schemes import Scheme

__all__ = ["Job", "Library", "Packed", "group_for", "stored"]


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be quantized.

    Attributes:
        hf: a copy of the model, with its own modules and shared weights; nothing of it may be changed.
        layers: module name -> a linear layer ``[out, in]`` of its own with that module's weights, whatever
            the module's own class is.
        scheme: how.
        texts: token ids per calibration text; empty for schemes without.
    """

    hf: Any
    layers: Mapping[str, nn.Linear]
    scheme: Scheme
    texts: tuple[tuple[int, ...], ...] = ()

    def group(self, name: str) -> int:
        """The group size for a layer: the one asked, a smaller one that divides its width, or 0."""
        return group_for(self.layers[name].in_features, self.scheme.group)


@dataclass(frozen=True, eq=False)
class Packed:
    """What a library made.

    Attributes:
        modules: layer name -> the library's module.
        skipped: layer name -> why it was left as it is.
        others: parameter name -> its new value, where a method moves factors out of the layers.
    """

    modules: Mapping[str, nn.Module]
    skipped: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Tensor] = field(default_factory=dict)


class Library(ABC):
    """Quantize linear layers with one library."""

    package: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    def missing(self, scheme: Scheme) -> str:
        """What has to be installed for a scheme, or ""."""
        if not self.package or find_spec(self.package) is not None:
            return ""
        return f"{self.package} is not installed: pip install 'interp-toolkit[{self.extra}]'"

    def check(self, scheme: Scheme) -> None:
        """Refuse a scheme that cannot run here; another one's numbers are never put in its place.

        Raises:
            ModelError: the library is missing.
        """
        if missing := self.missing(scheme):
            raise ModelError(
                f"scheme {str(scheme)!r} asked, but {missing}. Built in, with other numbers: "
                f"rtn{scheme.bits}."
            )

    @abstractmethod
    def packed(self, job: Job) -> Packed:
        """Quantize; the layers of the job may be used up."""

    @abstractmethod
    def weight(self, module: nn.Module) -> Float[Tensor, "out in"]:
        """The weights that a module of :meth:`packed` stands for, in float32."""

    def group(self, job: Job, name: str) -> int:
        """The group size that a layer gets; 0 for a row."""
        return job.group(name)

    def needed(self, layer: nn.Linear, scheme: Scheme, group: int) -> int:
        """Count the bytes that a layer's weights need: codes, and for each group a scale of two bytes."""
        groups = layer.out_features * (layer.in_features // group if group else 1)
        return (layer.weight.numel() * scheme.bits + 7) // 8 + 2 * groups

    def stored(self, module: nn.Module) -> int:
        """Measure the bytes that a module's tensors take, its bias left out."""
        return sum(stored(tensor) for name, tensor in _tensors(module) if name != "bias")


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def stored(tensor: Tensor) -> int:
    """Measure the bytes of a tensor, of its parts where it is a subclass that holds several."""
    return sum(part.numel() * part.element_size() for part in parts(tensor))


def group_for(width: int, asked: int) -> int:
    """The group asked, or the largest of 128, 64 and 32 below it that divides a width; else 0, a row."""
    sizes = [asked, *(size for size in (128, 64, 32) if size < asked)]
    return next((size for size in sizes if size and size <= width and width % size == 0), 0)


@torch.no_grad()
def rows(layer: nn.Linear, group: int) -> Float[Tensor, "out groups within"]:
    """Cut a layer's float32 weights into groups along the input."""
    weight = layer.weight.detach().float()
    return weight.reshape(weight.shape[0], -1, group or weight.shape[1])
