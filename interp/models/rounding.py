"""What rounding explains: relative errors, and factors near 1 that it hides in half precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["factor_error", "relative", "rounded_otherwise", "tolerance"]


def tolerance(dtype: torch.dtype) -> float:
    """The relative error that rounding in a dtype explains, with a margin."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 8 * torch.finfo(dtype).eps


def relative(got: Tensor, expected: Tensor, scale: Tensor | None = None) -> float:
    """The largest difference over the largest expected value or ``scale``; infinite for other shapes."""
    if got.shape != expected.shape:
        return float("inf")
    size = (expected if scale is None else scale).double().abs().max().item()
    return (got.double() - expected.double()).abs().max().item() / max(size, 1e-30)


def rounded_otherwise(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A function that rounds every number once more: off by at most one unit of its dtype, drawn by the seed.

    What a run changes by when its embedding is rounded otherwise is what rounding alone can do to it.
    """
    generator = torch.Generator().manual_seed(seed)

    def change(current: Tensor) -> Tensor:
        drawn = 2 * torch.rand(current.shape, generator=generator) - 1
        off = torch.finfo(current.dtype).eps * drawn.to(current.device)
        return (current.float() * (1 + off)).to(current.dtype)

    return change


def factor_error(pre: Tensor, post: Tensor, parts: Tensor) -> float:
    """How far the factor between what a block adds and its parts is from 1, as a multiple of the tolerance.

    In half precision rounding hides a factor of 0.97 in every single number, but not in their regression: one
    per cent beyond four standard errors counts as the whole tolerance. 0 in full precision, where
    :func:`relative` sees it.
    """
    if tolerance(post.dtype) <= 1e-5:
        return 0.0
    noise = torch.maximum(pre.double().abs(), post.double().abs()).clamp_min(1e-30)  # rounding is as large
    added, said = ((one / noise).flatten() for one in (post.double() - pre.double(), parts))
    size = float(said @ said)
    if size == 0:
        return 0.0
    factor = float(said @ added) / size
    rest = added - factor * said
    spread = (float(rest @ rest) / max(1, len(said) - 1) / size) ** 0.5
    return max(0.0, abs(factor - 1) - 4 * spread) / 0.01 * tolerance(post.dtype)
