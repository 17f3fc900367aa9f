"""The one figure of a frontier: what sets of units reach against what they move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.mediation.frontiers.goals import ENOUGH, Goal
from interp.results import Figure

__all__ = ["figure_of"]

LEAST = 1e-4
"""Nats below which a side effect is drawn as this."""
CHANCE = "chance, untrained"
Rows = Sequence[Mapping[str, Any]]


def figure_of(rows: Rows, goal: Goal) -> Figure:
    """Draw one line for each type, and below them what chance and an untrained twin reach.

    Args:
        rows: those of the table of all sets.
        goal: what is drawn.
    """
    axis = "side" if goal.side else "scalars"
    names = list(dict.fromkeys(str(row["type"]) for row in rows))
    data: dict[str, list[Any]] = {name: [] for name in ("x", "series", "value", "low", "high", "colour")}

    def point(*cells: Any) -> None:
        for column, cell in zip(data.values(), cells, strict=True):
            column.append(cell)

    for x, high in _chance(rows, names, axis):
        point(x, CHANCE, high, min(high, 0.0), high, -1)
    for at, name in enumerate(names):
        for row in _of(rows, name, axis):
            x = max(float(row[axis]), LEAST if goal.side else 1.0)
            point(x, name, row["share"], row["low"], row["high"], at)
    x = "side effect on pairs of other tasks (nats)" if goal.side else "real numbers moved a token"
    y = {"explain": "share brought back", "edit": "share of the change", "predict": "share foretold"}
    return Figure(
        "frontier",
        "curve",
        data,
        f"What it takes to {goal.name}, by type of mediator",
        "Bands: 95%, over groups of unseen pairs. Grey: the most that random units of any type, or those "
        "of an untrained twin, reach.",
        x=x,
        y=y[goal.name],
        reference=ENOUGH,
        reference_name=f"{ENOUGH:.0%}",
        log=True,
    )


def _of(rows: Rows, name: str, axis: str) -> list[Mapping[str, Any]]:
    found = [row for row in rows if row["type"] == name and row[axis] is not None]
    return sorted(found, key=lambda row: float(row[axis]))


def _chance(rows: Rows, names: Sequence[str], axis: str) -> list[tuple[float, float]]:
    """The most that random units or the untrained twin reach, of any type, along the axis."""
    column = "random_side" if axis == "side" else axis
    lines: list[tuple[np.ndarray, np.ndarray]] = []
    for name in names:
        points = [(max(float(row[column]), LEAST), _bar(row)) for row in _of(rows, name, axis)]
        x, y = (np.array(one) for one in zip(*sorted(points), strict=True))
        lines.append((np.log(x), y))
    found: list[tuple[float, float]] = []
    for x in sorted({float(x) for line, _ in lines for x in line}):
        there = [np.interp(x, xs, ys) for xs, ys in lines if xs[0] - 1e-9 <= x <= xs[-1] + 1e-9]
        found.append((float(np.exp(x)), float(max(there))))
    return found


def _bar(row: Mapping[str, Any]) -> float:
    """What a type has to beat: of both nulls the nearer to 100%."""
    bars = [row["random"], row["untrained"]]
    return max(1 - abs(1 - float(bar)) for bar in bars if bar is not None and bar == bar)
