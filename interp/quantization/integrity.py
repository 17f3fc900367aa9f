"""The examination of a quantized model, before any number of it is believed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.errors import ConfigError, counted
from interp.models.certificate import Check, Examination
from interp.models.fingerprints import parts
from interp.models.forward import cache_of, gradients
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.quantized import CACHE
from interp.models.rounded_cache import rounded
from interp.models.tokens import Prompts
from interp.quantization.libraries import library_of
from interp.quantization.quantizing import ALIKE, cosine, quantize
from interp.quantization.schemes import Scheme
from interp.results import About

__all__ = ["Integrity", "verify_quantization"]

LOGITS = 2e-2
"""By how much packed and dense logits may differ, of the largest: kernels that multiply in half precision."""
AGAIN = 1e-4
"""By how much keys and values may change, of the largest, that are rounded once more."""
ROUNDED = 0.15
"""The same where the library's modules round activations too."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Integrity(Examination):
    """The checks of one quantized model.

    Attributes:
        scheme: its scheme.
        mode: ``dense`` or ``packed``.
    """

    schema: ClassVar[str] = "interp.integrity/1"
    scheme: str
    mode: str

    def question(self) -> str:
        """The question."""
        return f"Does {self.about.model.get('name')} hold what {self.scheme} says ({self.mode})?"


def verify_quantization(
    model: ModelLike, base: ModelLike, *, prompts: Prompts | None = None, seed: int = 0
) -> Integrity:
    """Check what makes numbers from a quantized model trustworthy; both models are left as they are.

    Every linear module of the blocks is accounted for; it comes from this base, which is as it was; gradients
    through it point where those of dense weights do, after a pass without gradients; packed and dense logits
    agree; and writing its tensors to disk after a pass leaves the live model as it was, and what was written
    makes a fresh copy compute the same. Where a scheme rounds activations too, gradients and products are
    compared module by module.

    Args:
        model: from :func:`interp.quantization.quantize`.
        base: the model it was made from.
        prompts: texts or token ids; None draws ids.
        seed: of that draw.

    Raises:
        ConfigError: the model is not quantized, or was made from another base.
    """
    model, base = as_model(model), as_model(base)
    report = model.quantization
    if report is None:
        raise ConfigError(f"{model.name!r} is not quantized; verify what interp.quantization.quantize gave.")
    if report.base != base.fingerprint:
        raise ConfigError(
            f"{model.name!r} at {report.scheme} was made from other weights than those of the base given. "
            "Give the model that was quantized, as it was."
        )
    ids = _ids(base, seed) if prompts is None else model.tokenize(prompts).token_ids
    dense = model
    if report.mode == "packed":
        dense = quantize(base, report.scheme, skip=report.requested)
    rounds = report.mode == "packed" and not Scheme.parse(report.scheme).weight_only
    same = _one_by_one(model) if rounds else [_logits(model, dense, ids), _gradients(model, dense, ids)]
    first = _cached(model, base, ids) if report.mode == CACHE else _modules(model)
    checks = [first, *same, _saved(model, base, ids)]
    return Integrity(
        about=About(model.described), scheme=report.scheme, mode=report.mode, checks=tuple(checks), seed=seed
    )


def _check(
    name: str,
    passed: bool,
    value: float,
    limit: float,
    detail: str,
    bound: Literal["at most", "at least"] = "at most",
) -> Check:
    return Check(name, "pass" if passed else "fail", value, limit, "", detail, bound)


def _ids(model: Model, seed: int) -> tuple[tuple[int, ...], ...]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(model.vocab_size, (4, 12), generator=generator)
    return tuple(tuple(row) for row in drawn.tolist())


def _modules(model: Model) -> Check:
    report = model.quantization
    assert report is not None
    done, left = len(report.modules), len(report.skipped)
    missing = report.expected - done - left
    detail = f"{done} of {report.expected} quantized, {left} left out with a reason"
    return _check("every module is accounted for", missing == 0, float(missing), 0.0, detail)


@torch.no_grad()
def _cached(model: Model, base: Model, ids: Sequence[Sequence[int]]) -> Check:
    """Read the cache after a pass: rounded again it must be the same, and at block 0 the base's rounded."""
    bits = Scheme.parse(model.scheme).bits
    given = torch.tensor(ids, device=model.device)
    hfs: list[Any] = [model.hf, base.hf]
    ours, theirs = (cache_of(hf(input_ids=given, use_cache=True)).layers for hf in hfs)
    off, plain = 0.0, 0.0
    for own, other in zip(ours, theirs, strict=True):
        for name in ("keys", "values"):
            kept, full = getattr(own, name), getattr(other, name)
            expected = rounded(full if own is ours[0] else kept, bits)
            off = max(off, float((expected - kept).abs().max() / kept.abs().max()))
            plain = max(plain, float((rounded(full, bits) - full).abs().max() / full.abs().max()))
    detail = f"furthest off a second rounding, of the largest; those of the base are {plain:.1g} off"
    name = "keys and values that are kept are rounded"
    return _check(name, off <= AGAIN < plain, off, AGAIN, detail)


