"""From a model and a scheme to a new model, with a report of what was done."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from interp import tasks
from interp.errors import ConfigError, ModelError, counted
from interp.models.backends import BACKENDS
from interp.models.linear import (
    as_linear,
    is_linear,
    linear_modules,
    other_weights,
    put_module,
    put_weight,
)
from interp.models.loading import ModelLike, as_model, load
from interp.models.model import Model
from interp.models.quantized import CACHE, REQUESTED, Quantization, QuantizedModule
from interp.models.rounded_cache import GRADIENTS, attach
from interp.models.tied_weights import twin
from interp.quantization.libraries import Job, Library, Packed, library_of
from interp.quantization.libraries.library import stored
from interp.quantization.schemes import Scheme

__all__ = ["ALIKE", "MODES", "calibration_texts", "cosine", "gradient_fault", "quantize", "refuse"]

MODES: dict[str, str] = {
    "dense": "the scheme's numbers in the model's own modules: exact gradients, every site and backend",
    "packed": "the library's own modules: their memory and speed",
}


@torch.random.fork_rng(devices=[])  # building a twin draws numbers, which are put back
def quantize(
    model: ModelLike,
    scheme: str | Scheme = "int8",
    *,
    mode: str = "dense",
    skip: Sequence[str] = (),
    calibration: Sequence[str] | Sequence[Sequence[int]] | None = None,
) -> Model:
    """A model whose linear layers in the blocks are held at a scheme's precision.

    Embeddings and the head keep theirs. Schemes that hold the cache (``kv8``, ``kv4``) leave all weights as
    they are, and round keys and values as a cache keeps them: after projection, norm and rotation, of every
    token, of the prompt too, in whole passes as in steps; the sites ``k`` and ``v`` are read before that. The
    model given is left as it is, and whatever is not quantized is shared with it. ``.quantization`` of the
    new model reports what was done.

    Args:
        model: at full precision.
        scheme: a key of ``SCHEMES``, with a group size such as ``int4-g32`` where it has one.
        mode: a key of ``MODES``.
        skip: names or globs of modules to leave as they are, such as ``"*.down_proj"``.
        calibration: texts or token ids, for schemes that need them.

    Raises:
        ConfigError: an unknown scheme or mode, calibration missing or in vain, or a ``skip`` of nothing.
        ModelError: the library is missing, the model is quantized already, or no module could be quantized.

    Example:
        >>> import interp
        >>> small = quantize(interp.load("demo"), "rtn4")
        >>> len(small.quantization.quantized)
        168
    """
    model, scheme = as_model(model), Scheme.parse(scheme)
    refuse(model, scheme, mode=mode, calibration=calibration)
    started, base = time.perf_counter(), model.fingerprint
    report = Quantization(str(scheme), mode, (), {}, 0, _bytes(model.hf), 0, 0.0, scheme.group, base=base)
    if not scheme.library:
        if skip:
            raise ConfigError(f"skip={list(skip)!r} asked, but {scheme} is of whole models. Leave it out.")
        hf = _converted(model.hf) if scheme.name == "bf16" else twin(model.hf)
        report = replace(report, bytes_after=_bytes(hf))
        if scheme.holds == "cache":
            return _with_cache(model, hf, report, scheme.bits, started)
        return _wrapped(model, hf, report, started)
    hf, library = twin(model.hf), library_of(scheme)
    copied = replace(model.architecture, hf=hf)
    modules = linear_modules(copied)
    skipped = _skipped(model, modules, skip)
    layers = {name: as_linear(module) for name, module in modules.items() if name not in skipped}
    stacked = other_weights(copied)
    others = {name: _matrix(weight) for name, weight in stacked.items()}
    sizes = {name: layer.weight.numel() for name, layer in layers.items()}
    job = Job(hf, layers, scheme, _texts(model, calibration))
    packed = library.packed(job)
    done = _put(hf, packed, library, job, mode)
    _check_done(model, scheme, modules, done, skipped | dict(packed.skipped))
    report = replace(
        report,
        modules=done,
        skipped={**skipped, **packed.skipped, **others},
        expected=len(modules) + len(others),
        calibration=_provenance(job.texts),
        gradients="" if mode == "dense" else _fault(scheme, packed, library, model.dtype),
    )
    notes = _coverage(model, sum(sizes[one.name] for one in done), report, stacked)
    after = sum(one.bytes for one in done) + _bytes_left(hf, {one.name for one in done})
    return _wrapped(model, hf, replace(report, bytes_after=after), started, notes)


def _with_cache(model: Model, hf: Any, report: Quantization, bits: int, started: float) -> Model:
    """Attach the rounding after the sites were validated: ``v`` is read before it, and ``z`` comes after."""
    report = replace(report, mode=CACHE, gradients=GRADIENTS)
    note = f"weights are untouched: keys and values are rounded to {bits} bits, of every token in every pass"
    made = _wrapped(model, hf, report, started, (note,))
    at = made.architecture
    attach(made.hf, [at.part(layer, "attention") for layer in range(made.n_layers)], bits)
    return made


def _matrix(weight: nn.Parameter) -> str:
    return f"a parameter of shape {tuple(weight.shape)} that belongs to no linear module"


NAMED = 0.01
"""The share of the weights of the blocks from which on matrices that keep their precision are named."""


def _coverage(
    model: Model, held: int, report: Quantization, others: Mapping[str, nn.Parameter]
) -> tuple[str, ...]:
    """How much of the blocks keeps its precision, and what: stacked experts, which no library reads."""
    if report.requested:
        return ()
    matrices = {w for block in model.architecture.blocks for w in block.parameters() if w.ndim >= 2}
    total = sum(weight.numel() for weight in matrices)
    left: dict[str, float] = {}
    for name, weight in others.items():
        kind = re.sub(r"\.\d+\.", ".*.", name)
        left[kind] = left.get(kind, 0.0) + weight.numel() / total
    named = ", ".join(f"{kind} ({share:.0%})" for kind, share in left.items() if share >= NAMED)
    share = held / total
    if share > 0.5 and not named:
        return ()
    number = counted(len(report.skipped), "module or matrix keeps its", "modules or matrices keep their")
    return (
        f"only {share:.0%} of the weights in the blocks are held at {report.scheme}; {number} precision"
        f"{f', of them {named}' if named else ''}: see model.quantization.table()",
    )


def refuse(model: Model, scheme: Scheme, *, mode: str = "dense", calibration: Any = None) -> None:
    """Raise what :func:`quantize` would raise, before anything is computed."""
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r} asked; use {' or '.join(map(repr, MODES))}.")
    if model.quantization is not None and not model.quantization.plain:
        raise ModelError(
            f"{model.name!r} is held at {model.quantization.scheme} already. Quantize the model it was "
            "made from."
        )
    if model.architecture.offloaded:
        raise ModelError(
            f"weights of {model.name!r} are kept on disk or elsewhere (device_map), and are rounded where "
            "they are read. Load it without device_map, or with every module on a device, to quantize it."
        )
    if scheme.needs_calibration and not calibration:
        raise ConfigError(
            f"{scheme} chooses its rounding on texts: give calibration=texts (or token ids), such as "
            "interp.quantization.calibration_texts() for the bundled model."
        )
    if calibration and not scheme.needs_calibration:
        raise ConfigError(f"calibration given, but {scheme} uses none. Leave it out.")
    if mode == "packed" and not scheme.packs:
        raise ConfigError(f"mode 'packed' asked, but {scheme} is offered as mode='dense' only.")
    if scheme.holds == "cache" and model.backend is not None:
        raise ModelError(
            f"{scheme} of a model of the backend {model.backend.name!r} asked; keys and values are rounded "
            "by native hooks. Use backend='native'."
        )
    if scheme.library:
        library_of(scheme).check(scheme)


def _skipped(model: Model, modules: Mapping[str, nn.Module], skip: Sequence[str]) -> dict[str, str]:
    """The modules that are left as they are, and why; a name that fits none of them is an error."""
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in modules):
            raise ConfigError(
                f"skip={pattern!r} asked, but no linear module in the blocks of {model.name!r} is called so. "
                f"They are called, for example: {', '.join(list(modules)[:7])}."
            )
    return {name: why for name, module in modules.items() if (why := _why_not(name, module, skip))}


def _why_not(name: str, module: nn.Module, skip: Collection[str]) -> str:
    if any(fnmatchcase(name, pattern) for pattern in skip):
        return REQUESTED
    if is_linear(module):
        return ""
    kinds = f"a {type(module).__name__} whose weight is a {type(module.weight).__name__}"
    return f"{kinds}: no plain linear layer, or quantized already"


def _texts(model: Model, calibration: Any) -> tuple[tuple[int, ...], ...]:
    return model.tokenize(list(calibration)).token_ids if calibration else ()


def _converted(hf: Any) -> Any:
    """Copy a model with its parameters in bfloat16; buffers such as rotary frequencies keep their type."""
    made = copy.deepcopy(twin(hf))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    made.config.dtype = torch.bfloat16
    return made


def _put(hf: Any, packed: Packed, library: Library, job: Job, mode: str) -> tuple[QuantizedModule, ...]:
    """Put the quantized weights or modules into the copy, and measure how far they are from the base's."""
    parameters = dict(hf.named_parameters())
    for name, value in packed.others.items():
        place, _, last = name.rpartition(".")
        old = parameters[name]
        setattr(
            hf.get_submodule(place), last, nn.Parameter(value.to(old.device, old.dtype), old.requires_grad)
        )
    done: list[QuantizedModule] = []
    for name, module in packed.modules.items():
        layer, weight = as_linear(hf.get_submodule(name)), library.weight(module)
        before = layer.weight.float()
        held = weight.to(job.hf.dtype).float() if mode == "dense" else weight
        error = float((held - before).norm() / before.norm().clamp_min(1e-30))
        group = library.group(job, name)
        if mode == "dense":
            put_weight(hf.get_submodule(name), weight)
        else:
            put_module(hf, name, module.eval().requires_grad_(False))
        size = library.needed(layer, job.scheme, group) if mode == "dense" else library.stored(module)
        done.append(QuantizedModule(name, group, size, error))
    return tuple(done)


