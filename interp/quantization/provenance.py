"""Is a model that arrived quantized the quantization of the model it is compared with?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import counted
from interp.models.linear import as_linear, is_linear, linear_modules
from interp.models.model import Model
from interp.models.quantized import ARRIVED
from interp.quantization.libraries.library import group_for

__all__ = ["Provenance", "half_step", "provenance"]

MODULES, OTHER, VECTORS, FREE = 6, 0.7, 2e-2, ("awq",)
"""Modules that are compared, the relative error from which on two weights have nothing in common (1.4 where
they are unrelated), by how much norms and biases may differ, and methods that move factors between layers."""
WORST = {"nf4": 0.152, "fp4": 1 / 6}
"""Half the widest gap between the numbers of a block that spans -1 to 1."""


@dataclass(frozen=True)
class Provenance:
    """What a comparison of weights found.

    Attributes:
        scheme: how the quantized model says it is held.
        modules: how many modules were compared.
        error: the largest relative error of a module, ``|Wq - W| / |W|``.
        limit: half a step of the scheme on the same module, relative likewise, at most 0.7; NaN where it is
            not known.
        vectors: the largest relative difference of a norm or bias; NaN where the method changes these.
        why: what could not be compared, or "".
    """

    scheme: str
    modules: int
    error: float
    limit: float
    vectors: float
    why: str = ""

    @property
    def same(self) -> bool:
        """Whether it is the quantization of that base, as far as these weights say."""
        near = self.error <= (self.limit if self.limit == self.limit else OTHER)
        return not self.why and near and not self.vectors > VECTORS

    def __str__(self) -> str:
        """What was found, in one sentence."""
        if self.why:
            return f"it is not shown to be a quantization of that model: {self.why}"
        step = "a step that is not known" if self.limit != self.limit else f"half a step, {self.limit:.2g}"
        of = counted(self.modules, "module")
        found = f"weights of {of} are off by at most {self.error:.2g} (relative), against {step}"
        if self.vectors > VECTORS:
            found += f"; norms or biases by {self.vectors:.2g}, and no scheme changes these"
        if self.same:
            return f"it holds the weights of that model at {self.scheme}: {found}"
        return f"it is no quantization of that model at {self.scheme}, but of another one: {found}"


def provenance(model: Model, base: Model) -> Provenance | None:
    """Compare a few weights of a model that arrived quantized with those of what may be its base.

    The weights that a module computes with are read off its outputs for unit inputs, whatever its library. Of
    methods that move factors between layers (AWQ), the best factors of columns and rows are taken out first.
    A base that was trained further by less than half a step cannot be told from the base itself.

    Args:
        model: perhaps quantized by somebody else.
        base: the model it is compared with.

    Returns:
        None where the first did not arrive quantized, or the second is no model in full precision.
    """
    report = model.quantization
    if report is None or report.mode != ARRIVED or base.quantization is not None:
        return None
    every = {name: module for name, module in linear_modules(base.architecture).items() if is_linear(module)}
    names = list(every)[:: max(1, len(every) // MODULES)]
    moves = report.scheme.partition(":")[0] in FREE
    worst, limit = 0.0, float("nan")
    for name in names:
        try:
            module = model.hf.get_submodule(name)
        except AttributeError:
            return Provenance(report.scheme, 0, 1.0, limit, 0.0, f"it has no module {name!r}")
        own, plain = dense(module), as_linear(every[name]).weight.float().cpu()
        if own is None or own.shape != plain.shape:
            what = "holds no matrix" if own is None else f"is {tuple(own.shape)}, not {tuple(plain.shape)}"
            return Provenance(report.scheme, 0, 1.0, limit, 0.0, f"{name!r} {what}")
        if moves:
            plain = _rescaled(own, plain)
        error = float((own - plain).norm() / plain.norm().clamp_min(1e-30))
        if not error < worst:
            kind, group = _held(module, report.scheme)
            worst, limit = error, min(half_step(plain, kind, group or _group(model)), OTHER)
    return Provenance(report.scheme, len(names), worst, limit, _vectors(model, base, moves=moves))


@torch.no_grad()
def dense(module: nn.Module) -> Float[Tensor, "out in"] | None:
    """The weights that a linear module computes with, in float32; None where it is none."""
    if is_linear(module) and module.weight.dtype.itemsize > 1:  # type: ignore[union-attr, operator]
        return as_linear(module).weight.float().cpu()
    wide = int(getattr(module, "in_features", 0) or 0)
    place = next(iter([*module.parameters(), *module.buffers()]), None)
    if not wide or place is None:
        return None
    dtype = getattr(module, "compute_dtype", None) or (
        place.dtype if place.dtype.is_floating_point and place.dtype.itemsize > 1 else torch.float32
    )
    unit = torch.eye(wide, device=place.device, dtype=dtype)
    zero: Any = module(torch.zeros_like(unit[:1]))
    found: Any = module(unit)
    return (found - zero).float().T.cpu().contiguous()


def half_step(weight: Float[Tensor, "out in"], scheme: str, group: int = 0) -> float:
    """Half a step of a scheme on these weights, relative to them: what no rounding to nearest exceeds.

    Args:
        weight: of the base.
        scheme: as a model that arrived says it: ``gguf:Q4_0``, ``gptq:4bit``, ``bitsandbytes:nf4``.
        group: weights along the input that share a scale, where it is known.

    Returns:
        NaN where the scheme says no number of bits.
    """
    kind = scheme.lower()
    if "fp8" in kind or "float8" in kind or "e4m3" in kind:
        return 1 / 16  # three bits of fraction: half of 2**-3
    normal = next((one for one in WORST if one in kind), "")
    # of a "4bit" and "int4" the number; of "Q4_0" the digit after the letter
    digits = re.search(r"(\d+)bit|int(\d+)|:i?q(\d+)", kind)
    bits = int(next(one for one in digits.groups() if one)) if digits else 8 if "8" in kind else 0
    if not bits and not normal:
        return float("nan")
    size = group or (32 if kind.startswith("gguf") else 64 if normal else 0)
    cut = weight.reshape(len(weight), -1, group_for(weight.shape[1], size) or weight.shape[1])
    if normal:
        half = WORST[normal] * cut.abs().amax(-1, keepdim=True)
    else:  # symmetric codes spend their range on both signs alike
        half = cut.abs().amax(-1, keepdim=True) / (2**bits - 2)
    return float(half.expand_as(cut).norm() / weight.norm().clamp_min(1e-30))


def _held(module: nn.Module, scheme: str) -> tuple[str, int]:
    """The kind of number and the group of a weight that says both, as torchao does; else the scheme and 0."""
    weight: Any = getattr(module, "weight", None)
    kind = getattr(weight, "target_dtype", None)
    size = getattr(weight, "block_size", None)
    return (scheme if kind is None else str(kind)), (int(size[-1]) if size else 0)


def _group(model: Model) -> int:
    given: Any = getattr(model.hf.config, "quantization_config", None)
    facts = given if isinstance(given, dict) else given.to_dict() if given is not None else {}
    size = facts.get("group_size") or 0
    return size if isinstance(size, int) and size > 0 else 0


def _rescaled(own: Tensor, plain: Tensor) -> Tensor:
    """The base's weights with the factors of columns and rows that bring them nearest to others."""
    for axis in (0, 1, 0):
        top = (own * plain).sum(axis, keepdim=True)
        plain = plain * (top / plain.pow(2).sum(axis, keepdim=True).clamp_min(1e-30))
    return plain


def _vectors(model: Model, base: Model, *, moves: bool) -> float:
    """The largest relative difference of norms and biases that both models have."""
    if moves:
        return float("nan")
    own = {name: one for name, one in model.hf.named_parameters() if one.ndim == 1}
    both = [(own[name], one) for name, one in base.hf.named_parameters() if name in own and one.ndim == 1]
    pairs = [(a.detach().float().cpu(), b.detach().float().cpu()) for a, b in both if a.shape == b.shape]
    return max((float((a - b).norm() / b.norm().clamp_min(1e-6)) for a, b in pairs), default=0.0)
