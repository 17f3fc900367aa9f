"""A comparison's verdicts as rows, from its dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ORDER",
    "SCHEMA",
    "Row",
    "grouped",
    "interval",
    "number",
    "other_label",
    "rows_of",
    "scheme_names",
    "shown_rows",
    "where",
]

SCHEMA = "interp.comparison/2"
ORDER = ("survives", "weakened", "strengthened", "lost", "inconclusive")


@dataclass(frozen=True)
class Row:
    """Hold one verdict: the fields of a ``Judgement`` that a reader needs.

    Open ends of an interval are ``None``.
    """

    analysis: str
    scheme: str
    finding: str
    verdict: str
    reference: float
    value: float
    difference: float
    low: float | None
    high: float | None
    reference_control: float
    control: float
    reference_excess: float
    excess: float
    change: float
    change_low: float | None
    change_high: float | None
    noise: float
    delta: float
    shown: bool
    unit: str
    n: int
    n_groups: int
    curve: str
    layer: int | None
    note: str = ""

    @property
    def sign(self) -> float:
        """Give -1 where the finding lies below its control, so that less of it is an increase."""
        return -1.0 if self.reference_excess < 0 else 1.0


def rows_of(result: dict[str, Any]) -> list[Row]:
    """Give every verdict of a comparison, finding by finding, so that the schemes of one stand together."""
    names = [name for name in Row.__dataclass_fields__ if name not in ("analysis", "scheme")]
    found = [
        Row(cell["analysis"], cell["scheme"], **{name: one[name] for name in names})
        for cell in result["cells"]
        for one in cell["judgements"]
    ]
    return [row for rows in grouped(found) for row in rows]


def grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """Put the rows of one finding together, in the order in which findings first appear."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.analysis, row.finding), []).append(row)
    return list(found.values())


def shown_rows(rows: Sequence[Row]) -> list[Row]:
    """Give the rows whose finding the reference shows."""
    return [row for row in rows if row.shown]


def scheme_names(result: dict[str, Any]) -> list[str]:
    """Give the schemes, and the name of the other checkpoint where there is one."""
    return list(dict.fromkeys(cell["scheme"] for cell in result["cells"]))


def other_label(result: dict[str, Any]) -> str:
    """Give the name under which the other checkpoint stands among the schemes, or ""."""
    other = result.get("other")
    return f"{other['name']} ({other['weights']})" if other else ""


def where(result: dict[str, Any], scheme: str) -> str:
    """Say ``at int8``, or ``in`` another checkpoint."""
    return f"in {scheme}" if scheme == other_label(result) else f"at {scheme}"


def number(value: float | None, figures: int = 3) -> str:
    """Write a number with a few figures; a missing one as a dash."""
    if value is None or value != value:  # NaN
        return "\u2013"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{figures}g}"


def interval(low: float | None, high: float | None, figures: int = 3) -> str:
    """Write an interval; one with an open end is undetermined."""
    return (
        "[undetermined]"
        if low is None or high is None
        else f"[{number(low, figures)}, {number(high, figures)}]"
    )