def _check_done(
    model: Model,
    scheme: Scheme,
    modules: Mapping[str, Any],
    done: Sequence[QuantizedModule],
    skipped: Mapping[str, str],
) -> None:
    """Refuse a copy in which nothing, or less than is accounted for, was quantized."""
    if not done:
        why = next(iter(skipped.values()), f"its blocks hold no linear module ({model.hf.config.model_type})")
        raise ModelError(f"{scheme} quantized no module of {model.name!r}: {why}.")
    lost = [name for name in modules if name not in skipped and name not in {one.name for one in done}]
    if lost:
        raise ModelError(
            f"{scheme} left {len(lost)} of {len(modules)} modules of {model.name!r} as they were and gave no "
            f"reason, {lost[0]!r} first. Name them in skip= if that is what you want."
        )


def _fault(scheme: Scheme, packed: Packed, library: Library, dtype: torch.dtype) -> str:
    """Why gradients of packed modules must not be believed: measured first, then what is known."""
    if found := gradient_fault(packed.modules, library, dtype=dtype):
        return found
    if scheme.gradient_safe:
        return ""
    return "it rounds activations, and gradients pass through the rounding as if it were not there"


def _bytes(hf: Any) -> int:
    """Count the bytes of all parameters, shared ones once."""
    return sum(stored(parameter) for parameter in hf.parameters())


