"""The table of estimands: which question each combination of patched and unpatched runs answers.

Y is the metric, M the mediator; ``Y(corrupt, M clean)`` is the corrupt prompt run with the mediator's value
from the clean one. Robins and Greenland 1992; Pearl 2001; for language models Vig et al. 2020 (2004.12265).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.statistics import bootstrap

if TYPE_CHECKING:
    import pandas

    from interp.mediation.effects import Effects

__all__ = ["ESTIMANDS", "Estimand", "estimands"]

Parts = dict[str, np.ndarray]
"""``clean``, ``corrupt`` and each direction measured, ``[pair]`` each."""


@dataclass(frozen=True)
class Estimand:
    """Describe an estimand.

    Attributes:
        name: the field's term.
        formula: in runs.
        question: what it answers.
        needs: the directions it is made of.
        of: from the parts to one number per pair.
        constant: whether it is defined only where the mediator is set to one value in both runs.
    """

    name: str
    formula: str
    question: str
    needs: tuple[str, ...]
    of: Callable[[Parts], np.ndarray]
    constant: bool = False


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
    ),
    Estimand(
        "natural indirect effect, noising",
        "Y(clean) - Y(clean, M corrupt)",
        "is the mediator needed for the answer?",
        ("noising",),
        lambda y: y["noising"],
    ),
    Estimand(
        "natural direct effect, M held clean",
        "Y(clean) - Y(corrupt, M clean)",
        "what of the total goes past the mediator, with its value as in the clean run?",
        ("denoising",),
        lambda y: y["clean"] - y["corrupt"] - y["denoising"],
    ),
    Estimand(
        "natural direct effect, M held corrupt",
        "Y(clean, M corrupt) - Y(corrupt)",
        "what of the total goes past the mediator, with its value as in the corrupt run?",
        ("noising",),
        lambda y: y["clean"] - y["corrupt"] - y["noising"],
    ),
    Estimand(
        "mediated interaction",
        "noising less denoising",
        "how much does the effect depend on the state of everything else?",
        ("denoising", "noising"),
        lambda y: y["noising"] - y["denoising"],
    ),
    Estimand(
        "controlled direct effect",
        "Y(clean, M = m) - Y(corrupt, M = m)",
        "what of the total is left when the mediator is set to the same value m in both runs?",
        ("denoising", "noising"),
        lambda y: y["clean"] - y["corrupt"] - y["denoising"] - y["noising"],
        constant=True,
    ),
)

ESTIMANDS: dict[str, Estimand] = {row.name: row for row in _ROWS}
CONSTANT = ("zero",)


def estimands(effects: Effects, mediator: Any) -> pandas.DataFrame:
    """Give every estimand of one mediator that the measured directions allow, with its interval over groups.

    Natural effects are of replacements by the pair's other prompt (``interchange``); the controlled direct
    effect is of a replacement by one value (``zero``).

    Args:
        effects: what a search returned.
        mediator: one of its mediators, or its name.

    Returns:
        Columns: estimand, formula, value (in units of the metric), low, high, question.

    Raises:
        ConfigError: no effect of that mediator was measured.
    """
    import pandas

    at = effects.place(mediator)
    parts = {"clean": effects.clean, "corrupt": effects.corrupt}
    parts |= {direction: values[at] for direction, values in effects.values.items()}
    constant = effects.replacement in CONSTANT
    rows: list[dict[str, Any]] = []
    for row in _ROWS:
        fits = row.constant == constant or not row.needs
        if not fits or not set(row.needs) <= set(parts):
            continue
        found = bootstrap(row.of(parts), groups=effects.groups, seed=effects.seed, support="real")
        rows.append(
            {
                "estimand": row.name,
                "formula": row.formula,
                "value": found.value,
                "low": found.interval.low,
                "high": found.interval.high,
                "question": row.question,
            }
        )
    return pandas.DataFrame(rows)
