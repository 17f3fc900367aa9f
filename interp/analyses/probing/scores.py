"""Accuracies beside what they have to beat: what probes of labels and of concepts share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.analyses.controls import Guessing
from interp.results import Cell, Figure, Number, Table
from probes.statistics import Estimate

__all__ = [
    "CONTROLS",
    "METRICS",
    "Score",
    "by_guessing",
    "ends",
    "figure_of",
    "named",
    "not_beaten",
    "number_of",
    "table_of",
    "tested",
]


@dataclass(frozen=True)
class Control:
    """What a probe is measured against.

    Attributes:
        name: what users type (``--controls``).
        words: what it is, in a sentence such as "... does as well".
        description: one line for tables and ``interp ls``.
        null: whether it is what a probe of no information scores, so that it belongs to the test of guessing;
            the others are comparisons: what reads as much without the model, or without its training.
    """

    name: str
    words: str
    description: str
    null: bool = False


_ROWS = (
    Control(
        "shuffled",
        "probes of shuffled labels",
        "the same probe, trained and tested on labels exchanged between groups, over 20 shuffles",
        null=True,
    ),
    Control(
        "random-weights",
        "the same architecture with random weights",
        "the same probe at the same layer of the architecture with random weights",
    ),
    Control(
        "bag-of-tokens",
        "a bag of words",
        "a logistic probe on the counts of the tokens seen, in any order",
    ),
    Control(
        "majority",
        "always guessing the commonest label",
        "the commonest label of the training split",
    ),
    Control(
        "embedding",
        "the token's embedding",
        "the same probe on the embedding of the token read, before any layer",
    ),
    Control("length", "the number of tokens", "a logistic probe on the number of tokens alone"),
)

CONTROLS: dict[str, Control] = {row.name: row for row in _ROWS}

METRICS: tuple[str, ...] = ("accuracy", *(f"over-{name}" for name in CONTROLS))
"""What a run can be gated on: the accuracy, and its paired difference to each control."""


COLUMNS = ("name", "value", "low", "high", "difference", "difference_low", "difference_high")
HIDDEN = ("layer", "validation", "n", "n_groups", "method", "note")


@dataclass(frozen=True)
class Score:
    """One accuracy on the test split.

    Attributes:
        layer: the layer it belongs to.
        name: "probe", a control, or "chance".
        value: accuracy, from 0 to 1.
        estimate: the same with its interval; None for chance, which is known.
        difference: accuracy of the probe less this one, paired by example; None for the probe and for chance.
        validation: accuracy on the validation split; None where there is none.
        draws: of a control that is drawn many times, the accuracy of each draw.
        directions: of shuffled linear probes, the mean cosine of each label's direction with the probe's own.
    """

    layer: int
    name: str
    value: float
    estimate: Estimate | None = None
    difference: Estimate | None = None
    validation: float | None = None
    draws: tuple[float, ...] = ()
    directions: tuple[float, ...] = ()

    def row(self) -> dict[str, Any]:
        """Every number by name; those that do not exist are None."""
        estimate, difference = self.estimate, self.difference
        return {
            "layer": self.layer,
            "name": self.name,
            "value": self.value,
            "low": estimate.interval.low if estimate else None,
            "high": estimate.interval.high if estimate else None,
            "n": estimate.n if estimate else None,
            "n_groups": estimate.n_groups if estimate else None,
            "difference": difference.value if difference else None,
            "difference_low": difference.interval.low if difference else None,
            "difference_high": difference.interval.high if difference else None,
            "validation": self.validation,
            "method": estimate.interval.method if estimate else "exact",
            "note": estimate.note if estimate else "",
        }

    def cells(self, *columns: str) -> tuple[Cell, ...]:
        """Some of the numbers, for a table."""
        row = self.row()
        return tuple(row[column] for column in columns)


def table_of(scores: Sequence[Score], title: str, note: str) -> Table:
    """The table ``scores``: the probe and what it is measured against."""
    main = next((at for at, score in enumerate(scores) if score.name == "probe"), None)
    columns, form = (*COLUMNS, *HIDDEN), {"difference": "+.3f"}
    rows = [score.cells(*columns) for score in scores]
    return Table("scores", title, columns, rows, note, main=main, formats=form, hidden=HIDDEN)


def figure_of(scores: Sequence[Score], title: str, caption: str, axis: str) -> Figure:
    """The figure ``scores``: the probe beside everything that was measured, with intervals; chance dashed."""
    shown = [score for score in scores if score.estimate is not None]
    names = [f"probe, layer {score.layer}" if score.name == "probe" else score.name for score in shown]
    chance = next((score.value for score in scores if score.name == "chance"), None)
    data = {"name": names, **ends(shown), "n": [score.estimate.n for score in shown if score.estimate]}
    return Figure("scores", "intervals", data, title, caption, axis, reference=chance, limits=(0.0, 1.02))


def ends(scores: Sequence[Score]) -> dict[str, list[float]]:
    """The columns value, low and high of a figure; NaN where there is no interval."""
    rows = [score.row() for score in scores]
    return {
        key: [float("nan") if row[key] is None else row[key] for row in rows]
        for key in ("value", "low", "high")
    }


def number_of(name: str, found: Estimate, meaning: str, label: str = "") -> Number:
    """A headline number with its interval."""
    return Number(name, found.value, found.interval.low, found.interval.high, "", meaning, label)


def by_guessing(guessing: Guessing, what: str = "labels are exchanged between groups") -> str:
    """How often guessing reads as much, for the note of a table."""
    return (
        f"Guessing reads {guessing.expected:.3f}, and as much as the probe with p = {guessing.p_value:.2g}: "
        f"{what}, and what was read stays."
    )


def named(controls: Sequence[Score], rivals: Collection[str], guessing: Guessing) -> list[Score]:
    """What a verdict compares with; of a probe not told from guessing, only what scores more."""
    kept = [score for score in controls if score.name in rivals and score.difference is not None]
    return kept if guessing.beaten else [s for s in kept if s.difference and s.difference.value < 0]


def tested(guessing: Guessing) -> str:
    """The p value in words."""
    return "p < 0.001" if guessing.p_value < 0.001 else f"p = {guessing.p_value:.2g}"


def not_beaten(scores: Sequence[Score], words: Mapping[str, str]) -> str:
    """The comparisons that the probe does not clearly beat, the worst first; "" where it beats all.

    Args:
        scores: comparisons with the probe's difference to each.
        words: of each, by name.
    """
    kept = [(score.difference, score) for score in scores if score.difference is not None]
    lost = [(less, score) for less, score in kept if less.interval.low <= 0]
    lost.sort(key=lambda pair: (pair[0].interval.high >= 0, pair[0].value))
    return " and ".join(
        f"{words[score.name]} {'does better' if less.interval.high < 0 else 'is not clearly beaten'} "
        f"({score.value:.2f}; difference {less.value:+.2f} {less.interval})"
        for less, score in lost
    )
