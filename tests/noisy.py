"""Copies of a model whose weights are changed a little, or a lot."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch

import interp
from interp.models.model import Model

__all__ = ["demo", "noisy"]


@cache
def demo() -> Model:
    """Give the bundled model, loaded once."""
    return interp.load("demo")


def noisy(model: Model, share: float, *, seed: int = 0, dtype: torch.dtype | None = None) -> Model:
    """Add to every matrix of the blocks noise of ``share`` times its own spread; the model stays as it is."""
    hf: Any = copy.deepcopy(model.hf)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(hf.named_parameters()):
            if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
                weight.add_(share * weight.std() * torch.randn(weight.shape, generator=generator))
    return interp.load(hf if dtype is None else hf.to(dtype), tokenizer=model.tokenizer)
