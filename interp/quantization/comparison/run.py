"""The reference, its noise floors, and every analysis at every scheme."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from interp.errors import ConfigError, DataError, InterpError
from interp.findings import Finding, Findings, named
from interp.models.accept import ModelLike, as_model
from interp.models.batches import layout
from interp.models.model import Model
from interp.quantization.comparison.cells import Cell
from interp.quantization.comparison.value import Comparison
from interp.quantization.comparison.verdicts import excess, judge
from interp.quantization.integrity import examine
from interp.quantization.quantizing import quantize, refuse
from interp.quantization.schemes import Scheme
from interp.results import Result, jsonable
from probes.statistics import Interval

__all__ = ["NOISE", "Analysis", "compare"]

NOISE: dict[str, str] = {
    "layout": "the same model, 7 prompts in a batch",
    "bf16": "the same weights and arithmetic in bfloat16",
}
LAYOUT = 7
REPEATS, ALIKE = 12, 0.5
"""From how many items on two runs of one model must agree item by item, and how well (correlation)."""


@runtime_checkable
class Analysis(Protocol):
    """Describe what can be compared: a model in, a result out.

    The analysis of a second model is given the result of the first as ``reference``.
    """

    def __call__(self, model: Any, *, reference: Any = None) -> Result:
        """Analyse a model."""
        ...


@dataclass(frozen=True)
class _Base:
    """Hold one analysis of the reference.

    Attributes:
        name: of the analysis.
        run: the analysis.
        result: what it gave; None where it refused.
        findings: by name.
        noise: name -> kind -> by how much that changes the finding.
        refused: why it gave nothing, or "".
        warnings: what a reader should know.
        known: name -> interval of the finding's excess, filled when needed.
    """

    name: str
    run: Analysis
    result: Any
    findings: Mapping[str, Finding]
    noise: Mapping[str, Mapping[str, float]]
    refused: str = ""
    warnings: tuple[str, ...] = ()
    known: dict[str, Interval] = field(default_factory=dict)

    def before(self, name: str, seed: int) -> Interval:
        """Give the interval of a finding's excess, computed once."""
        if name not in self.known:
            self.known[name] = excess(self.findings[name], seed)
        return self.known[name]

    @property
    def cell(self) -> Cell:
        """Give what is kept of the reference: a cell without a scheme."""
        plain = {} if self.result is None else jsonable(self.result.to_dict())[0]
        return Cell(self.name, "", result=plain, refused=self.refused, warnings=self.warnings)


def compare(
    analysis: Analysis | Mapping[str, Analysis],
    model: ModelLike,
    schemes: Sequence[str | Scheme] = ("int8", "int4"),
    *,
    other: ModelLike | None = None,
    mode: str = "dense",
    calibration: Any = None,
    noise: Sequence[str] = tuple(NOISE),
    seed: int = 0,
    done: Iterable[Cell] = (),
    keep: Callable[[Cell], object] = lambda cell: None,
    say: Callable[[str], object] = lambda text: None,
) -> Comparison:
    """Run analyses on a model and on its quantized copies, and judge finding by finding what survives.

    The reference is analysed first, then again in another batch layout and in bfloat16: what that changes is
    the noise floor. All schemes start from the reference's own weights. The rule of the verdict stands in
    ``interp.quantization.VERDICTS``; see :func:`judge`.

    Args:
        analysis: ``(model, *, reference=None) -> Result``, or several by name. It must draw its items from a
            seed alone. What its result's ``findings()`` give is judged; a result without them is compared by
            its ``diff``, without verdicts.
        model: the reference.
        schemes: keys of ``interp.quantization.SCHEMES``.
        other: another checkpoint with the same tokenizer, compared as it is: then differences come from its
            weights, not from precision.
        mode: ``dense`` (the scheme's numbers in the model's own modules) or ``packed`` (the library's).
        calibration: for schemes that need it; see :func:`quantize`.
        noise: which noise floors to measure, keys of ``NOISE``.
        seed: of draws of groups.
        done: cells of an earlier run, which are not run again.
        keep: is given every new cell as soon as it is there; the reference's has the scheme "".
        say: is told what is going on.

    Raises:
        ConfigError: an unknown scheme, mode or noise floor, nothing to compare with, or a scheme that cannot
            run here.
        DataError: two models were measured on other items, or ``other`` has another tokenizer.
    """
    started = time.perf_counter()
    model, found = as_model(model), tuple(Scheme.parse(str(one)) for one in schemes)
    second = None if other is None else as_model(other)
    _check(model, found, second, noise)
    for scheme in found:
        refuse(model, scheme, mode=mode, calibration=calibration if scheme.needs_calibration else None)
    analyses = dict(analysis) if isinstance(analysis, Mapping) else {_name(analysis): analysis}
    labels = [str(one) for one in found] + ([_label(second)] if second is not None else [])
    cells = {(one.analysis, one.scheme): one for one in done}
    _check_done(model, cells.values())
    open_ = {name: run for name, run in analyses.items() if any((name, at) not in cells for at in labels)}
    bases = {name: _base(name, run, model, noise, say) for name, run in open_.items()}
    results: dict[tuple[str, str], Any] = {(name, ""): base.result for name, base in bases.items()}
    for name, base in bases.items():
        cells[name, ""] = base.cell
        keep(base.cell)
    for label, make in _others(model, found, second, mode, calibration):
        asked = [base for name, base in bases.items() if (name, label) not in cells]
        made = make() if any(not base.refused for base in asked) else None
        report = {} if made is None else _report(made, model)
        for base in asked:
            empty = Cell(
                base.name, label, model=model.fingerprint, quantization=report, warnings=_failures(report)
            )
            if made is not None and not base.refused:
                say(f"{base.name}: {label}")
            cell, result = _cell(base, empty, made, model, seed)
            cells[base.name, label] = cell
            results[base.name, label] = result
            keep(cell)
    return Comparison(
        model=_described(model),
        other=None if second is None else _described(second),
        cells=tuple(cells[name, label] for name in analyses for label in labels),
        references={name: cells[name, ""].result for name in analyses if (name, "") in cells},
        noise={name: _measured(bases.get(name), noise) for name in analyses},
        mode=mode,
        seed=seed,
        seconds=time.perf_counter() - started,
        warnings=_warnings(
            model, second, noise, [cells[name, ""] for name in analyses if (name, "") in cells]
        ),
        results={key: result for key, result in results.items() if result is not None},
    )


