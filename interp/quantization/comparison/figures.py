"""The figures of a comparison: changes in units of delta, curves over layers, effects against effects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from interp.errors import counted
from interp.quantization.comparison.tables import grouped
from interp.quantization.comparison.verdicts import Cell, Judged
from interp.results.measured import slug
from interp.results.shapes import Figure

__all__ = ["figures"]

MOST_DRAWN, MOST_CURVES, MOST_NAME, EDGE = 28, 16, 44, 15.0
COLOURS = {"survives": 0, "weakened": 4, "strengthened": 2, "lost": 1, "inconclusive": -1}
SCATTER = ("mediator", "reference", "value")
"""A table of a result that has these columns is drawn as a scatter."""
ENDS = ("finding", "low", "high")
"""A table that has these holds the intervals of the values themselves."""


def figures(rows: Sequence[Judged], references: Sequence[Cell], cells: Sequence[Cell]) -> Iterator[Figure]:
    """All figures, each under another name."""
    taken: set[str] = set()
    for made in (*_differences(rows), *_scatters(cells), *_curves(rows, (*references, *cells))):
        names = (made.name, *(f"{made.name}-{at}" for at in range(2, 99)))
        name = next(one for one in names if one not in taken)
        taken.add(name)
        yield replace(made, name=name)


def _differences(rows: Sequence[Judged]) -> Iterator[Figure]:
    """Changes over delta; where there are too many, those on no curve and the largest ones."""
    shown = [row for row in rows if row.one.shown and row.one.delta > 0]
    if not shown:
        return
    ordered = sorted(shown, key=lambda row: (bool(row.one.curve), -abs(row.one.moved)))
    first = {id(row) for row in ordered[:MOST_DRAWN]}
    drawn = [row for found in grouped(shown) for row in found if id(row) in first]
    names = _names(drawn, several=len({row.analysis for row in shown}) > 1)
    value, low, high = zip(*map(_scaled, drawn), strict=True)
    left = len(shown) - len(drawn)
    yield Figure(
        "differences",
        "intervals",
        {
            "name": names,
            "value": value,
            "low": low,
            "high": high,
            "colour": [COLOURS[row.one.verdict] for row in drawn],
        },
        "How far findings move",
        "Change of the excess over the control in units of delta, 95% intervals over groups of items; left "
        "is less of the finding. Survives: within the band, which is itself uncertain. Ends beyond "
        f"{EDGE:.0f} are cut."
        + (f" {left:,} verdicts closer to zero or on layer curves are not drawn." if left else ""),
        x="change of the excess / delta",
        reference=0.0,
        reference_name="unchanged",
        band=(-1.0, 1.0),
    )


def _names(rows: Sequence[Judged], *, several: bool) -> list[str]:
    """A name for each row; the analysis stands before it where there are several, or where two are alike."""
    names = []
    for row in rows:
        prefix = f"{row.analysis}: " if several and not row.one.finding.startswith(row.analysis) else ""
        text = " ".join((prefix + row.one.finding).split())
        text = text if len(text) <= MOST_NAME else f"{text[: MOST_NAME - 1]}\u2026"
        names.append(f"{text} \u00b7 {row.scheme}: {row.one.verdict}")
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{row.analysis}: {name}" if name in twice else name for row, name in zip(rows, names, strict=True)
    ]


def _scaled(row: Judged) -> tuple[float, float, float]:
    """Value, low and high over delta, turned so that less of the finding is negative."""
    one = row.one
    low, high = sorted(one.sign * end / one.delta for end in (one.change_low, one.change_high))
    return _cut(one.moved), _cut(low), _cut(high)


def _cut(value: float) -> float:
    return max(-EDGE, min(EDGE, value))


def _curves(rows: Sequence[Judged], cells: Sequence[Cell]) -> Iterator[Figure]:
    """Each curve over layers: the reference, and every scheme."""
    names = dict.fromkeys(
        (row.analysis, row.one.curve) for row in rows if row.one.curve and row.one.layer is not None
    )
    for name, curve in list(names)[:MOST_CURVES]:
        part = [row for row in rows if (row.analysis, row.one.curve) == (name, curve)]
        if len({row.one.layer for row in part}) > 1:
            yield _curve(name, curve, part, _ends([cell for cell in cells if cell.analysis == name]))


def _curve(
    name: str, curve: str, rows: Sequence[Judged], ends: dict[tuple[str, str], tuple[float, float]]
) -> Figure:
    points: list[tuple[object, ...]] = []
    for found in grouped(rows):
        one = found[0].one
        points.append(
            (one.layer, "reference", one.reference, *ends.get(("", one.finding), (one.reference,) * 2))
        )
        points += [
            (
                row.one.layer,
                row.scheme,
                row.one.value,
                *ends.get((row.scheme, one.finding), (row.one.value,) * 2),
            )
            for row in found
        ]
    banded = any(low != value for _, _, value, low, _ in points)
    controls = {control for row in rows for control in (row.one.reference_control, row.one.control)}
    first = rows[0].one
    return Figure(
        f"curve-{slug(name)}-{slug(curve)}",
        "curve",
        dict(zip(("x", "series", "value", "low", "high"), zip(*points, strict=True), strict=True)),
        f"{name}: {curve}, layer by layer",
        f"{counted(first.n, 'item')} in {counted(first.n_groups, 'group')}. "
        + ("Bands: 95% intervals over groups." if banded else "No band: these are no means of items."),
        x="layer",
        y=first.unit or "value",
        reference=controls.pop() if len(controls) == 1 else None,
        reference_name="control",
    )


def _ends(cells: Sequence[Cell]) -> dict[tuple[str, str], tuple[float, float]]:
    """(scheme, finding) -> the interval of the value itself; the reference's scheme is ""."""
    return {
        (cell.scheme, str(finding)): (float(low), float(high))
        for cell in cells
        for finding, low, high in _columns(cell, ENDS)
        if low is not None and high is not None
    }


def _scatters(cells: Sequence[Cell]) -> Iterator[Figure]:
    """Effects in the other models against the reference's, where an analysis has a table of them."""
    for analysis in dict.fromkeys(cell.analysis for cell in cells):
        points = [
            (str(name), cell.scheme, float(before), float(now))
            for cell in cells
            if cell.analysis == analysis
            for name, before, now in _columns(cell, SCATTER)
            if isinstance(before, float) and isinstance(now, float) and math.isfinite(before + now)
        ]
        if points:
            names, series, x, y = zip(*points, strict=True)
            yield Figure(
                f"scatter-{slug(analysis)}",
                "scatter",
                {"name": names, "series": series, "x": x, "y": y},
                f"{analysis}: effects in the reference and in the other model",
                f"One mark per mediator and model ({counted(len(set(names)), 'mediator')}); on the dashed "
                "line both "
                "are the same.",
                x="effect in the reference",
                y="effect in the other model",
            )


def _columns(cell: Cell, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The cells of those columns, of the first table that has them."""
    for table in cell.tables:
        if set(names) <= set(table.columns):
            places = [table.columns.index(name) for name in names]
            yield from (tuple(row[at] for at in places) for row in table.rows)
            return
