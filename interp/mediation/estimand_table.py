"""The table of estimands: which question each combination of patched and unpatched runs answers.

Y is the metric, M the mediator; ``Y(corrupt, M clean)`` is the corrupt prompt run with the mediator's value
from the clean one. Robins and Greenland 1992; Pearl 2001; for language models Vig et al. 2020 (2004.12265).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import ConfigError
from probes.statistics import bootstrap

if TYPE_CHECKING:
    import pandas

    from interp.mediation.effects import Effects

__all__ = ["ESTIMANDS", "Estimand", "estimands"]

Parts = dict[str, np.ndarray]
"""``clean``, ``corrupt`` and each direction measured, ``[pair]`` each."""


@dataclass(frozen=True)
class Estimand:
    """A quantity of causal mediation.

    Attributes:
        name: the field's term.
        formula: in runs.
        question: what it answers.
        needs: the directions it is made of.
        of: from the parts to one number per pair.
        where: where it is defined, a key of ``RUNS``; everywhere where left out.
    """

    name: str
    formula: str
    question: str
    needs: tuple[str, ...]
    of: Callable[[Parts], np.ndarray]
    where: str = ""


RUNS: dict[str, str] = {
    "natural": "the mediator takes its value in the pair's other prompt (interchange), all else responds",
    "constant": "the mediator is set to one value in both runs (zero, projection)",
    "replaced": "the mediator takes a value of another kind (mean, resample, noise, steering, ...)",
    "path": "only some paths from the mediator are patched (direct effects, path patching)",
}
_ROWS = (
    Estimand(
        "total effect",
        "Y(clean) - Y(corrupt)",
        "how much do the two prompts differ?",
        (),
        lambda y: y["clean"] - y["corrupt"],
    ),
    Estimand(
        "natural indirect effect, denoising",
        "Y(corrupt, M clean) - Y(corrupt)",
        "is the mediator enough to bring the answer back?",
        ("denoising",),
        lambda y: y["denoising"],
        where="natural",
    ),
    Estimand(
        "natural indirect effect, noising",
        "Y(clean) - Y(clean, M corrupt)",
        "is the mediator needed for the answer?",
        ("noising",),
        lambda y: y["noising"],
        where="natural",
    ),
    Estimand(
        "natural direct effect, M held clean",
        "Y(clean) - Y(corrupt, M clean)",
        "what of the total goes past the mediator, with its value as in the clean run?",
        ("denoising",),
        lambda y: y["clean"] - y["corrupt"] - y["denoising"],
        where="natural",
    ),
    Estimand(
        "natural direct effect, M held corrupt",
        "Y(clean, M corrupt) - Y(corrupt)",
        "what of the total goes past the mediator, with its value as in the corrupt run?",
        ("noising",),
        lambda y: y["clean"] - y["corrupt"] - y["noising"],
        where="natural",
    ),
    Estimand(
        "mediated interaction",
        "noising less denoising",
        "how much does the effect depend on the state of everything else?",
        ("denoising", "noising"),
        lambda y: y["noising"] - y["denoising"],
        where="natural",
    ),
    Estimand(
        "controlled direct effect",
        "Y(clean, M = m) - Y(corrupt, M = m)",
        "what of the total is left when the mediator is set to the same value m in both runs?",
        ("denoising", "noising"),
        lambda y: y["clean"] - y["corrupt"] - y["denoising"] - y["noising"],
        where="constant",
    ),
    *(
        Estimand(
            f"effect in the {run} run, {words}", formula.format(words), question, (direction,), of, where
        )
        for where, words in (
            ("replaced", "M replaced"),
            ("constant", "M = m"),
            ("path", "paths from M patched"),
        )
        for run, formula, question, direction, of in (
            (
                "corrupt",
                "Y(corrupt, {0}) - Y(corrupt)",
                "how much nearer to the clean answer does it bring the corrupt run?",
                "denoising",
                lambda y: y["denoising"],
            ),
            (
                "clean",
                "Y(clean) - Y(clean, {0})",
                "how much of the answer does it take from the clean run?",
                "noising",
                lambda y: y["noising"],
            ),
        )
    ),
)

ESTIMANDS: dict[str, Estimand] = {row.name: row for row in _ROWS}
CONSTANT, PATHS = ("zero", "projection"), ("direct", "path-patching")


def runs_of(effects: Effects) -> str:
    """Which runs effects were measured by: a key of ``RUNS``."""
    if effects.search in PATHS:
        return "path"
    name = effects.replacement.partition(":")[0]
    return "natural" if name == "interchange" else "constant" if name in CONSTANT else "replaced"


def estimands(effects: Effects, mediator: Any) -> pandas.DataFrame:
    """Every estimand of one mediator that the runs allow, with its interval over groups.

    Natural effects are of replacements by the pair's other prompt (``interchange``); the controlled direct
    effect is of a replacement by one value (``zero``); of other replacements only the effects themselves.

    Args:
        effects: what a search returned.
        mediator: one of its mediators, or its name.

    Returns:
        Columns: estimand, formula, value (in units of the metric), low, high, question.

    Raises:
        ConfigError: no effect of that mediator was measured, or none by itself: a gate, a Shapley value.
    """
    import pandas

    if effects.masks or effects.search == "shapley":
        raise ConfigError(
            f"estimands of {str(mediator)!r} asked, and {effects.search!r} is no effect of replacing it by "
            "itself. Search exhaustively."
        )
    at = effects.place(mediator)
    parts = {"clean": effects.clean, "corrupt": effects.corrupt}
    parts |= {direction: values[at] for direction, values in effects.values.items()}
    runs = runs_of(effects)
    rows: list[tuple[Any, ...]] = []
    for row in _ROWS:
        if row.where in ("", runs) and set(row.needs) <= set(parts):
            found = bootstrap(row.of(parts), groups=effects.groups, seed=effects.seed, support="real")
            ends = found.interval.low, found.interval.high
            rows.append((row.name, row.formula, found.value, *ends, row.question))
    return pandas.DataFrame(rows, columns=["estimand", "formula", "value", "low", "high", "question"])
