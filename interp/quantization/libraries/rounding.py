"""Built-in round to nearest: always there, and the yardstick for everything else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interp.quantization.libraries.library import Job, Library, Packed, rows
from interp.quantization.schemes import Scheme

__all__ = ["Rounded", "Rounding", "library"]

SMALLEST = 1e-8


class Rounded(nn.Module):
    """A linear layer's weights as whole numbers with a scale (and an offset) per group.

    Rounded to nearest, a weight at 8 bits is ``scale * code`` with codes from -127 to 127; below,
    ``scale * (code - zero)`` with codes from 0 to ``2**bits - 1`` and a range that includes 0.
    """

    def __init__(
        self, layer: nn.Linear, bits: int, group: int, rule: Callable[..., tuple[Tensor, ...]] | None = None
    ) -> None:
        super().__init__()
        weight = rows(layer, group)
        self.out_features, self.in_features = layer.out_features, layer.in_features
        self.dtype = layer.weight.dtype
        codes, scale, zero = (rule or _nearest)(weight, bits)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    codes: Tensor
    scale: Tensor
    zero: Tensor

    def dequantized(self) -> Float[Tensor, "out in"]:
        """The weights that the codes stand for, in float32."""
        return ((self.codes.float() - self.zero.float()) * self.scale).flatten(1)

    def forward(self, states: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply with the dequantized weights."""
        return functional.linear(states, self.dequantized().to(self.dtype), self.bias)


def _nearest(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    return _symmetric(weight) if bits >= 8 else _with_offset(weight, 2**bits - 1)


def _symmetric(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = (weight.abs().amax(-1, keepdim=True) / 127).clamp_min(SMALLEST)
    codes = (weight / scale).round().clamp(-127, 127).to(torch.int8)
    return codes, scale, torch.zeros_like(scale, dtype=torch.int8)


def _with_offset(weight: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    low, high = weight.amin(-1, keepdim=True).clamp_max(0), weight.amax(-1, keepdim=True).clamp_min(0)
    scale = ((high - low) / top).clamp_min(SMALLEST)
    zero = (-low / scale).round()
    codes = ((weight / scale).round() + zero).clamp(0, top)
    return codes.to(torch.uint8), scale, zero.to(torch.uint8)


class Rounding(Library):
    """Round every layer by itself."""

    def packed(self, job: Job) -> Packed:
        """A :class:`Rounded` for each layer."""
        return Packed(
            {name: Rounded(layer, job.scheme.bits, job.group(name)) for name, layer in job.layers.items()}
        )

    def weight(self, module: nn.Module) -> Float[Tensor, "out in"]:
        """The dequantized weights."""
        assert isinstance(module, Rounded)
        return module.dequantized()

    def needed(self, layer: nn.Linear, scheme: Scheme, group: int) -> int:
        """Count codes, scales and, below 8 bits, one offset per group of as many bits as a code."""
        groups = layer.out_features * (layer.in_features // group if group else 1)
        offsets = 0 if scheme.bits >= 8 else (groups * scheme.bits + 7) // 8
        return super().needed(layer, scheme, group) + offsets


def library() -> Rounding:
    """The library."""
    return Rounding()