def _one_by_one(model: Model, *, seed: int = 0) -> list[Check]:
    """Compare each module with the product with its weights, where activations are rounded too.

    Over a whole model such differences add up to whatever its depth makes of them, and say nothing about a
    kernel.
    """
    report = model.quantization
    assert report is not None
    library = library_of(Scheme.parse(report.scheme))
    generator = torch.Generator().manual_seed(seed)
    apart, slopes = [], []
    for module in map(model.hf.get_submodule, report.quantized):
        weight, bias = library.weight(module), module.bias
        states = torch.randn(8, weight.shape[1], generator=generator).to(weight.device, model.dtype)
        with torch.no_grad():
            found = module(states).float() - (0.0 if bias is None else bias.float())
        expected = states.float() @ weight.T
        apart.append(float((found - expected).norm() / expected.norm()))
        slopes.append(cosine(module, library, dtype=model.dtype, seed=seed) or 0.0)
    off, slope = max(apart), min(slopes)
    return [
        _check("each module multiplies by its weights", off <= LOGITS, off, LOGITS, "the furthest off"),
        _check(
            "each module's gradient is that of its weights",
            slope >= ALIKE,
            slope,
            ALIKE,
            "least cosine",
            "at least",
        ),
    ]


def _logits(model: Model, dense: Model, ids: Sequence[Sequence[int]]) -> Check:
    ours, theirs = model.logits(ids), dense.logits(ids)
    off = float((ours - theirs).abs().max() / theirs.abs().max())
    detail = "its logits less those of the dense weights, of the largest"
    weights_only = model.quantization is None or Scheme.parse(model.quantization.scheme).weight_only
    limit = LOGITS if weights_only else ROUNDED
    return _check("packed logits are the dense ones", off <= limit, off, limit, detail)


def _gradients(model: Model, dense: Model, ids: Sequence[Sequence[int]]) -> Check:
    name = "gradients are those of the dense weights"
    report = model.quantization
    if report is not None and report.gradients:  # known of schemes that round activations, else a fault
        known = not Scheme.parse(report.scheme).weight_only
        return _check(name, known, 0.0, ALIKE, f"refused where asked for: {report.gradients}", "at least")
    favourite = dense.logits(ids).argmax(-1)
    ours, theirs = (_slope(one, ids, favourite) for one in (model, dense))
    found = float(torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0))
    detail = "cosine, with respect to the stream that enters block 0"
    return _check(name, found >= ALIKE, found, ALIKE, detail, "at least")


@gradients()
def _slope(model: Model, ids: Sequence[Sequence[int]], favourite: Tensor) -> Tensor:
    """The gradient of some tokens' log-probability at the first site, after a pass without gradients."""
    model.logits(ids)
    run = model.run(ids, capture=["resid_pre.0"], positions="all", grad=True)
    assert run.logits is not None
    assert run.activations is not None
    chosen = run.logits.float().log_softmax(-1).gather(1, favourite[:, None].to(run.logits.device))
    (found,) = torch.autograd.grad(chosen.sum(), run.activations["resid_pre.0"])
    return found.float()


def _saved(model: Model, base: Model, ids: Sequence[Sequence[int]]) -> Check:
    """Write every tensor after a pass, run the live model again, and put what was written into a copy."""
    name, before = "saving changes nothing", model.logits(ids)
    tensors = _flat(model.hf.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, path)
        again = load_file(path)
    live = _apart(model.logits(ids), before)
    report = model.quantization
    if report is None or report.mode != "packed":
        return _check(
            name, live == 0, live, 0.0, f"{counted(len(tensors), 'tensor')}; by how much live logits differ"
        )
    fresh = quantize(base, report.scheme, mode="packed", skip=report.requested)
    _fill(fresh, {key: torch.zeros_like(tensor) for key, tensor in again.items()})
    if (
        fresh.quantization is not None
        and fresh.quantization.modules
        and not _apart(fresh.logits(ids), before)
    ):
        return _check(name, False, 0.0, 0.0, "what would be saved is not what it computes with")
    _fill(fresh, again)
    reloaded = _apart(fresh.logits(ids), before)
    of = counted(len(tensors), "tensor")
    detail = f"{of}; live logits differ by {live:.1g}, a reloaded copy's by {reloaded:.1g}"
    return _check(name, not live and not reloaded, max(live, reloaded), 0.0, detail)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().nan_to_num(nan=torch.inf).max())


@torch.no_grad()
def _fill(model: Model, values: Mapping[str, Tensor]) -> None:
    """Write values into the tensors of the quantized modules, which are the copy's own."""
    assert model.quantization is not None
    for name in model.quantization.quantized:
        module = model.hf.get_submodule(name)
        own = {f"{name}.{key}": one for key, one in [*module.named_parameters(), *module.named_buffers()]}
        for key, part in _flat(own).items():
            if key in values:
                part.copy_(values[key])


def _flat(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors by name, and the parts of those that are made of several."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        pieces = parts(tensor)
        numbered = {f"{name}#{at}": piece for at, piece in enumerate(pieces)}
        found |= numbered if len(pieces) > 1 else {name: pieces[0]}
    return found
