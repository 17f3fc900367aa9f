"""The reference, its noise floors, and every analysis at every scheme."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from interp.errors import ConfigError, DataError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.quantization.comparison.reference import (
    NOISE,
    Comparable,
    Reference,
    analysed,
    by_name,
    findings_of,
)
from interp.quantization.comparison.value import Comparison, checkpoint_label
from interp.quantization.comparison.verdicts import Cell, judge
from interp.quantization.integrity import Integrity, verify_quantization
from interp.quantization.provenance import provenance
from interp.quantization.quantizing import quantize, refuse
from interp.quantization.schemes import Scheme
from interp.results import About
from interp.results.findings import named

__all__ = ["NOISE", "Comparable", "compare"]


def compare(
    analysis: Comparable | Mapping[str, Comparable],
    model: ModelLike,
    schemes: Sequence[str | Scheme] = ("int8", "int4"),
    *,
    other: ModelLike | None = None,
    tokenizers: Literal["same", "any"] = "same",
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
            seed alone. What its result's ``findings()`` give is judged; the main tables of results
            without them are put one under the other, without verdicts.
        model: the reference.
        schemes: keys of ``interp.quantization.SCHEMES``.
        other: another checkpoint with the same tokenizer, compared as it is: then differences come from its
            weights, not from precision.
        tokenizers: "any" where all of the analyses compare texts and not tokens (``compression``, ``cost``).
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
    started, analyses = time.perf_counter(), by_name(analysis)
    model, found = as_model(model), _schemes(schemes)
    second = None if other is None else as_model(other)
    _check(model, found, second if tokenizers == "same" else None, noise, others=second is not None)
    for scheme in found:
        refuse(model, scheme, mode=mode, calibration=calibration if scheme.needs_calibration else None)
    labels = [str(one) for one in found] + (
        [checkpoint_label(second.described)] if second is not None else []
    )
    origin = _origin(model, second, say)
    cells = {(one.analysis, one.scheme): one for one in done}
    _check_done(model, cells.values())
    open_ = {name: run for name, run in analyses.items() if any((name, at) not in cells for at in labels)}
    bases: dict[str, Reference] = {}
    results: dict[tuple[str, str], Any] = {}
    for name, run in open_.items():
        base = analysed(name, run, model, noise, earlier=cells.get((name, "")), say=say)
        bases[name], results[name, ""], cells[name, ""] = base, base.result, base.cell(model)
        keep(cells[name, ""])
    for label, make in _others(model, found, second, mode, calibration):
        asked = [base for name, base in bases.items() if (name, label) not in cells]
        made = make() if any(not base.refused for base in asked) else None
        empty = _empty(label, made, model)
        for base in asked:
            if made is not None and not base.refused:
                say(f"{base.name}: {label}")
            cell, result = _cell(base, replace(empty, analysis=base.name), made, model, seed)
            cells[base.name, label] = cell
            results[base.name, label] = result
            keep(cell)
    return Comparison(
        about=_described(model),
        other=None if second is None else _described(second),
        cells=tuple(cells[name, label] for name in analyses for label in labels),
        references=tuple(cells[name, ""] for name in analyses if (name, "") in cells),
        noise={name: _noise(bases.get(name), noise) for name in analyses},
        mode=mode,
        seed=seed,
        seconds=time.perf_counter() - started,
        warnings=_warnings(
            model, second, noise, [cells[name, ""] for name in analyses if (name, "") in cells], origin
        ),
        results={key: result for key, result in results.items() if result is not None},
    )


def _noise(base: Reference | None, asked: Sequence[str]) -> str:
    """Which noise floors there are; of an analysis that was not run again, those that were asked."""
    return "; ".join(NOISE[kind] for kind in asked) if base is None else base.measured


def _schemes(given: Sequence[str | Scheme]) -> tuple[Scheme, ...]:
    if isinstance(given, str):
        raise ConfigError(f"schemes {given!r} asked; give a list, such as [{given!r}].")
    return tuple(Scheme.parse(str(one)) for one in given)


def _check(
    model: Model, schemes: Sequence[Scheme], other: Model | None, noise: Sequence[str], *, others: bool
) -> None:
    if not schemes and not others:
        raise ConfigError("nothing to compare with: give schemes such as ['int8', 'int4'], or other=model.")
    if unknown := [kind for kind in noise if kind not in NOISE]:
        raise ConfigError(f"noise {unknown[0]!r} asked; there are: {', '.join(NOISE)}.")
    if len(set(schemes)) < len(schemes):
        raise ConfigError(f"a scheme is named twice: {', '.join(map(str, schemes))}.")
    if other is not None and other.tokenizer_fingerprint != model.tokenizer_fingerprint:
        raise DataError(
            f"{model.name!r} and {other.name!r} have different tokenizers, so that they do not read the same "
            "items. Compare checkpoints that share one, such as a fine-tuned model and its base; of analyses "
            "that compare texts (compression, cost) say tokenizers='any'."
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
    """The name of each other model, and how it is made when it is needed."""
    for scheme in schemes:
        given = calibration if scheme.needs_calibration else None
        yield (
            str(scheme),
            lambda scheme=scheme, given=given: quantize(model, scheme, mode=mode, calibration=given),
        )
    if other is not None:
        yield checkpoint_label(other.described), lambda: other


def _empty(label: str, made: Model | None, model: Model) -> Cell:
    """What is known of a quantized model before it is analysed: it is examined first."""
    if made is None:
        return Cell("", label, model=model.fingerprint)
    checked = _checked(made, model)
    return Cell(
        "",
        label,
        quantization=made.quantization,
        integrity=checked,
        model=model.fingerprint,
        warnings=_failures(checked),
    )


def _cell(base: Reference, empty: Cell, made: Model | None, model: Model, seed: int) -> tuple[Cell, Any]:
    """Run one analysis of one other model, and judge it."""
    if made is None or base.refused:
        return replace(empty, refused=base.refused), None
    label, started = empty.scheme, time.perf_counter()
    try:
        result = base.run(made, reference=base.result)
        theirs = named(findings_of(base.name, result))
    except Exception as error:  # of a user's function too: what the other cells found is worth keeping
        return replace(empty, refused=f"{type(error).__name__}: {error}"), None
    same = made.dtype == model.dtype and made.fingerprint == model.fingerprint
    judgements = tuple(
        judge(
            one,
            theirs[name],
            noise=base.floor(name, label),
            same=same,
            seed=seed,
            before=base.before(name, seed),
        )
        for name, one in base.findings.items()
        if name in theirs
    )
    judged = getattr(result, "judged", "")
    cell = replace(
        empty,
        judgements=judgements,
        judged=judged,
        numbers=result.numbers() if judged else (),
        figures=result.figures() if judged else (),
        tables=result.tables(),
        missing=tuple(name for name in base.findings if name not in theirs),
        seconds=time.perf_counter() - started,
        warnings=(*empty.warnings, *base.warnings, *getattr(result, "warnings", ())),
    )
    return cell, result


def _checked(made: Model, model: Model) -> Integrity | None:
    """Examine a quantized model before any number of it is believed."""
    if made.quantization is None or made.quantization.base != model.fingerprint:
        return None  # a checkpoint that was made from something else
    return verify_quantization(made, model)


def _failures(integrity: Integrity | None) -> tuple[str, ...]:
    """Which checks a quantized model fails."""
    return tuple(
        f"the quantized model fails the check '{one.name}' ({one.detail or one.value}): do not trust these "
        "numbers"
        for one in (() if integrity is None else integrity.checks)
        if not one.passed
    )


def _described(model: Model) -> About:
    kind = {"dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device)}
    return About({**model.described, **kind, "layers": model.n_layers, "d_model": model.d_model})


def _origin(model: Model, other: Model | None, say: Callable[[str], object]) -> str:
    """Say whether one of two models that arrived quantized is the quantization of the other; else ""."""
    for quantized, base in ((other, model), (model, other)):
        if quantized is None or base is None:
            continue
        found = provenance(quantized, base)
        if found is not None:
            own, theirs = (checkpoint_label(one.described) for one in (quantized, base))
            text = f"{own} beside {theirs}: {found}"
            say(text)
            return text
    return ""


def _warnings(
    model: Model, other: Model | None, noise: Sequence[str], references: Sequence[Cell], origin: str
) -> tuple[str, ...]:
    said = [*([origin] if origin else []), *model.warnings]
    if other is not None:
        own, others = (checkpoint_label(one.described) for one in (model, other))
        same = model.fingerprint == other.fingerprint
        said.append(
            f"{own} is compared with itself: nothing can differ but precision"
            if same
            else f"two checkpoints are compared, {own} and {others}: their weights differ, and "
            "what changes is not an effect of precision alone"
        )
    if missing := [kind for kind in NOISE if kind not in noise]:
        said.append(f"noise floors left out: {', '.join(missing)}; delta is smaller than it should be")
    said += [text for one in references for text in one.warnings]
    said += [f"{one.analysis}: {one.refused}" for one in references if one.refused]
    return tuple(dict.fromkeys(said))
