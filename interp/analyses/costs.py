"""Measure what a model costs: bytes, memory and time, next to the reference in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp import results
from interp.analyses.clocks import peak_memory, ratio_of_medians, run_in_turns
from interp.analyses.provenance import origin
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.quantization.libraries.library import stored
from interp.quantization.quantizing import quantize
from interp.quantization.schemes import Scheme

if TYPE_CHECKING:
    import pandas

__all__ = ["Cost", "cost"]

SCHEMA = "interp.cost/1"
ROUNDS, PROMPTS, WIDTH, TOKENS = 9, 8, 64, 8
COLUMNS = ("measure", "value", "unit", "reference", "ratio", "low", "high", "n")


@dataclass(frozen=True, eq=False, repr=False)
class Cost:
    """Hold what a model costs beside the reference.

    It has no findings on purpose: a cost has no chance value that it could fall back to, so that "survives"
    would mean nothing. What counts is the ratio, with its interval.

    Attributes:
        rows: one per measure, with the keys of :meth:`table`.
        model: name, weights, fingerprint, tokenizer_fingerprint, scheme.
        facts: how it was measured.
        state: the model itself, for later runs beside it. Never written to disk.
        seed: of the prompts and of the order of turns.
        warnings: what a reader should know.
    """

    rows: tuple[Mapping[str, Any], ...]
    model: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    warnings: tuple[str, ...] = ()

    def table(self) -> pandas.DataFrame:
        """Give one row per measure: value, unit, reference, ratio, low, high, n.

        ``reference`` was measured in the same run, in turns with ``value``; ``low`` and ``high`` are the ends
        of the ratio's 95% interval over ``n`` rounds, and empty where nothing varies.
        """
        import pandas

        return pandas.DataFrame([dict(row) for row in self.rows], columns=list(COLUMNS))

    def diff(self, reference: Cost) -> pandas.DataFrame:
        """Give measure, unit, value, value_reference, value_change, ratio, low and high.

        The reference's numbers are those of this run, since times of two runs cannot be compared.

        Raises:
            ConfigError: this model was measured beside another one.
        """
        beside = self.facts.get("beside")
        if beside != reference.model["fingerprint"]:
            raise ConfigError(
                f"this was measured beside the model {str(beside)[:12]}, not beside "
                f"{reference.model['fingerprint'][:12]}; give cost(model, reference=...) the result to "
                "compare with."
            )
        table = self.table().rename(columns={"reference": "value_reference"})
        table["value_change"] = table["value"] - table["value_reference"]
        columns = ["measure", "unit", "value", "value_reference", "value_change", "ratio", "low", "high"]
        return table.reindex(columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Give rows and facts as JSON types."""
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "analysis": "cost",
                "model": dict(self.model),
                "rows": [dict(row) for row in self.rows],
                "facts": dict(self.facts),
                "seed": self.seed,
                "warnings": list(self.warnings),
            }
        )
        return plain

    def _repr_html_(self) -> str:
        """Give the rows as an escaped table for notebooks."""
        return results.table_html(self.table(), caption=repr(self))

    def __repr__(self) -> str:
        """Say the ratios in one line."""
        said = "; ".join(
            f"{row['measure']} x{row['ratio']:.3g}" for row in self.rows if row["ratio"] is not None
        )
        return f"Cost({said})"


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
    rows = [
        _row("weights at the scheme", "bytes", _needed(given), _needed(beside)),
        _row("weights in memory", "bytes", _held(model), _held(beside)),
        _row("peak memory of a pass", "bytes", peak_memory(model, ids), peak_memory(beside, ids)),
        _timed("prefill", "ms", own.prefill, ref.prefill, seed),
    ]
    if own.decode and ref.decode:
        rows.append(_timed("decode", "ms/token", own.decode, ref.decode, seed))
    return Cost(
        rows=tuple(rows),
        model=origin(model),
        facts={
            "beside": beside.fingerprint,
            "device": str(model.device.type),
            "dtype": str(model.dtype),
            "threads": torch.get_num_threads(),
            "clock": "CPU time of the process" if model.device.type == "cpu" else "wall time, synchronised",
            "rounds": rounds,
            "prompts": len(ids),
            "width": len(ids[0]),
            "new_tokens": TOKENS,
            "mode": None if model.quantization is None else model.quantization.mode,
            "quantizing_seconds": None if model.quantization is None else model.quantization.seconds,
        },
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


def _row(measure: str, unit: str, value: float | int, reference: float | int) -> dict[str, Any]:
    ratio = value / reference if reference else None
    numbers = {"value": float(value), "unit": unit, "reference": float(reference), "ratio": ratio}
    return {"measure": measure, **numbers, "low": None, "high": None, "n": 1}


def _timed(measure: str, unit: str, own: list[float], ref: list[float], seed: int) -> dict[str, Any]:
    ratio, low, high = ratio_of_medians(np.array(own), np.array(ref), seed=seed)
    row = _row(measure, unit, float(np.median(own)), float(np.median(ref)))
    return row | {"ratio": ratio, "low": low, "high": high, "n": len(own)}


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