def _bytes_left(hf: Any, names: Collection[str]) -> int:
    """Count the bytes of everything but the weights that were quantized; biases stay."""
    return sum(
        stored(parameter)
        for name, parameter in hf.named_parameters()
        if name.rpartition(".")[0] not in names or name.endswith(".bias")
    )


def _provenance(texts: Sequence[Sequence[int]]) -> dict[str, Any]:
    if not texts:
        return {}
    digest = hashlib.sha256(json.dumps([list(text) for text in texts]).encode()).hexdigest()
    return {"texts": len(texts), "tokens": sum(map(len, texts)), "sha256": digest}


def _wrapped(
    model: Model, hf: Any, report: Quantization, started: float, warnings: tuple[str, ...] = ()
) -> Model:
    """Make a ``Model`` of the copy, validated like any other."""
    backend = "native" if model.backend is None else model.backend.name
    assert backend in BACKENDS
    made = load(hf, tokenizer=model.tokenizer, family=model.family, backend=backend)
    return replace(
        made,
        tokenizer=model.tokenizer,
        name=model.name,
        weights=model.weights,
        warnings=(*model.warnings, *warnings),
        quantization=replace(report, seconds=time.perf_counter() - started),
    )


def calibration_texts(n: int = 256, *, seed: int = 0, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Draw sentences with their answers, from the facts that the bundled model was trained on.

    The tasks take turns. What ``is_held_out`` keeps back for evaluation is not among them. For other models
    take texts like those the analysis will use.

    Args:
        n: how many.
        seed: the only source of randomness.
        names: keys of ``interp.tasks.TASKS``; () for all.

    Raises:
        ConfigError: an unknown task, or no text asked.

    Example:
        >>> calibration_texts(2, seed=0, names=["one-hop"])[0].endswith(" .")
        True
    """
    chosen = tuple(names) or tuple(tasks.TASKS)
    if unknown := [name for name in chosen if name not in tasks.TASKS]:
        raise ConfigError(f"task {unknown[0]!r} asked; there are: {', '.join(tasks.TASKS)}.")
    if n < 1:
        raise ConfigError(f"{n} calibration texts asked; at least 1 is needed, and 128 or more are usual.")
    world, rng = tasks.load_world(), random.Random(seed)
    return tuple(
        tasks.TASKS[chosen[index % len(chosen)]].generate(world, rng, "train").text for index in range(n)
    )


ALIKE = 0.99
ROWS = 4


def gradient_fault(
    modules: Mapping[str, nn.Module], library: Library, *, dtype: torch.dtype, seed: int = 0
) -> str:
    """What is wrong with the gradients of the first module whose are, or "".

    Each module first runs without gradients, as in any evaluation, because some kernels repack their weights
    then. After that the gradient of a random projection of its output with respect to its input must point
    where that of the dequantized weights does: a cosine of at least 0.99.

    Args:
        modules: what the library made.
        library: which knows the weights they stand for.
        dtype: of the model's activations.
        seed: of the inputs.
    """
    for name, module in modules.items():
        try:
            found = cosine(module, library, dtype=dtype, seed=seed)
        except RuntimeError as error:
            return f"{name!r} fails with them ({error})"
        if found is None:
            return f"the output of {name!r} is cut off from its input, without an error"
        if found < ALIKE:
            return (
                f"those of {name!r} do not point where the gradients of its weights do (cosine {found:.2f})"
            )
    return ""


def cosine(module: nn.Module, library: Library, *, dtype: torch.dtype, seed: int = 0) -> float | None:
    """The cosine between a module's gradient and that of its dequantized weights.

    Returns:
        None where the output needs no gradient although the input does.
    """
    weight = library.weight(module)
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(ROWS, weight.shape[1], generator=generator).to(weight.device, dtype)
    toward = torch.randn(ROWS, weight.shape[0], generator=generator).to(weight.device, dtype)
    with torch.no_grad():
        module(states)
    with torch.enable_grad():
        states = states.requires_grad_(True)
        output = module(states)
        if not output.requires_grad:
            return None
        (found,) = torch.autograd.grad((output * toward).sum(), states)
    expected = toward.float() @ weight
    return float(torch.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0))
