"""The tables of a comparison: side by side for a page, one row per verdict for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp.report.comparing_rows import ORDER, Row, grouped, interval, number, scheme_names
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
MOST_ROWS, MOST_OPEN = 150, 12
MOST_EACH, MOST_LINES = 8, 50


def verdicts(result: dict[str, Any], rows: Sequence[Row]) -> Table | None:
    """Give the verdicts on clear findings, all schemes side by side; of curves the layer that moves most."""
    return _side_by_side(result, _heads(grouped([row for row in rows if row.clear])), "Verdicts")


def _heads(findings: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """Give the findings that are no layer of a curve, and of each curve the layer that moves most."""
    order = {name: at for at, name in enumerate(dict.fromkeys(found[0].analysis for found in findings))}
    heads = [*(found for found in findings if not found[0].curve), *_furthest(findings)]
    return sorted(heads, key=lambda found: order[found[0].analysis])


def page(result: dict[str, Any], rows: Sequence[Row]) -> list[Table | None]:
    """Give the other tables of the report."""
    findings = grouped([row for row in rows if row.clear])
    layers = _side_by_side(result, [found for found in findings if found[0].curve], "Verdicts layer by layer")
    return [
        _counts(result),
        weights(result),
        *changes(result),
        _refused(result),
        _folded(layers),
        _folded(_unclear(result, rows)),
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


def _side_by_side(result: dict[str, Any], findings: Sequence[Sequence[Row]], title: str) -> Table | None:
    """Give one row per finding and one column per scheme: the verdict in words, difference and interval."""
    if not findings:
        return None
    schemes = scheme_names(result)
    body = []
    for found in findings[:MOST_ROWS]:
        first, at = found[0], {row.scheme: row for row in found}
        told = tuple(_told(at[scheme]) if scheme in at else "not measured" for scheme in schemes)
        noise, delta = max(row.noise for row in found), max(row.delta for row in found)
        size = f"{first.n} in {first.n_groups}"
        reference = f"{number(first.reference)} {first.unit}".strip()
        head = (first.analysis, first.finding, reference, number(first.control))
        body.append((*head, *told, number(noise), number(delta), size))
    columns = ("analysis", "finding", "reference", "control", *schemes, "noise", "delta", "items in groups")
    more = len(findings) - len(body)
    note = (
        "Each cell: the verdict, then the difference from the reference with its 95% interval over groups, "
        "in the finding's unit. Verdicts compare that interval with delta. Of a curve over layers, the first "
        "table has the layer that moves most."
    ) + (f" {more:,} more findings are in findings.parquet." if more else "")
    return Table(title, columns, tuple(body), note=note)


def _told(row: Row) -> str:
    ends = interval(row.low, row.high, 2).replace(" ", "\u00a0")
    difference = f"{_signed(row.difference, 2)} {ends}"
    return f"{SIGNS.get(row.verdict, '')} {row.verdict}: {difference}"


def _signed(value: float, figures: int = 3) -> str:
    return f"{'+' if value > 0 else ''}{number(value, figures)}"


def _verdicts(rows: Sequence[Row]) -> Table | None:
    """Give one row per verdict: each analysis's first clear findings, and of curves the layer that moves."""
    findings = grouped([row for row in rows if row.clear])
    if not findings:
        return None
    groups = {(row.analysis, row.scheme) for found in findings for row in found}
    most = max(2, min(MOST_EACH, MOST_LINES // len(groups)))
    shown = _few(_heads(findings), most)
    columns = (
        "analysis",
        "finding",
        "scheme",
        "verdict",
        "reference",
        "value",
        "difference",
        "noise",
        "delta",
    )
    body = tuple(_line(row) for found in shown for row in found)
    more = len(findings) - len(shown)
    note = (
        "Intervals: 95% of the paired difference, over groups of items. Of each analysis: its first "
        "findings, and those that move most; of a curve over layers, one layer."
    ) + (f" {more:,} more clear findings are in findings.parquet and the report." if more else "")
    return Table("Verdicts", columns, body, note=note)


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
    return max(abs(row.difference) / row.delta if row.delta else 0.0 for row in rows)


def _line(row: Row) -> tuple[Cell, ...]:
    return (
        row.analysis,
        row.finding,
        row.scheme,
        row.verdict,
        f"{number(row.reference)} {row.unit}".strip(),
        number(row.value),
        f"{_signed(row.difference)} {interval(row.low, row.high)}",
        number(row.noise),
        number(row.delta),
    )


def _counts(result: dict[str, Any]) -> Table | None:
    rows = [
        {"analysis": row["analysis"], "scheme": row["scheme"]}
        | {name: row[name] for name in (*ORDER, "unclear")}
        | {"": "not run" if row["refused"] else ""}
        for row in result["summary"]
        if row["refused"] or any(row[name] for name in (*ORDER, "unclear"))
    ]
    if not rows:
        return None
    note = (
        "Clear findings by verdict; unclear ones, which the reference itself does not show, are not counted."
    )
    return of_rows(rows, "How many findings", note=note)


def _unclear(result: dict[str, Any], rows: Sequence[Row]) -> Table | None:
    """List the findings that the reference itself does not show."""
    findings = grouped([row for row in rows if not row.clear])
    if not findings:
        return None
    body = [
        {
            "analysis": found[0].analysis,
            "finding": found[0].finding,
            "reference": f"{number(found[0].reference)} {found[0].unit}".strip(),
            "control": number(found[0].control),
            "noise": number(max(row.noise for row in found)),
            **{row.scheme: _signed(row.difference) for row in found},
        }
        for found in findings[:MOST_ROWS]
    ]
    more = len(findings) - len(body)
    note = (
        "The reference itself does not show these: it is not told from the control, or not from its own "
        "noise. There is nothing to survive. Under each scheme: the difference."
    ) + (f" {more:,} more are in findings.parquet." if more else "")
    return of_rows(body, "Not judged", note=note)


def _refused(result: dict[str, Any]) -> Table | None:
    rows = [
        {"analysis": cell["analysis"], "scheme": cell["scheme"], "reason": cell["refused"]}
        for cell in result["cells"]
        if cell["refused"]
    ]
    return of_rows(rows, "Not run") if rows else None
