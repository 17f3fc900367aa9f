"""Whole numbers as GPTQ and AWQ checkpoints pack them, and the weights they stand for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["Codes", "from_awq", "from_gptq", "unpacked"]

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs each half byte of an AWQ word holds, the lowest first."""


class Codes(nn.Module):
    """Hold the weights of a layer as ``scale * (code - zero)``.

    Args:
        codes: a whole number per weight.
        scale: per output and group.
        zero: the code of 0, per output and group.
        group_of: which group each input belongs to.
        columns: a factor per input by which the weights were multiplied before rounding.
        rows: a factor per output by which they were divided.
    """

    def __init__(
        self,
        codes: Int[Tensor, "out in"],
        scale: Float[Tensor, "out groups"],
        zero: Int[Tensor, "out groups"],
        *,
        group_of: Int[Tensor, " in"],
        columns: Float[Tensor, " in"] | None = None,
        rows: Float[Tensor, " out"] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("codes", codes.to(torch.uint8))
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero.to(torch.int16))
        self.register_buffer("group_of", group_of.long())
        self.register_buffer("columns", columns)
        self.register_buffer("rows", rows)

    codes: Tensor
    scale: Tensor
    zero: Tensor
    group_of: Tensor
    columns: Tensor | None
    rows: Tensor | None

    def dequantized(self) -> Float[Tensor, "out in"]:
        """Give the weights, in float32, with the factors put back."""
        scale = self.scale.float()[:, self.group_of]
        weight = (self.codes.float() - self.zero.float()[:, self.group_of]) * scale
        weight = weight if self.columns is None else weight / self.columns.float()
        return weight if self.rows is None else weight * self.rows.float()[:, None]


def unpacked(words: Int[Tensor, "*any words"], bits: int) -> Int[Tensor, "*any values"]:
    """Cut 32-bit words into the values they hold, the lowest bits first.

    Args:
        words: int32.
        bits: of a value; divides 32.
    """
    shifts = torch.arange(0, 32, bits, device=words.device)
    return ((words.unsqueeze(-1).long() >> shifts) & (2**bits - 1)).flatten(-2)


def from_gptq(tensors: Mapping[str, Tensor], name: str, bits: int, factors: Mapping[str, Tensor]) -> Codes:
    """Read a layer of a GPTQ checkpoint (format 1: offsets are stored less one)."""
    codes = unpacked(tensors[f"{name}.qweight"].T, bits)
    zero = (unpacked(tensors[f"{name}.qzeros"], bits) + 1).T
    return Codes(codes, tensors[f"{name}.scales"].T, zero, group_of=tensors[f"{name}.g_idx"])


def from_awq(tensors: Mapping[str, Tensor], name: str, bits: int, factors: Mapping[str, Tensor]) -> Codes:
    """Read a layer of an AWQ checkpoint (format "gemm"), and the factors that belong to it."""
    scale = tensors[f"{name}.scales"].T
    codes = _ordered(unpacked(tensors[f"{name}.qweight"], bits)).T
    zero = _ordered(unpacked(tensors[f"{name}.qzeros"], bits)).T
    width = codes.shape[1]
    group_of = torch.arange(width) // (width // scale.shape[1])
    columns, rows = factors.get(f"{name}:columns"), factors.get(f"{name}:rows")
    return Codes(codes, scale, zero, group_of=group_of, columns=columns, rows=_filled(rows, len(codes)))


def _ordered(values: Tensor) -> Tensor:
    """Undo the order of AWQ's half bytes along the last axis."""
    groups = values.unflatten(-1, (-1, len(ORDER)))
    return groups[..., list(map(ORDER.index, range(len(ORDER))))].flatten(-2)


def _filled(rows: Tensor | None, size: int) -> Tensor | None:
    """Put ones before factors that belong to the last outputs only, as in a fused projection."""
    return None if rows is None else torch.cat([torch.ones(size - len(rows)), rows])
