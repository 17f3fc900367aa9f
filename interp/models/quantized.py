"""What quantization did to a model: the report that a quantized ``Model`` carries."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.errors import ModelError, counted
from interp.models.rounded_cache import GRADIENTS, cache_bits

if TYPE_CHECKING:
    import pandas

__all__ = ["ARRIVED", "CACHE", "REQUESTED", "Quantization", "QuantizedModule", "arrived"]

REQUESTED = "left out on request"
"""Why a module was skipped that the caller named."""
ARRIVED = "arrived"
"""The mode of a model whose weights were quantized before it came here."""
CACHE = "cache"
"""The mode of a model whose weights are as they were, and whose keys and values are rounded."""
ALIKE, DIRECTIONS = 0.99, 64
PLAIN = (Tensor, nn.Parameter)
PACKED = ("qweight", "weight_packed", "weight_scale", "weight_scale_inv", "gate_up_proj_blocks")
"""Names under which GPTQ, AWQ, compressed tensors, fp8 and mxfp4 keep what they make of a weight."""


@dataclass(frozen=True)
class QuantizedModule:
    """One quantized weight.

    Attributes:
        name: of the module in the Hugging Face model.
        group: weights along the input that share a scale; 0 for a whole row.
        bytes: what the weight takes now, scales included.
        error: ``|W - Wq| / |W|``, Frobenius norms.
    """

    name: str
    group: int
    bytes: int
    error: float


@dataclass(frozen=True, eq=False, repr=False)
class Quantization:
    """What a quantized model was made of, and how far its weights are from the base's.

    Attributes:
        scheme: its name.
        mode: ``dense`` (the scheme's numbers in the model's own modules), ``packed`` (the library's),
            ``cache`` (keys and values are rounded, weights are not), or ``arrived`` (quantized by somebody
            else; what the weights were before is not known).
        modules: what was quantized, in the model's order.
        skipped: linear modules of the blocks that were not -> why.
        expected: linear modules in the blocks, and other matrices there, such as stacked experts.
        bytes_before: of all weights of the base.
        bytes_after: of all weights now: measured for packed modules, counted for dense ones (codes, scales
            and offsets as the scheme needs them).
        seconds: how long it took.
        asked: the group size that was asked; 0 for rows.
        calibration: texts, tokens and sha256 of what it was calibrated on; {} without.
        base: the fingerprint of the model it was made from.
        gradients: why gradients of it must not be believed, or "".
    """

    scheme: str
    mode: str
    modules: tuple[QuantizedModule, ...]
    skipped: Mapping[str, str]
    expected: int
    bytes_before: int
    bytes_after: int
    seconds: float
    asked: int = 0
    calibration: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    gradients: str = ""

    @property
    def quantized(self) -> tuple[str, ...]:
        """The names of the modules that were quantized."""
        return tuple(one.name for one in self.modules)

    @property
    def requested(self) -> tuple[str, ...]:
        """The names of the modules that were left out on request."""
        return tuple(name for name, why in self.skipped.items() if why == REQUESTED)

    @property
    def plain(self) -> bool:
        """Whether the weights are plain numbers, in full or read from a GGUF file, that can be quantized."""
        return self.scheme == "fp32" or self.scheme.startswith("gguf:")

    @property
    def weight_error(self) -> float:
        """The mean relative error of the quantized weights; 0 where there are none."""
        return float(np.mean([one.error for one in self.modules])) if self.modules else 0.0

    @property
    def narrower(self) -> tuple[QuantizedModule, ...]:
        """The modules whose width the group asked does not divide, which have another."""
        return tuple(one for one in self.modules if one.group != self.asked)

    def table(self) -> pandas.DataFrame:
        """One row per linear module of the blocks: module, quantized, group, bytes, error, why."""
        import pandas

        rows: list[dict[str, Any]] = [
            {
                "module": m.name,
                "quantized": True,
                "group": m.group,
                "bytes": m.bytes,
                "error": m.error,
                "why": "",
            }
            for m in self.modules
        ]
        rows += [
            {"module": name, "quantized": False, "group": None, "bytes": None, "error": None, "why": why}
            for name, why in self.skipped.items()
        ]
        return pandas.DataFrame(rows, columns=["module", "quantized", "group", "bytes", "error", "why"])

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON types, with one row per group size instead of one per module."""
        groups: dict[str, int] = {}
        for one in self.modules:
            groups[str(one.group or "row")] = groups.get(str(one.group or "row"), 0) + 1
        return {
            "scheme": self.scheme,
            "mode": self.mode,
            "quantized": len(self.modules),
            "expected": self.expected,
            "skipped": dict(self.skipped),
            "groups": groups,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "weight_error": self.weight_error,
            "largest_error": max((one.error for one in self.modules), default=0.0),
            "seconds": self.seconds,
            "calibration": dict(self.calibration),
            "base": self.base,
            "gradients": self.gradients,
        }

    def check_gradients(self, name: str) -> None:
        """Refuse gradients that would be silently wrong.

        Raises:
            ModelError: they would; the message says why, and what to do instead.
        """
        if self.gradients:
            bare = self.mode in (ARRIVED, CACHE)
            other = "the model without quantization" if bare else "mode='dense'"
            raise ModelError(
                f"gradients of {name!r} at {self.scheme} ({self.mode}) asked, but {self.gradients}. Use "
                f"{other}, whose gradients are exact, or a search without them, such as 'exhaustive'."
            )

    def __repr__(self) -> str:
        """What was done, in one line."""
        if self.mode == CACHE:
            return f"Quantization({self.scheme}: keys and values of every layer; weights are untouched)"
        if self.mode == ARRIVED:
            return f"Quantization({self.scheme}, quantized before it was loaded: {self.expected} modules)"
        ratio = self.bytes_after / max(1, self.bytes_before)
        return (
            f"Quantization({self.scheme}, {self.mode}: {len(self.modules)} of {self.expected} modules, "
            f"{self.bytes_before:,} -> {counted(self.bytes_after, 'byte')} ({ratio:.0%}), "
            f"weight error {self.weight_error:.2g}, {self.seconds:.1f} s)"
        )


def arrived(hf: nn.Module) -> Quantization | None:
    """What there is to know of a model that was quantized before it came here; None for a plain one.

    Its weights are no plain floating-point parameters. Their gradients are measured, not believed, on one
    module of every class and shape.
    """
    size = sum(t.numel() * t.element_size() for t in [*hf.parameters(), *hf.buffers()])
    if bits := cache_bits([*hf.modules()]):
        return Quantization(f"kv{bits}", CACHE, (), {}, 0, size, size, 0.0, gradients=GRADIENTS)
    found = {name: module for name, module in hf.named_modules() if _holds_codes(module)}
    if not found:
        return None
    kinds = {(type(m), type(m._parameters.get("weight")), _width(m)): name for name, m in found.items()}
    faults = (_gradient_fault(name, found[name]) for name in sorted(kinds.values()))
    return Quantization(
        _scheme(hf, next(iter(found.values()))),
        ARRIVED,
        (),
        {},
        len(found),
        size,
        size,
        0.0,
        gradients=next((fault for fault in faults if fault), ""),
    )


def _holds_codes(module: nn.Module) -> bool:
    """Whether a module of a model keeps its weight in another form than floating-point numbers."""
    own = {**module._parameters, **module._buffers}
    weight = own.get("weight")
    if weight is not None and isinstance(module, nn.Linear):
        return type(weight) not in PLAIN or weight.dtype.itemsize == 1
    return any(name in own for name in PACKED)


def _scheme(hf: nn.Module, module: nn.Module) -> str:
    """The method and its kind, such as ``bitsandbytes:nf4``, from the configuration or from the weights."""
    given: Any = getattr(getattr(hf, "config", None), "quantization_config", None)
    facts = given if isinstance(given, dict) else given.to_dict() if given is not None else {}
    method = facts.get("quant_method")
    if not facts or method is None:
        weight = module._parameters.get("weight")
        return f"{type(weight).__module__.partition('.')[0]}:{type(weight).__name__}"
    method = str(getattr(method, "value", method))
    if facts.get("load_in_4bit"):
        return f"{method}:{facts.get('bnb_4bit_quant_type', '4bit')}"
    if facts.get("load_in_8bit"):
        return f"{method}:int8"
    if method == "torchao":
        return f"{method}:{type(module._parameters.get('weight')).__name__}"
    return f"{method}:{bits}bit" if (bits := facts.get("bits")) else method


def _width(module: nn.Module) -> int:
    return int(getattr(module, "in_features", 0) or 0)


def _gradient_fault(name: str, module: nn.Module) -> str:
    """What is wrong with the gradients of a linear module, or "".

    The slope along random directions is measured by running the module, which needs no knowledge of its
    weights: they must be what its gradient says, a cosine of at least 0.99 over 64 directions.
    """
    if not _width(module):
        return f"those of {name!r} could not be measured: it is no linear module"
    for rows in (4, 1):  # kernels for one row are others than those for several
        try:
            with warnings.catch_warnings():  # of kernels without a gradient: what is measured here
                warnings.simplefilter("ignore")
                found = _slope_cosine(module, rows)
        except (RuntimeError, NotImplementedError) as error:
            return f"{name!r} fails with them ({error})"
        if found is None:
            return f"the output of {name!r} is cut off from its input, without an error"
        if not found >= ALIKE:
            return f"those of {name!r} do not point where its output moves (cosine {found:.2f})"
    return ""


def _slope_cosine(module: nn.Module, rows: int) -> float | None:
    generator, width = torch.Generator().manual_seed(0), _width(module)
    place = next(iter([*module.parameters(), *module.buffers()]))
    dtype = getattr(module, "compute_dtype", None) or (place.dtype if place.is_floating_point() else None)
    kind = dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32
    steps = torch.randn(DIRECTIONS, rows, width, generator=generator, dtype=torch.float32).to(
        place.device, kind
    )
    states = torch.randn(rows, width, generator=generator, dtype=torch.float32).to(place.device, kind)
    with torch.no_grad():  # some kernels repack their weights in a pass without gradients
        start = module(states).float()
        moved = module((states + steps).reshape(-1, width)).float().reshape(DIRECTIONS, rows, -1) - start
    toward = torch.randn(start.shape, generator=generator, dtype=torch.float32).to(start)
    with torch.inference_mode(False), torch.enable_grad():
        node = states.clone().requires_grad_(True)
        output = module(node)
        if not output.requires_grad:
            return None
        (gradient,) = torch.autograd.grad((output.float() * toward).sum(), node, allow_unused=True)
    if gradient is None:
        return None
    said, measured = (steps.float() * gradient.float()).sum((1, 2)), (moved * toward).sum((1, 2))
    return float(torch.cosine_similarity(said, measured, dim=0))
