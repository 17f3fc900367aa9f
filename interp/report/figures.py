"""Figures: one table of numbers, drawn by plotly for the screen and by matplotlib as SVG.

A figure keeps its numbers as ``.data`` and is never shown by itself: a notebook displays it,
:meth:`Figure.save` writes it.
Colours are the Okabe-Ito palette, which people with any colour vision can tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from interp.errors import DataError
from interp.results import write_atomically

if TYPE_CHECKING:
    import pandas

    from interp import results

__all__ = [
    "COLUMNS",
    "INK",
    "PALETTE",
    "Figure",
    "Mark",
    "drawing",
    "ends",
    "graph_parts",
    "interval_colours",
]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK = "#1d232b"
FAINT = "#8a939e"

Form = Literal["curve", "intervals", "counts", "map", "graph", "scatter"]
COLUMNS: dict[str, tuple[str, ...]] = {
    "curve": ("x", "series", "value", "low", "high"),
    "intervals": ("name", "value", "low", "high"),
    "counts": ("actual", "predicted", "n", "share"),
    "map": ("x", "y", "value"),
    "graph": ("name", "x", "y", "to_x", "to_y", "value"),
    "scatter": ("name", "series", "x", "y"),
}


class Mark(NamedTuple):
    """Hold a row of a graph: a node, or an arrow from ``x, y`` to ``to_x, to_y`` (NaN for a node)."""

    name: str
    x: float
    y: float
    to_x: float
    to_y: float
    value: float


def drawing(figure: results.Figure) -> Figure:
    """A figure of a result, ready to be drawn."""
    return Figure(
        figure.form,
        figure.frame(),
        figure.title,
        figure.caption,
        x=figure.x,
        y=figure.y,
        reference=figure.reference,
        reference_name=figure.reference_name,
        limits=figure.limits,
        band=figure.band,
    )


def graph_parts(figure: Figure) -> tuple[list[Mark], list[Mark]]:
    """Give a graph's nodes and its arrows."""
    name, *places = COLUMNS["graph"]
    rows = zip(figure.data[name], figure.data[places].astype(float).to_numpy(), strict=True)
    marks = [Mark(str(name), *(float(value) for value in numbers)) for name, numbers in rows]
    return [mark for mark in marks if mark.to_x != mark.to_x], [m for m in marks if m.to_x == m.to_x]


def interval_colours(figure: Figure) -> list[str]:
    """Give the colour of each row of intervals: the first stands out unless the rows say otherwise."""
    given = figure.data.get("colour")
    chosen = [0] + [-1] * (len(figure.data) - 1) if given is None else given.astype(int).tolist()
    return [FAINT if index < 0 else PALETTE[index] for index in chosen]


def ends(figure: Figure) -> tuple[float, float]:
    """Give the ends of both axes of a scatter, a little outside of what is drawn."""
    values = figure.data[["x", "y"]].to_numpy(dtype=float)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    edge = 0.05 * (high - low) or 0.5
    return low - edge, high + edge


@dataclass(frozen=True, eq=False)
class Figure:
    """Hold one figure: its numbers, its words, and two ways to draw it.

    Attributes:
        form: ``curve`` (value over x, one line per series, a band for the interval), ``intervals`` (one dot
            with its interval per row; a column ``colour`` gives indices of the palette, -1 for faint),
            ``counts`` (actual against predicted), ``map`` (value over x and y), ``graph`` (a node where
            ``to_x`` is missing, an arrow from one place to another where it is not) or ``scatter`` (one mark
            per row, with the line on which x is y).
        data: the numbers, a pandas DataFrame with the columns of ``COLUMNS[form]``.
        title: what is drawn.
        caption: what n and the interval are.
        x: label of the horizontal axis, with its unit.
        y: label of the vertical axis, with its unit.
        reference: a value to mark with a dashed line, such as chance.
        reference_name: what it is.
        limits: ends of the axis the values are on; left to the data where not given.
        band: of intervals: ends of a shaded strip, such as what counts as no change.
    """

    form: Form
    data: pandas.DataFrame
    title: str
    caption: str
    x: str = ""
    y: str = ""
    reference: float | None = None
    reference_name: str = "chance"
    limits: tuple[float, float] | None = None
    band: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse a table without the form's columns."""
        missing = [column for column in COLUMNS[self.form] if column not in self.data.columns]
        if missing:
            raise DataError(
                f"a figure of the form {self.form!r} needs the column {missing[0]!r}; found "
                f"{list(self.data.columns)}."
            )

    def __repr__(self) -> str:
        """Say what it is, without the numbers."""
        return f"Figure({self.form!r}, {self.title!r}, {len(self.data)} rows)"

    def plotly(self) -> Any:
        """Draw it as a ``plotly.graph_objects.Figure``."""
        from interp.report import interactive

        return interactive.draw(self)

    def svg(self) -> str:
        """Draw it as SVG text: transparent background, real text, no script."""
        return self._drawn

    @cached_property
    def _drawn(self) -> str:
        from interp.report import static

        return static.draw(self)

    def save(self, folder: str | Path, name: str) -> tuple[Path, Path]:
        """Write ``name.svg`` and a self-contained ``name.html``."""
        folder = Path(folder)
        page = self.plotly().to_html(include_plotlyjs=True, full_html=True)
        return (
            write_atomically(folder / f"{name}.svg", self.svg().encode()),
            write_atomically(folder / f"{name}.html", page.encode("utf-8", "backslashreplace")),
        )

    def _repr_html_(self) -> str:
        """Show it in a notebook, as SVG on a white card: without a script, it survives saving and sharing."""
        from html import escape

        style = "background:#fff;color:#1d232b;display:inline-block;padding:8px;margin:0;max-width:100%"
        return f'<figure style="{style}">{self.svg()}<figcaption>{escape(self.caption)}</figcaption></figure>'