def _name(analysis: Any) -> str:
    """Give a function's own name, through ``functools.partial``."""
    inner = analysis
    while isinstance(inner, partial):
        inner = inner.func
    return getattr(inner, "__name__", type(inner).__name__)


def _label(model: Model) -> str:
    return f"{model.name} ({model.weights})"


def _check(model: Model, schemes: Sequence[Scheme], other: Model | None, noise: Sequence[str]) -> None:
    if not schemes and other is None:
        raise ConfigError("nothing to compare with: give schemes such as ['int8', 'int4'], or other=model.")
    if unknown := [kind for kind in noise if kind not in NOISE]:
        raise ConfigError(f"noise {unknown[0]!r} asked; there are: {', '.join(NOISE)}.")
    if len(set(schemes)) < len(schemes):
        raise ConfigError(f"a scheme is named twice: {', '.join(map(str, schemes))}.")
    if other is not None and other.tokenizer_fingerprint != model.tokenizer_fingerprint:
        raise DataError(
            f"{model.name!r} and {other.name!r} have different tokenizers, so that they do not read the same "
            "items. Compare checkpoints that share one, such as a fine-tuned model and its base."
        )


def _check_done(model: Model, done: Iterable[Cell]) -> None:
    """Refuse cells that were measured on another reference."""
    for one in done:
        if one.model and one.model != model.fingerprint:
            raise ConfigError(
                f"the cell given as done ({one.analysis} at {one.scheme or 'the reference'}) was measured "
                f"against another model than {model.name!r}. Give cells of this one, or leave done out."
            )


def _others(
    model: Model, schemes: Sequence[Scheme], other: Model | None, mode: str, calibration: Any
) -> Iterator[tuple[str, Callable[[], Model]]]:
    """Give the name of each other model, and how it is made when it is needed."""
    for scheme in schemes:
        given = calibration if scheme.needs_calibration else None
        yield (
            str(scheme),
            lambda scheme=scheme, given=given: quantize(model, scheme, mode=mode, calibration=given),
        )
    if other is not None:
        yield _label(other), lambda: other


def _base(
    name: str, run: Analysis, model: Model, noise: Sequence[str], say: Callable[[str], object]
) -> _Base:
    """Analyse the reference, and measure its noise floors."""
    say(f"{name}: the reference")
    try:
        result = run(model)
    except InterpError as error:
        return _Base(name, run, None, {}, {}, f"the reference could not be analysed: {error}")
    findings = named(_findings(result))
    floors: dict[str, dict[str, float]] = {one: {} for one in findings}
    warnings: list[str] = []
    for kind in noise if findings else ():
        if kind == "bf16" and model.dtype == torch.bfloat16:
            warnings.append(f"{name}: no noise floor from bf16, in which the reference computes itself")
            continue
        say(f"{name}: its noise floor, {NOISE[kind]}")
        try:
            with _noisy(kind, model) as again:
                values = named(_findings(run(again, reference=result)))
        except InterpError as error:
            warnings.append(f"{name}: no noise floor from {kind}: {error}")
            continue
        if kind == "layout":
            _check_repeats(name, findings, values)
        if lacking := [one for one in findings if one not in values]:
            few = ", ".join(lacking[:3])
            warnings.append(f"{name}: no noise floor from {kind} for {few}, which was not measured then")
        for one, finding in findings.items():
            if one in values:
                floors[one][kind] = abs(values[one].excess - finding.excess)
    return _Base(name, run, result, findings, floors, warnings=tuple(warnings))


