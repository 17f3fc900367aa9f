"""The reference of a comparison: what it gave, and what noise alone changes in that."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interp.errors import ConfigError, DataError, InterpError
from interp.models.forward import layout
from interp.models.linear import is_linear
from interp.models.model import Model
from interp.quantization.comparison.verdicts import Cell, Excess
from interp.quantization.quantizing import quantize
from interp.results import Result
from interp.results.findings import Finding, named

__all__ = ["NOISE", "Comparable", "Reference", "analysed", "by_name", "findings_of", "in_bfloat16"]

NOISE: dict[str, str] = {
    "layout": "the same model, 7 prompts in a batch",
    "bf16": "the same weights and arithmetic in bfloat16",
}
LAYOUT = 7
REPEATS, ALIKE, NEAR = 12, 0.5, 1e-3
"""From how many items on two runs of one model must agree item by item, how well (correlation), and what
difference relative to the values is no difference."""


@runtime_checkable
class Comparable(Protocol):
    """What can be compared: a model in, a result out.

    The analysis of a second model is given the result of the first as ``reference``.
    """

    def __call__(self, model: Any, *, reference: Any = None) -> Result:
        """Analyse a model."""
        ...


@dataclass(frozen=True)
class Reference:
    """One analysis of the reference.

    Attributes:
        name: of the analysis.
        run: the analysis.
        result: what it gave; None where it refused.
        findings: by name.
        noise: name -> kind -> by how much that changes the finding.
        refused: why it gave nothing, or "".
        warnings: what a reader should know.
        known: name -> the finding's excess with its interval, filled when needed.
    """

    name: str
    run: Comparable
    result: Result | None
    findings: Mapping[str, Finding]
    noise: Mapping[str, Mapping[str, float]]
    refused: str = ""
    warnings: tuple[str, ...] = ()
    known: dict[str, Excess] = field(default_factory=dict)

    def before(self, name: str, seed: int) -> Excess:
        """A finding's excess with its interval, computed once."""
        if name not in self.known:
            self.known[name] = Excess.of(self.findings[name], seed)
        return self.known[name]

    def floor(self, name: str, label: str) -> float:
        """The larger noise floor of a finding; bf16 is not its own noise."""
        return max((value for kind, value in self.noise[name].items() if kind != label), default=0.0)

    @property
    def measured(self) -> str:
        """Which noise floors there are."""
        return "; ".join(NOISE[k] for k in NOISE if any(k in one for one in self.noise.values()))

    def cell(self, model: Model) -> Cell:
        """What is kept of the reference: a cell without a scheme."""
        return Cell(
            self.name,
            "",
            tables=() if self.result is None else self.result.tables(),
            model=model.fingerprint,
            refused=self.refused,
            warnings=self.warnings,
            noise=self.noise,
            asked="" if self.result is None else self.result.question(),
        )


def by_name(analysis: Any) -> dict[str, Comparable]:
    """Analyses by name; what is none is refused before anything is run.

    Raises:
        ConfigError: it cannot be called with a model and ``reference=``.
    """
    found = dict(analysis) if isinstance(analysis, Mapping) else {_name(analysis): analysis}
    for name, one in found.items():
        if not callable(one):
            raise ConfigError(
                f"analysis {one!r} asked; give a function (model, *, reference=None) -> Result, or several "
                "by name. Ready ones: interp.analyses.ANALYSES['recall'].bound()."
            )
        try:
            inspect.signature(one).bind(None, reference=None)
        except TypeError as error:
            raise ConfigError(
                f"analysis {name!r} cannot be called as {name}(model, reference=...): {error}. Give it that "
                "keyword, even if it has no use for it: def analysis(model, *, reference=None)."
            ) from error
        except ValueError:  # a built-in without a signature
            continue
    return found


def _name(analysis: Any) -> str:
    """A function's own name, through ``functools.partial``."""
    inner = analysis
    while isinstance(inner, partial):
        inner = inner.func
    return getattr(inner, "__name__", type(inner).__name__)


