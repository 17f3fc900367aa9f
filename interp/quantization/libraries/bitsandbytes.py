"""bitsandbytes: LLM.int8() per row, and the 4-bit codes NF4 and FP4 in blocks of 64."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.quantization.libraries.library import Job, Library, Packed
from interp.quantization.schemes import Scheme

__all__ = ["Bitsandbytes", "library", "quiet", "without_repacking"]

BLOCK = 64
OUTLIER = 6.0
"""Inputs of at least this size bypass the int8 product (the ``llm_int8_threshold`` of transformers)."""


class Bitsandbytes(Library):
    """Quantize with the modules of bitsandbytes, one layer at a time.

    The settings are those of ``BitsAndBytesConfig`` in transformers: no second quantization of the scales,
    outliers above 6. Source: Dettmers et al., LLM.int8() (arXiv 2208.07339) and QLoRA (arXiv 2305.14314).
    """

    package: ClassVar[str] = "bitsandbytes"
    extra: ClassVar[str] = "bnb"

    def packed(self, job: Job) -> Packed:
        """A ``Linear8bitLt`` or ``Linear4bit`` for each layer, safe to run, save and differentiate."""
        make = _int8 if job.scheme.bits == 8 else _four
        with quiet():
            return Packed({name: make(layer, job.scheme) for name, layer in job.layers.items()})

    @torch.no_grad()
    def weight(self, module: nn.Module) -> Float[Tensor, "out in"]:
        """The dequantized weights."""
        if _is_four(module):
            return _dequantized(module).float()
        weight: Any = module.weight
        return weight.data.float() * _row_scales(module).float()[:, None] / 127

    def group(self, job: Job, name: str) -> int:
        """64 for the 4-bit codes, whose blocks run on from one row into the next, and 0 for int8."""
        return 0 if job.scheme.bits == 8 else BLOCK

    def needed(self, layer: nn.Linear, scheme: Scheme, group: int) -> int:
        """Count codes and float32 scales: one a row for int8, one a block of 64 weights otherwise."""
        scales = layer.out_features if scheme.bits == 8 else -(-layer.weight.numel() // BLOCK)
        return (layer.weight.numel() * scheme.bits + 7) // 8 + 4 * scales

    def stored(self, module: nn.Module) -> int:
        """Measure codes and scales; the scales are no parameters of the modules."""
        weight: Any = module.weight
        state: Any = weight.quant_state if _is_four(module) else None
        scales = [state.absmax, state.code] if state is not None else [_row_scales(module)]
        return sum(one.numel() * one.element_size() for one in (weight.data, *scales))


def without_repacking(root: nn.Module) -> int:
    """Stop every 4-bit layer below a module from repacking its weights for the CPU's bfloat16 instructions.

    On a CPU with AVX512-BF16 a ``Linear4bit`` in evaluation mode repacks its weights in the first forward
    pass without gradients. From then on the gradient of its input is wrong or an error, saving the model
    changes it, and widths that 64 does not divide fail. The switch is not part of a checkpoint: call this
    again on a model that transformers has loaded.

    Returns:
        How many layers there are.
    """
    layers: list[Any] = [module for module in root.modules() if _is_four(module)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def _is_four(module: nn.Module) -> bool:
    return any(one.__name__ == "Linear4bit" for one in type(module).__mro__)


def _dequantized(module: nn.Module) -> Float[Tensor, "out in"]:
    """The weights of a 4-bit layer, read as one long row.

    Version 0.50.2 reads ``[out, in]`` on a CPU as if blocks started anew with each row, which is wrong where
    64 does not divide ``in`` (width 96: a relative error of 0.26 instead of 0.09).
    """
    functional: Any = import_module("bitsandbytes.functional")
    weight: Any = module.weight
    state = copy.copy(weight.quant_state)
    shape, state.shape = state.shape, torch.Size([state.shape.numel()])
    return functional.dequantize_4bit(weight.data, state).view(shape)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's log to errors for the time of a ``with``."""
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _four(layer: nn.Linear, scheme: Scheme) -> nn.Module:
    library: Any = import_module("bitsandbytes.nn")
    made = (library.Linear4bit if layer.in_features % BLOCK == 0 else _long_linear())(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=layer.weight.dtype,
        compress_statistics=False,
        quant_type=scheme.name,
        device="meta",
    )
    made.weight = library.Params4bit(
        layer.weight.data,
        requires_grad=False,
        blocksize=BLOCK,
        compress_statistics=False,
        quant_type=scheme.name,
        module=made,
    )
    made.bias = layer.bias
    without_repacking(made)
    return made.to(layer.weight.device).eval()


def _int8(layer: nn.Linear, scheme: Scheme) -> nn.Module:
    library: Any = import_module("bitsandbytes.nn")
    made = _quiet_linear()(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER,
        device="meta",
    )
    made.weight = library.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    made.bias = layer.bias
    return made.to(layer.weight.device).eval()


@cache
def _long_linear() -> Any:
    """Make the class of 4-bit layers whose width 64 does not divide: on a CPU the library misreads them."""
    parent: Any = import_module("bitsandbytes.nn").Linear4bit

    class LongLinear4bit(parent):
        def forward(self, x: Tensor) -> Tensor:
            if x.device.type != "cpu":
                return super().forward(x)
            return nn.functional.linear(x, _dequantized(self).to(x.dtype), self.bias)

    return LongLinear4bit


@cache
def _quiet_linear() -> Any:
    """Make the class of int8 layers that keep quiet: on a CPU the library logs a line per call."""
    parent: Any = import_module("bitsandbytes.nn").Linear8bitLt

    class QuietLinear8bitLt(parent):
        def forward(self, x: Tensor) -> Tensor:
            with quiet():
                return super().forward(x)

    return QuietLinear8bitLt


def _row_scales(module: nn.Module) -> Tensor:
    """The largest absolute weight per row; the first forward pass moves it to another place."""
    weight: Any = module.weight
    state: Any = module.state
    return weight.SCB if weight.SCB is not None else state.SCB


def library() -> Bitsandbytes:
    """The library."""
    return Bitsandbytes()
