"""The tables of a comparison: side by side for a page, one row per verdict for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp.report.comparing_rows import ORDER, Row, grouped, interval, number
from interp.report.comparing_weights import changes, weights
from interp.report.story import Cell, Table
from interp.report.tables import of_rows

__all__ = ["cell_warnings", "page", "terminal", "verdicts"]

SIGNS = {
    "survives": "\u2713",
    "weakened": "\u25bd",
    "strengthened": "\u25b3",
    "lost": "\u2717",
    "inconclusive": "?",
}
FIRST = ("lost", "weakened", "strengthened", "inconclusive", "survives")
HEADS = (
    "analysis",
    "finding",
    "scheme",
    "verdict",
    "reference",
    "value",
    "difference",
    "control, reference",
    "control",
    "excess, reference",
    "excess",
    "change of the excess",
    "noise",
    "delta",
    "items in groups",
)
ON_SCREEN = (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13)
"""Columns of ``HEADS`` that a terminal has room for."""
JUDGED = (
    "Difference: value less reference. Excess: value less the control of the same model. The verdict is on "
    "the change of the excess, which is the difference wherever both controls are the same, against delta: "
    "10% of the reference's excess, taken item by item, or three noise floors. Intervals: 95%, paired, over "
    "groups of items."
)
MOST_ROWS, MOST_OPEN, MOST_NOTES = 150, 12, 4
MOST_EACH, MOST_LINES = 8, 50


def verdicts(rows: Sequence[Row]) -> Table | None:
    """Give the verdicts on findings that the reference shows; of curves the layer that moves most."""
    return _listed(_heads(grouped([row for row in rows if row.shown])), "Verdicts")


def _heads(findings: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """Give the findings that are no layer of a curve, and of each curve the layer that moves most."""
    order = {name: at for at, name in enumerate(dict.fromkeys(found[0].analysis for found in findings))}
    heads = [*(found for found in findings if not found[0].curve), *_furthest(findings)]
    return sorted(heads, key=lambda found: order[found[0].analysis])


def page(result: dict[str, Any], rows: Sequence[Row]) -> list[Table | None]:
    """Give the other tables of the report."""
    findings = grouped([row for row in rows if row.shown])
    layers = _listed([found for found in findings if found[0].curve], "Verdicts layer by layer")
    return [
        _counts(result),
        weights(result),
        *changes(result),
        _refused(result),
        _folded(layers),
        _folded(_hidden(rows)),
    ]


def _folded(table: Table | None) -> Table | None:
    """Fold a long table, so that what follows is seen."""
    return table if table is None or len(table.rows) <= MOST_OPEN else replace(table, folded=True)


def terminal(result: dict[str, Any], rows: Sequence[Row]) -> list[Table | None]:
    """Give the tables of a terminal: one row per verdict, and no more of them than can be read."""
    return [
        _verdicts(rows),
        _counts(result),
        weights(result),
        *changes(result),
        _refused(result),
    ]


def cell_warnings(result: dict[str, Any]) -> list[str]:
    """Give what the analyses of the other models warn of, each text once, with where it was said."""
    places: dict[tuple[str, str], list[str]] = {}
    for cell in result["cells"]:
        missing = [f"the finding {name!r} of the reference is missing" for name in cell["missing"]]
        for text in [*cell["warnings"], *missing]:
            places.setdefault((cell["analysis"], text), []).append(cell["scheme"])
    everywhere = set(result.get("warnings", []))
    return [
        f"{analysis}, {', '.join(found)}: {text}"
        for (analysis, text), found in places.items()
        if text not in everywhere
    ]


def _listed(findings: Sequence[Sequence[Row]], title: str) -> Table | None:
    """Give one row per verdict, findings with lost and weakened ones first."""
    if not findings:
        return None
    ordered = sorted(findings, key=lambda found: min(FIRST.index(row.verdict) for row in found))
    body = tuple(_line(row) for found in ordered[:MOST_ROWS] for row in found)
    more = len(findings) - min(len(findings), MOST_ROWS)
    note = JUDGED + (f" {more:,} more findings are in findings.parquet." if more else "") + _notes(findings)
    return Table(title, HEADS, body, note=note)


def _notes(findings: Sequence[Sequence[Row]]) -> str:
    """Give what a reader should know about single verdicts."""
    said = dict.fromkeys(f" {row.finding}: {row.note}." for found in findings for row in found if row.note)
    return "".join(list(said)[:MOST_NOTES]) + (" ..." if len(said) > MOST_NOTES else "")


def _signed(value: float, figures: int = 3) -> str:
    return f"{'+' if value > 0 else ''}{number(value, figures)}"


def _verdicts(rows: Sequence[Row]) -> Table | None:
    """Give one row per verdict: each analysis's first findings, and of curves the layer that moves most."""
    findings = grouped([row for row in rows if row.shown])
    if not findings:
        return None
    groups = {(row.analysis, row.scheme) for found in findings for row in found}
    most = max(2, min(MOST_EACH, MOST_LINES // len(groups)))
    shown = _few(_heads(findings), most)
    body = tuple(tuple(_line(row)[at] for at in ON_SCREEN) for found in shown for row in found)
    more = len(findings) - len(shown)
    note = (
        f"{JUDGED} Of each analysis: its first findings, and those that move most; of a curve over layers, "
        "one layer."
    ) + (f" {more:,} more findings are in findings.parquet and the report." if more else "")
    return Table("Verdicts", tuple(HEADS[at] for at in ON_SCREEN), body, note=note + _notes(shown))


def _few(heads: Sequence[Sequence[Row]], most: int) -> list[Sequence[Row]]:
    """Give so many findings of each analysis: half of them its first ones, then those that move most."""
    chosen: set[int] = set()
    for analysis in dict.fromkeys(found[0].analysis for found in heads):
        own = [found for found in heads if found[0].analysis == analysis]
        first, rest = own[: (most + 1) // 2], own[(most + 1) // 2 :]
        chosen |= {id(found) for found in [*first, *sorted(rest, key=_moved, reverse=True)[: most // 2]]}
    return [found for found in heads if id(found) in chosen]


def _furthest(findings: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """Give of each curve the layer that moves most in any of the models, in units of delta."""
    found: dict[tuple[str, str], Sequence[Row]] = {}
    for rows in findings:
        key = (rows[0].analysis, rows[0].curve)
        if rows[0].curve and (key not in found or _moved(rows) > _moved(found[key])):
            found[key] = rows
    return list(found.values())


def _moved(rows: Sequence[Row]) -> float:
    return max(abs(row.change) / row.delta if row.delta else 0.0 for row in rows)


def _line(row: Row) -> tuple[Cell, ...]:
    """Give the cells of ``HEADS``."""
    return (
        row.analysis,
        row.finding,
        row.scheme,
        f"{SIGNS.get(row.verdict, '')} {row.verdict}",
        f"{number(row.reference)} {row.unit}".strip(),
        number(row.value),
        f"{_signed(row.difference)} {interval(row.low, row.high)}",
        number(row.reference_control),
        number(row.control),
        number(row.reference_excess),
        number(row.excess),
        f"{_signed(row.change)} {interval(row.change_low, row.change_high)}",
        number(row.noise),
        number(row.delta),
        f"{row.n} in {row.n_groups}",
    )


def _counts(result: dict[str, Any]) -> Table | None:
    rows = [
        {"analysis": row["analysis"], "scheme": row["scheme"]}
        | {name: row[name] for name in (*ORDER, "not shown")}
        | {"": "not run" if row["refused"] else ""}
        for row in result["summary"]
        if row["refused"] or any(row[name] for name in (*ORDER, "not shown"))
    ]
    if not rows:
        return None
    note = "Findings that the reference shows, by verdict; those that it does not show are not judged."
    return of_rows(rows, "How many findings", note=note)


def _hidden(rows: Sequence[Row]) -> Table | None:
    """List the findings that the reference itself does not show."""
    findings = grouped([row for row in rows if not row.shown])
    if not findings:
        return None
    body = tuple(_line(row) for found in findings[:MOST_ROWS] for row in found)
    more = len(findings) - min(len(findings), MOST_ROWS)
    note = (
        "The reference itself does not show these: it is not told from the control, or not from its own "
        "noise. There is nothing to survive."
    ) + (f" {more:,} more are in findings.parquet." if more else "")
    return Table("Not judged", HEADS, body, note=note)


def _refused(result: dict[str, Any]) -> Table | None:
    rows = [
        {"analysis": cell["analysis"], "scheme": cell["scheme"], "reason": cell["refused"]}
        for cell in result["cells"]
        if cell["refused"]
    ]
    return of_rows(rows, "Not run") if rows else None