def analysed(
    name: str,
    run: Comparable,
    model: Model,
    noise: Sequence[str],
    *,
    earlier: Cell | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Reference:
    """Analyse the reference, and measure its noise floors unless an earlier run has.

    Args:
        name: of the analysis.
        run: the analysis.
        model: the reference.
        noise: keys of ``NOISE``.
        earlier: what an earlier run kept of the same.
        say: is told what is going on.

    Raises:
        ConfigError: the analysis returned no result.
        DataError: two findings have one name, or it has other values when the same model is analysed again.
    """
    say(f"{name}: the reference")
    try:
        result = run(model)
    except InterpError as error:
        return Reference(name, run, None, {}, {}, f"the reference could not be analysed: {error}")
    findings = named(findings_of(name, result))
    if earlier is not None and set(earlier.noise) == set(findings):
        return Reference(name, run, result, findings, earlier.noise, warnings=earlier.warnings)
    floors: dict[str, dict[str, float]] = {one: {} for one in findings}
    warnings: list[str] = []
    for kind in noise if findings else ():
        if kind == "bf16" and model.dtype == torch.bfloat16:
            warnings.append(f"{name}: no noise floor from bf16, in which the reference computes itself")
            continue
        say(f"{name}: its noise floor, {NOISE[kind]}")
        try:
            with _noisy(kind, model) as again:
                values = named(findings_of(name, run(again, reference=result)))
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
    return Reference(name, run, result, findings, floors, warnings=tuple(warnings))


def findings_of(name: str, result: Any) -> tuple[Finding, ...]:
    """The findings of a result; none where it has none to judge.

    Raises:
        ConfigError: it is no result.
    """
    if not isinstance(result, Result):
        raise ConfigError(
            f"analysis {name!r} returned a {type(result).__name__}, which is no result. Give your numbers as "
            "interp.results.FindingsResult(analysis=..., found=(Finding(...), ...)), or a Result of your own."
        )
    return result.findings()


def _check_repeats(name: str, first: Mapping[str, Finding], again: Mapping[str, Finding]) -> None:
    """Refuse an analysis that gives other values for the same items when the same model is analysed again.

    Raises:
        DataError: values of items differ by more than rounding, and are not even correlated with themselves.
    """
    for one, finding in first.items():
        if finding.statistic is not None or one not in again:
            continue
        ours, theirs = finding.values, again[one].values
        if len(ours) != len(theirs) or len(ours) < REPEATS or not ours.std() or not theirs.std():
            continue
        apart = float(np.sqrt(np.mean((ours - theirs) ** 2)))
        if apart > NEAR * np.abs(ours).max() and np.corrcoef(ours, theirs)[0, 1] < ALIKE:
            raise DataError(
                f"{name}: the same model was analysed twice, and {one!r} has other values item by item. Draw "
                "the items, and whatever else is random, from a seed."
            )


@contextmanager
def _noisy(kind: str, model: Model) -> Iterator[Model]:
    """A model whose numbers differ from the reference's by noise alone."""
    with ExitStack() as stack:
        if kind == "layout":
            stack.enter_context(layout(LAYOUT))
        yield model if kind == "layout" else in_bfloat16(model)


def in_bfloat16(model: Model) -> Model:
    """A copy in bfloat16, whose noise is a floor; on a CPU its plain linear layers multiply in float32.

    Products of bfloat16 numbers are summed in float32 either way, and what a layer gives is rounded after it.
    Without instructions for them a CPU takes four times as long (measured: 15.1 ms against 3.7 ms for 128
    states by 576 x 1536; one result of 11,000 differs, in its last bit), which was a third of a comparison.
    """
    rounded = quantize(model, "bf16")
    for module in rounded.hf.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and is_linear(module):
            module.forward = partial(_in_float, module)  # type: ignore[method-assign]
    return rounded


def _in_float(layer: nn.Linear, states: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
    bias = None if layer.bias is None else layer.bias.float()
    return functional.linear(states.float(), layer.weight.float(), bias).to(layer.weight.dtype)
