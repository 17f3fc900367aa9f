"""The figures of a comparison: differences in units of delta, layer curves, effects against effects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from interp.report.comparing_rows import Row, grouped, rows_of
from interp.report.figures import Figure
from interp.report.text import one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["figures", "main_figure"]

MOST_DRAWN, MOST_CURVES, MOST_NAME, EDGE = 28, 16, 44, 15.0
COLOURS = {"survives": 0, "weakened": 4, "strengthened": 2, "lost": 1, "inconclusive": -1}
SCATTER = {"mediator", "reference", "value"}


def figures(result: dict[str, Any]) -> dict[str, Figure]:
    """Give the figures by file name."""
    rows = rows_of(result)
    found: dict[str, Figure] = {}
    differences = _differences(rows)
    if differences is not None:
        found["differences"] = differences
    for name, figure in [*_scatters(result), *_curves(result, rows)]:
        found[_free(name, found)] = figure
    return found


def _free(name: str, taken: Collection[str]) -> str:
    """Give a file name that no other figure has."""
    return name if name not in taken else next(n for i in range(2, 99) if (n := f"{name}-{i}") not in taken)


def main_figure(result: dict[str, Any]) -> Figure:
    """Give the change of every finding that the reference shows, in units of delta, with its interval."""
    found = _differences(rows_of(result))
    return _empty() if found is None else found


def _empty() -> Figure:
    import pandas

    data = pandas.DataFrame([], columns=["name", "value", "low", "high"])
    return Figure("intervals", data, "What survives", "The reference shows no finding.")


def _differences(rows: Sequence[Row]) -> Figure | None:
    """Draw differences over delta; where there are too many, those of no curve and the largest ones."""
    import pandas

    shown = [row for row in rows if row.shown and row.delta > 0]
    if not shown:
        return None
    several = len({row.analysis for row in shown}) > 1

    def prefix(row: Row) -> str:
        return f"{row.analysis}: " if several and not row.finding.startswith(row.analysis) else ""

    ordered = sorted(shown, key=lambda row: (bool(row.curve), -abs(row.change) / row.delta))
    first = {id(row) for row in ordered[:MOST_DRAWN]}
    drawn = [row for found in grouped(shown) for row in found if id(row) in first]
    data = pandas.DataFrame(
        [
            (
                f"{one_line(prefix(row) + row.finding, MOST_NAME)} \u00b7 {row.scheme}: {row.verdict}",
                *_scaled(row),
                COLOURS[row.verdict],
            )
            for row in drawn
        ],
        columns=["name", "value", "low", "high", "colour"],
    )
    left = len(shown) - len(drawn)
    return Figure(
        "intervals",
        _unique(data, drawn),
        "How far findings move",
        "Change of the excess over the control in units of delta, 95% intervals over groups of items; left "
        "is less of the finding. Survives: within the band, which is itself uncertain. Ends beyond "
        f"{EDGE:.0f} are cut."
        + (f" {left:,} verdicts closer to zero or on layer curves are not drawn." if left else ""),
        x="change of the excess / delta (negative: weaker)",
        reference=0.0,
        reference_name="unchanged",
        band=(-1.0, 1.0),
    )


def _unique(data: Any, rows: Sequence[Row]) -> Any:
    """Put the analysis before names that two rows share: each has a line of its own."""
    twice = data["name"].duplicated(keep=False)
    names = [
        f"{row.analysis}: {name}" if two else name
        for row, name, two in zip(rows, data["name"], twice, strict=True)
    ]
    return data.assign(name=names)


def _scaled(row: Row) -> tuple[float, float, float]:
    """Give value, low and high over delta, turned so that less of the finding is negative."""
    ends = [
        -EDGE if row.change_low is None else row.change_low / row.delta,
        EDGE if row.change_high is None else row.change_high / row.delta,
    ]
    low, high = sorted(row.sign * end for end in ends)
    return _cut(row.sign * row.change / row.delta), _cut(low), _cut(high)


def _cut(value: float) -> float:
    return max(-EDGE, min(EDGE, value))


def _curves(result: dict[str, Any], rows: Sequence[Row]) -> Iterator[tuple[str, Figure]]:
    """Draw each curve over layers: the reference, and every scheme."""
    names = dict.fromkeys((row.analysis, row.curve) for row in rows if row.curve and row.layer is not None)
    for analysis, curve in list(names)[:MOST_CURVES]:
        part = [row for row in rows if (row.analysis, row.curve) == (analysis, curve)]
        if len({row.layer for row in part}) > 1:
            yield f"curve-{_slug(analysis)}-{_slug(curve)}", _curve(result, analysis, curve, part)


def _curve(result: dict[str, Any], analysis: str, curve: str, rows: Sequence[Row]) -> Figure:
    import pandas

    ends = _ends(result, analysis)
    points: list[tuple[Any, ...]] = []
    for found in grouped(rows):
        first = found[0]
        points.append((first.layer, "reference", *_with_ends(ends, "", first.finding, first.reference)))
        points += [
            (row.layer, row.scheme, *_with_ends(ends, row.scheme, row.finding, row.value)) for row in found
        ]
    banded = any(low != value for _, _, value, low, _ in points)
    control = {control for row in rows for control in (row.reference_control, row.control)}
    one = next(iter(control)) if len(control) == 1 else None
    return Figure(
        "curve",
        pandas.DataFrame(points, columns=["x", "series", "value", "low", "high"]),
        f"{analysis}: {curve}, layer by layer",
        f"{rows[0].n:,} items in {rows[0].n_groups:,} groups. "
        + ("Bands: 95% intervals over groups." if banded else "No band: these are no means of items."),
        x="layer",
        y=rows[0].unit or "value",
        reference=one,
        reference_name="control",
    )


def _ends(result: dict[str, Any], analysis: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Give (scheme, finding) -> the interval of the value itself; the reference's scheme is ""."""
    cells = [("", result["references"].get(analysis, {}))]
    cells += [(cell["scheme"], cell["result"]) for cell in result["cells"] if cell["analysis"] == analysis]
    return {
        (scheme, row["finding"]): (row["low"], row["high"])
        for scheme, content in cells
        for row in content.get("findings", [])
        if row.get("low") is not None and row.get("high") is not None
    }


def _with_ends(ends: Any, scheme: str, finding: str, value: float) -> tuple[float, float, float]:
    low, high = ends.get((scheme, finding), (value, value))
    return value, low, high


def _scatters(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Draw effects in the other models against the reference's, where an analysis keeps them."""
    import pandas

    for analysis in dict.fromkeys(cell["analysis"] for cell in result["cells"]):
        points = [
            (float(row["reference"]), float(row["value"]), cell["scheme"], str(row["mediator"]))
            for cell in result["cells"]
            if cell["analysis"] == analysis
            for row in _pairs(cell["result"])
            if row["reference"] is not None and row["value"] is not None
        ]
        if points:
            yield (
                f"scatter-{_slug(analysis)}",
                Figure(
                    "scatter",
                    pandas.DataFrame(points, columns=["x", "y", "series", "name"]),
                    f"{analysis}: effects in the reference and in the other model",
                    f"One mark per mediator and model ({len({p[3] for p in points}):,} mediators); on the "
                    "dashed line both are the same.",
                    x="effect in the reference",
                    y="effect in the other model",
                ),
            )


def _pairs(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the rows of mediator, reference and value among the facts of a result."""
    for value in content.get("facts", {}).values():
        if isinstance(value, list) and value and isinstance(value[0], dict) and value[0].keys() >= SCATTER:
            return value
    return []


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40] or "x"
