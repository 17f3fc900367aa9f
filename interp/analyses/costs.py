"""Measure what a model costs: bytes, memory and time, next to the reference in one run."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interp.analyses.provenance import about
from interp.errors import ConfigError, counted
from interp.models.forward import cache_name, cache_of, forward, make_batch
from interp.models.hooks import evaluating
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.positions import Batch
from interp.quantization.libraries.library import stored
from interp.quantization.quantizing import quantize
from interp.quantization.schemes import Scheme
from interp.results.codec import UNSAVED
from interp.results.result import Result
from interp.results.shapes import Figure, Number, Table

__all__ = ["Cost", "cost", "most_bytes", "peak_memory", "ratio_of_medians", "weight_bytes"]

ROUNDS, PROMPTS, WIDTH, TOKENS = 9, 8, 64, 8
COLUMNS = ("measure", "unit", "value", "reference", "ratio", "low", "high", "n")


@dataclass(frozen=True)
class Measure:
    """One thing that a model costs, beside the reference in the same run.

    Attributes:
        measure: what.
        unit: of ``value`` and ``reference``.
        value: of the model; of a time the median of rounds.
        reference: of the reference, measured in turns with it.
        ratio: value over reference; None where that is 0.
        low: lower end of the ratio's 95% interval over rounds; None where nothing varies.
        high: its upper end.
        n: rounds.
    """

    measure: str
    unit: str
    value: float
    reference: float
    ratio: float | None
    low: float | None = None
    high: float | None = None
    n: int = 1


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Cost(Result):
    """What a model costs beside the reference.

    It has no findings on purpose: a cost has no chance value that it could fall back to, so that "survives"
    would mean nothing. What counts is the ratio, with its interval.

    Attributes:
        rows: the measures.
        beside: fingerprint of the reference.
        how: how it was measured.
        state: the model itself, for later runs beside it. It is not saved.
    """

    schema: ClassVar[str] = "interp.cost/2"
    rows: tuple[Measure, ...]
    beside: str
    how: str
    state: Mapping[str, Any] = field(default_factory=dict, metadata=UNSAVED)

    def question(self) -> str:
        """The question."""
        return f"What does {self.about.model.get('name')} cost?"

    def verdict(self) -> str:
        """The ratios."""
        known = [f"{one.measure} \u00d7 {one.ratio:.3g}" for one in self.rows if one.ratio is not None]
        return f"Beside the reference: {'; '.join(known)}."

    def lead(self) -> tuple[str, ...]:
        """How it was measured."""
        return (self.how,)

    def tables(self) -> tuple[Table, ...]:
        """One row per measure."""
        rows = [tuple(getattr(one, name) for name in COLUMNS) for one in self.rows]
        note = (
            "Ratio: value over reference, measured in turns in the same run, with a 95% interval over rounds "
            "where it varies. No verdicts: these numbers have no control."
        )
        return (Table("cost", "What it costs", COLUMNS, rows, note),)

    def numbers(self) -> tuple[Number, ...]:
        """The ratios."""
        return tuple(
            Number(
                f"{one.measure.replace(' ', '-')}-ratio",
                one.ratio,
                one.low,
                one.high,
                meaning=f"{one.value:,.4g} beside {one.reference:,.4g} {one.unit}",
                label=f"{one.measure}, of the reference's",
            )
            for one in self.rows
        )

    def figures(self) -> tuple[Figure, ...]:
        """The ratios with their intervals."""
        known = [one for one in self.rows if one.ratio is not None]
        data = {
            "name": [one.measure for one in known],
            "value": [one.ratio for one in known],
            "low": [one.ratio if one.low is None else one.low for one in known],
            "high": [one.ratio if one.high is None else one.high for one in known],
        }
        return (
            Figure(
                "ratios",
                "intervals",
                data,
                "Cost beside the reference",
                "Value over reference; 95% intervals over rounds.",
                x="ratio",
                reference=1.0,
                reference_name="the reference",
            ),
        )


def cost(
    model: ModelLike,
    *,
    reference: Cost | None = None,
    n: int = 0,
    seed: int = 0,
    prompts: int = PROMPTS,
    width: int = WIDTH,
) -> Cost:
    """Measure bytes, peak memory and speed of a model, in turns with the reference.

    Rows: bytes of the weights at their scheme (counted for dense copies, whose modules hold plain floats;
    measured for packed ones), bytes of the weights in memory here, peak memory of a pass beyond the weights,
    prefill (ms for all prompts) and decoding (ms per token for all prompts, with a cache). A dense copy runs
    the full model's kernels on plain floats, so what is measured in its place, beside its reference, is the
    same scheme in the library's own modules, where the scheme has such.

    Args:
        model: what is measured.
        reference: what this function returned for the reference model; the model itself where left out, so
            that the ratios show what two measurements of one model differ by.
        n: rounds of timing; 9 where 0.
        seed: of the random prompts and of the order of turns.
        prompts: how many prompts a pass reads.
        width: tokens per prompt; fewer where the model reads no more.

    Raises:
        ConfigError: a negative number of rounds, no prompts, or a reference without its model.
    """
    if n < 0 or prompts < 1 or width < 2:
        raise ConfigError(
            f"n={n} rounds of {prompts} prompts of {width} tokens asked; use 0 rounds or more, 1 prompt or "
            "more and 2 tokens or more."
        )
    model = as_model(model)
    beside = _reference(reference) or model
    given = model
    model, notes = _packed(given, beside)
    ids = _ids((model, beside), prompts, width, seed)
    rounds = n or ROUNDS
    own, ref = run_in_turns([model, beside], ids, rounds=rounds, tokens=TOKENS, seed=seed)
    measured = [
        _bytes("weights at the scheme", weight_bytes(given), weight_bytes(beside)),
        _bytes("weights in memory", _held(model), _held(beside)),
        _bytes("peak memory of a pass", peak_memory(model, ids), peak_memory(beside, ids)),
        _timed("prefill", "ms", own.prefill, ref.prefill, seed),
    ]
    if own.decode and ref.decode:
        measured.append(_timed("decode", "ms/token", own.decode, ref.decode, seed))
    clock = "CPU time of the process" if model.device.type == "cpu" else "wall time, synchronised"
    kind = "" if model.quantization is None else f", mode {model.quantization.mode}"
    data = {"rounds": rounds, "prompts": len(ids), "width": len(ids[0]), "new_tokens": TOKENS}
    return Cost(
        about=about(model, data | {"threads": torch.get_num_threads()}),
        rows=tuple(measured),
        beside=beside.fingerprint,
        how=(
            f"{counted(rounds, 'round')} of {counted(len(ids), 'random prompt')} of "
            f"{counted(len(ids[0]), 'token')}, {TOKENS} more decoded, "
            f"in turns with the reference: {clock}, {torch.get_num_threads()} threads, {model.device.type}, "
            f"{str(model.dtype).removeprefix('torch.')}{kind}."
        ),
        state={"model": model},
        seed=seed,
        warnings=(*model.warnings, *notes),
    )


def _reference(reference: Cost | None) -> Model | None:
    if reference is None:
        return None
    if "model" not in reference.state:
        raise ConfigError(
            "this cost was read from disk and holds no model to be timed beside; run cost on the reference "
            "model again."
        )
    return reference.state["model"]


def _ids(models: Sequence[Model], prompts: int, width: int, seed: int) -> list[list[int]]:
    """Draw random tokens that all models have; the time of a pass does not depend on what it reads."""
    limits = [one.max_length for one in models if one.max_length is not None]
    most = max(2, min([width, *(limit - TOKENS for limit in limits)]))
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(min(one.vocab_size for one in models), (prompts, most), generator=generator).tolist()


def weight_bytes(model: Model) -> int:
    """The bytes that the weights take at the model's scheme, counted for a dense copy."""
    return _held(model) if model.quantization is None else model.quantization.bytes_after