def _measured(base: _Base | None, noise: Sequence[str]) -> str:
    """Say which noise floors there are; of an analysis that was not run again, those that were asked."""
    kinds = noise if base is None else [k for k in NOISE if any(k in one for one in base.noise.values())]
    return "; ".join(NOISE[kind] for kind in kinds)


def _check_repeats(name: str, first: Mapping[str, Finding], again: Mapping[str, Finding]) -> None:
    """Refuse an analysis that gives other values for the same items when the same model is analysed again.

    Raises:
        DataError: values of items are not even correlated with themselves.
    """
    for one, finding in first.items():
        if finding.statistic is not None or one not in again:
            continue
        ours, theirs = finding.values, again[one].values
        if len(ours) != len(theirs) or len(ours) < REPEATS or not ours.std() or not theirs.std():
            continue
        if np.corrcoef(ours, theirs)[0, 1] < ALIKE:
            raise DataError(
                f"{name}: the same model was analysed twice, and {one!r} has other values item by item. Draw "
                "the items, and whatever else is random, from a seed."
            )


@contextmanager
def _noisy(kind: str, model: Model) -> Iterator[Model]:
    """Give a model whose numbers differ from the reference's by noise alone."""
    with ExitStack() as stack:
        if kind == "layout":
            stack.enter_context(layout(LAYOUT))
        yield model if kind == "layout" else quantize(model, "bf16")


def _findings(result: Any) -> tuple[Finding, ...]:
    return result.findings() if isinstance(result, Findings) else ()


def _cell(base: _Base, empty: Cell, made: Model | None, model: Model, seed: int) -> tuple[Cell, Any]:
    """Run one analysis of one other model, and judge it."""
    if made is None or base.refused:
        return replace(empty, refused=base.refused), None
    label, started = empty.scheme, time.perf_counter()
    try:
        result = base.run(made, reference=base.result)
    except InterpError as error:
        return replace(empty, refused=f"{type(error).__name__}: {error}"), None
    theirs = named(_findings(result))
    same = made.dtype == model.dtype and made.fingerprint == model.fingerprint
    judgements = tuple(
        judge(
            one,
            theirs[name],
            noise=_floor(base.noise[name], label),
            same=same,
            seed=seed,
            before=base.before(name, seed),
        )
        for name, one in base.findings.items()
        if name in theirs
    )
    changes = [] if judgements else result.diff(base.result).to_dict("records")
    cell = replace(
        empty,
        judgements=judgements,
        changes=tuple(changes),
        result=jsonable(result.to_dict())[0],
        missing=tuple(name for name in base.findings if name not in theirs),
        seconds=time.perf_counter() - started,
        warnings=(*empty.warnings, *base.warnings, *getattr(result, "warnings", ())),
    )
    return cell, result


def _report(made: Model, model: Model) -> dict[str, Any]:
    """Examine a quantized model before any number of it is believed, and give what was done to it."""
    if made.quantization is None:
        return {}
    report = made.quantization.to_dict()
    if made.quantization.base != model.fingerprint:  # a checkpoint that was made from something else
        return report
    return report | {"integrity": examine(made, model).to_dict()}


def _failures(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which checks a quantized model fails."""
    return tuple(
        f"the quantized model fails the check '{one['name']}' ({one['detail'] or one['value']}): do not "
        "trust these numbers"
        for one in report.get("integrity", {}).get("checks", [])
        if not one["passed"]
    )


def _floor(noise: Mapping[str, float], label: str) -> float:
    """Give the larger noise floor; bf16 is not its own noise."""
    return max((value for kind, value in noise.items() if kind != label), default=0.0)


def _described(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "weights": model.weights,
        "fingerprint": model.fingerprint,
        "tokenizer_fingerprint": model.tokenizer_fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "layers": model.n_layers,
        "d_model": model.d_model,
    }


def _warnings(
    model: Model, other: Model | None, noise: Sequence[str], references: Sequence[Cell]
) -> tuple[str, ...]:
    said = list(model.warnings)
    if other is not None:
        said.append(
            f"two checkpoints are compared, {_label(model)} and {_label(other)}: their weights differ, and "
            "what changes is not an effect of precision alone"
        )
    if missing := [kind for kind in NOISE if kind not in noise]:
        said.append(f"noise floors left out: {', '.join(missing)}; delta is smaller than it should be")
    said += [text for one in references for text in one.warnings]
    said += [f"{one.analysis}: {one.refused}" for one in references if one.refused]
    return tuple(dict.fromkeys(said))
