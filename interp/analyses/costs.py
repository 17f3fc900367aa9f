"""Measure what a model costs: bytes, memory and time, next to the reference in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from interp.analyses.clocks import peak_memory, ratio_of_medians, run_in_turns
from interp.analyses.provenance import about
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.quantization.libraries.library import stored
from interp.quantization.quantizing import quantize
from interp.quantization.schemes import Scheme
from interp.results.codec import UNSAVED
from interp.results.result import Result
from interp.results.shapes import Figure, Number, Table

__all__ = ["Cost", "Measure", "cost"]

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
    ids = _ids(model, prompts, width, seed)
    rounds = n or ROUNDS
    own, ref = run_in_turns([model, beside], ids, rounds=rounds, tokens=TOKENS, seed=seed)
    measured = [
        _bytes("weights at the scheme", _needed(given), _needed(beside)),
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
            f"{rounds} rounds of {len(ids)} random prompts of {len(ids[0])} tokens, {TOKENS} more decoded, "
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


def _ids(model: Model, prompts: int, width: int, seed: int) -> list[list[int]]:
    """Draw random tokens; the time of a pass does not depend on what it reads."""
    most = width if model.max_length is None else max(2, min(width, model.max_length - TOKENS))
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.vocab_size, (prompts, most), generator=generator).tolist()


def _needed(model: Model) -> int:
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
    """Give the scheme's own modules in place of a dense copy, and what is to be said about it."""
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