def _held(model: Model) -> int:
    """Measure the bytes of all weights, those of tied ones once, and of library buffers that hold codes."""
    if model.quantization is not None and model.quantization.mode == "packed":
        return model.quantization.bytes_after
    tensors = [*model.hf.parameters(), *_saved_buffers(model)]
    return sum(stored(tensor) for tensor in {id(one): one for one in tensors}.values())


def _saved_buffers(model: Model) -> list[torch.Tensor]:
    kept = model.hf.state_dict(keep_vars=True)
    names = {name for name, _ in model.hf.named_parameters(remove_duplicate=False)}
    return [one for name, one in kept.items() if name not in names and isinstance(one, torch.Tensor)]


def _bytes(measure: str, value: int, reference: int) -> Measure:
    ratio = value / reference if reference else None
    return Measure(measure, "bytes", float(value), float(reference), ratio)


def _timed(measure: str, unit: str, own: list[float], ref: list[float], seed: int) -> Measure:
    ratio, low, high = ratio_of_medians(np.array(own), np.array(ref), seed=seed)
    return Measure(measure, unit, float(np.median(own)), float(np.median(ref)), ratio, low, high, len(own))


def _packed(model: Model, beside: Model) -> tuple[Model, tuple[str, ...]]:
    """The scheme's own modules in place of a dense copy, and what is to be said about it."""
    report = model.quantization
    if report is None or report.mode != "dense" or not report.modules:
        return model, ()
    dense = (
        "a dense copy runs the full model's kernels on plain floats: its times and its memory are not those "
        f"of {report.scheme}"
    )
    if not Scheme.parse(report.scheme).packs:
        return model, (f"{dense}, which is offered as a dense copy only",)
    if report.base != beside.fingerprint:
        return model, (f"{dense}; give the result of the model it was made from as reference",)
    made = quantize(beside, report.scheme, mode="packed", skip=report.requested)
    return made, (f"cost was measured on the library's own modules of {report.scheme} (mode packed)",)


