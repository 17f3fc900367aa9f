"""Half-quadratic quantization (HQQ): offsets that leave most weights close and few of them far off."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from interp.quantization.libraries.library import Job, Packed
from interp.quantization.libraries.rounding import SMALLEST, Rounded, Rounding
from interp.quantization.schemes import Scheme

__all__ = ["NORM", "HalfQuadratic", "half_quadratic", "library"]

NORM, SHARP, GROWTH, STEPS = 0.7, 10.0, 1.01, 20
"""The norm p, beta at the start, its factor from step to step, and how many steps: those of the authors."""


@torch.no_grad()
def half_quadratic(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Choose each group's offset so that ``sum |W - Wq|**p`` is small, with p = 0.7 (Badri and Shaji 2023).

    The scale is that of the range. In turns, what is off by more than a soft threshold is taken for an
    outlier (the proximal step of the norm) and the offset, which is no whole number, becomes the mean of what
    is left. Of all steps, the start (round to nearest with this scale) included, each group keeps the best,
    so that none is further off than it was at the start: the authors' own package stops for all groups of a
    layer at once.

    Args:
        weight: ``[out groups within]``.
        bits: of a code.

    Returns:
        Codes, scales and offsets; a weight is ``scale * (code - offset)``.
    """
    top = 2**bits - 1
    low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
    flat = high - low < SMALLEST
    scale = torch.where(flat, torch.ones_like(high), (high - low) / top)
    zero, sharp = -low / scale, SHARP
    best: list[Tensor] = []
    for _ in range(STEPS):
        codes = (weight / scale + zero).round().clamp(0, top)
        off = weight - (codes - zero) * scale
        far = off.abs().pow(NORM).sum(-1, keepdim=True)
        if not best:
            best = [codes, zero, far]
        else:
            nearer = far < best[2]
            found = zip((codes, zero, far), best, strict=True)
            best = [torch.where(nearer, new, old) for new, old in found]
        size = off.abs().clamp_min(SMALLEST)
        outlier = off.sign() * (size - size.pow(NORM - 1) / sharp).clamp_min(0)
        zero = (codes - (weight - outlier) / scale).mean(-1, keepdim=True)
        sharp *= GROWTH
    return best[0].to(torch.uint8), scale, best[1]


class HalfQuadratic(Rounding):
    """Choose every layer's offsets by :func:`half_quadratic`."""

    def packed(self, job: Job) -> Packed:
        """A :class:`Rounded` for each layer."""
        bits = job.scheme.bits
        return Packed(
            {name: Rounded(one, bits, job.group(name), half_quadratic) for name, one in job.layers.items()}
        )

    def needed(self, layer: nn.Linear, scheme: Scheme, group: int) -> int:
        """Count codes, and for each group a scale and an offset of two bytes each."""
        groups = layer.out_features * (layer.in_features // group if group else 1)
        return (layer.weight.numel() * scheme.bits + 7) // 8 + 4 * groups


def library() -> HalfQuadratic:
    """The library."""
    return HalfQuadratic()
