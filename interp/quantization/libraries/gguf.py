"""The block formats of GGUF files, by the package gguf itself: what people run with llama.cpp.

Blocks of 32 weights along the input share a scale (and an offset in the formats that end in 1).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interp.quantization.libraries.library import Job, Library, Packed
from interp.quantization.schemes import Scheme

__all__ = ["Blocks", "Gguf", "library"]

BLOCK = 32
BYTES = {"q8_0": 34, "q5_1": 24, "q5_0": 22, "q4_1": 20, "q4_0": 18}
"""Of one block: codes, scale and offset."""


class Blocks(nn.Module):
    """A linear layer whose weights are the bytes that a GGUF file would hold."""

    codes: Tensor

    def __init__(self, layer: nn.Linear, kind: str) -> None:
        super().__init__()
        self.in_features, self.out_features, self.kind = layer.in_features, layer.out_features, kind
        self.dtype = layer.weight.dtype
        plain = layer.weight.detach().float().cpu().numpy()
        self.register_buffer("codes", torch.from_numpy(_quants().quantize(plain, _type(kind)).copy()))
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def dequantized(self) -> Float[Tensor, "out in"]:
        """The weights that the codes stand for, in float32."""
        plain = _quants().dequantize(self.codes.cpu().numpy(), _type(self.kind))
        return torch.from_numpy(np.ascontiguousarray(plain, dtype=np.float32)).to(self.codes.device)

    def forward(self, states: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply with the dequantized weights."""
        return functional.linear(states, self.dequantized().to(self.dtype), self.bias)


class Gguf(Library):
    """Round every layer as a GGUF file of one type would hold it."""

    package = "gguf"
    extra = "gguf"

    def packed(self, job: Job) -> Packed:
        """:class:`Blocks` for each layer whose width is a multiple of 32."""
        kind = _kind(job.scheme)
        made = {name: Blocks(one, kind) for name, one in job.layers.items() if not one.in_features % BLOCK}
        why = f"blocks of {BLOCK} weights do not divide its width"
        return Packed(made, {name: why for name in job.layers if name not in made})

    def weight(self, module: nn.Module) -> Float[Tensor, "out in"]:
        """The dequantized weights."""
        assert isinstance(module, Blocks)
        return module.dequantized()

    def group(self, job: Job, name: str) -> int:
        """Blocks of 32."""
        return BLOCK

    def needed(self, layer: nn.Linear, scheme: Scheme, group: int) -> int:
        """The bytes of its blocks."""
        return layer.weight.numel() // BLOCK * BYTES[_kind(scheme)]


def _kind(scheme: Scheme) -> str:
    return scheme.name.partition(":")[2]


def _quants() -> Any:
    return import_module("gguf.quants")


def _type(kind: str) -> Any:
    return import_module("gguf").GGMLQuantizationType[kind.upper()]


def library() -> Gguf:
    """The library."""
    return Gguf()