WARM_UP = 1
DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Laps:
    """What each round took of one model, in milliseconds.

    Attributes:
        prefill: one pass over all prompts, the cache filled.
        decode: one token more for all prompts; empty where the model takes no cache.
    """

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


@torch.no_grad()
def run_in_turns(
    models: Sequence[Model], ids: Sequence[Sequence[int]], *, rounds: int, tokens: int, seed: int
) -> list[Laps]:
    """Time prefill and decoding of several models, every round in another order.

    On the CPU it is the CPU time of the process, which other processes change little; on an accelerator the
    time until it has finished.

    Args:
        models: what is timed.
        ids: prompts of one length.
        rounds: how often.
        tokens: how many new tokens are decoded per round.
        seed: of the orders.

    Returns:
        The rounds of each model, a first one for warming up left out.
    """
    laps, rng = [Laps() for _ in models], random.Random(seed)
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model.architecture.modules))
        batches = [_batch(model, ids) for model in models]
        for turn in range(rounds + WARM_UP):
            for at in rng.sample(range(len(models)), len(models)):
                _lap(models[at], batches[at], tokens, laps[at] if turn >= WARM_UP else Laps())
    return laps


def _batch(model: Model, ids: Sequence[Sequence[int]]) -> Batch:
    tokens = model.tokenize([list(row) for row in ids], padding_side="left")
    return make_batch(tokens, range(len(ids)), model.device)


def _lap(model: Model, batch: Batch, tokens: int, laps: Laps) -> None:
    architecture = model.architecture
    caches = cache_name(architecture)
    start = _now(model)
    found = forward(architecture, batch, "last", use_cache=bool(caches))
    laps.prefill.append(1000 * (_now(model) - start))
    if not caches:
        return
    newest = found.logits[:, -1].argmax(-1)[:, None]
    start = _now(model)
    for _ in range(tokens):
        found = architecture.hf(input_ids=newest, use_cache=True, **{caches: cache_of(found)})
        newest = found.logits[:, -1].argmax(-1)[:, None]
    laps.decode.append(1000 * (_now(model) - start) / tokens)


def _now(model: Model) -> float:
    """CPU seconds of this process, or seconds after the accelerator has caught up."""
    if model.device.type == "cpu":
        return time.process_time()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def ratio_of_medians(
    values: Float[np.ndarray, " round"], reference: Float[np.ndarray, " round"], *, seed: int
) -> tuple[float, float, float]:
    """The ratio of medians over rounds, and its 95% percentile interval over redrawn rounds.

    A round is one unit: both models meet the same machine in it.
    """
    rows = np.random.default_rng(seed).integers(len(values), size=(DRAWS, len(values)))
    drawn = np.median(values[rows], axis=1) / np.median(reference[rows], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return float(np.median(values) / np.median(reference)), float(low), float(high)


@torch.no_grad()
def peak_memory(model: Model, ids: Sequence[Sequence[int]]) -> int:
    """Measure the most bytes that one pass over all prompts holds at once, beyond the weights."""
    batch = _batch(model, ids)
    with evaluating(model.architecture.modules):
        forward(model.architecture, batch, "last", use_cache=False)
        return most_bytes(lambda: forward(model.architecture, batch, "last", use_cache=False), model.device)


def most_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most bytes that a computation holds at once, beyond what is there before it.

    On CUDA it is what the allocator says. Elsewhere the storages of all tensors that PyTorch's operations
    give are followed until they are freed; a buffer that one kernel takes and gives back within itself is
    not seen.

    Args:
        run: the computation.
        device: where it runs.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _Watch() as watch:
        run()
    return watch.most


class _Watch(TorchDispatchMode):
    """Follow storages from the operation that makes them until nobody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation; what stands for several tensors is taken apart first, and comes here again."""
        if any(issubclass(kind, Tensor) and kind is not Tensor for kind in types):
            return NotImplemented
        found = func(*args, **(kwargs or {}))
        given = {_key(one) for one in _tensors((args, kwargs))}
        self.live = {key: row for key, row in self.live.items() if not row[0].expired()}
        for tensor in _tensors(found):
            if (key := _key(tensor)) not in self.live and key not in given:
                storage = tensor.untyped_storage()
                self.live[key] = (StorageWeakRef(storage), storage.nbytes())
        self.most = max(self.most, sum(size for _, size in self.live.values()))
        return found


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
