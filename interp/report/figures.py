"""Figures: one table of numbers, drawn by matplotlib as SVG.

A figure keeps its numbers as ``.data`` and is never shown by itself: a notebook displays it,
:meth:`Drawing.save` writes it. Every mark says its numbers when the pointer rests on it, without a script.
Colours are the Okabe-Ito palette, which people with any colour vision can tell apart.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interp import results, runs
from interp.errors import ConfigError, DataError, counted
from interp.report.escape import printable
from interp.results import write_atomically
from interp.results.shapes import FORMS as COLUMNS
from interp.results.shapes import Form

if TYPE_CHECKING:
    import pandas

__all__ = ["FAINT", "INK", "PALETTE", "Drawing", "drawing", "figure_of"]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK = "#1d232b"
FAINT = "#8a939e"


STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "interp",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.unicode_minus": True,
}
LABEL, WIDE = 28, 64
CELL, LINE = 0.64, 0.24
"""Of a grid: width and height of a cell, in inches."""
SHORT = 22
"""Letters of the names of a legend of two columns, at most."""
LETTERS = 9
"""What a cell of a grid has room for; a wide letter (Chinese, say) takes two."""
SPARSE = 40
"""Rows of a grid of which each has its number."""
NUMBERED = 14
MARKS = ("o", "x", "^", "+", "s", "v")


def drawing(figure: results.Figure) -> Drawing:
    """A figure of a result, ready to be drawn."""
    words = {one.name: getattr(figure, one.name) for one in fields(Drawing) if one.name != "data"}
    return Drawing(data=figure.frame(), **words)


def figure_of(result: Any, name: str = "") -> Drawing:
    """A figure of a result, of a run folder, or of what is one already.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(result, str | Path):
        _, result = runs.open_result(result)
    if isinstance(result, results.Result):
        result = result.figure(name)
    if not isinstance(result, results.Figure):
        raise ConfigError(
            f"no figure is known for a {type(result).__name__}; give a result of an analysis, or a run."
        )
    return drawing(result)


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of a result as it is drawn: the same fields, with ``data`` a pandas DataFrame.

    See :class:`interp.results.Figure` for the forms and what each field means.
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
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse a table without the form's columns."""
        missing = [column for column in COLUMNS[self.form] if column not in self.data.columns]
        if missing:
            raise DataError(
                f"a figure of the form {self.form!r} needs the column {missing[0]!r}; found "
                f"{list(self.data.columns)}."
            )

    def __repr__(self) -> str:
        """What it is, without the numbers."""
        return f"Drawing({self.form!r}, {self.title!r}, {counted(len(self.data), 'row')})"

    @property
    def lines(self) -> bool:
        """Whether its words are lines of text, without names of columns: read from the left."""
        return self.form == "grid" and not any(self.data["column"])

    def svg(self) -> str:
        """Draw it as SVG text: transparent background, real text, no script; marks say their numbers."""
        return self._drawn

    @cached_property
    def _drawn(self) -> str:
        return _draw(self)

    def save(self, folder: str | Path, name: str) -> tuple[Path, Path]:
        """Write ``name.svg``, and ``name.csv`` with the numbers."""
        folder, numbers = Path(folder), self.data.to_csv(index=False)
        return (
            write_atomically(folder / f"{name}.svg", self.svg().encode()),
            write_atomically(folder / f"{name}.csv", numbers.encode("utf-8", "backslashreplace")),
        )

    def _repr_html_(self) -> str:
        """Show it in a notebook, as SVG on a white card: without a script, it survives saving and sharing."""
        style = "background:#fff;color:#1d232b;display:inline-block;padding:8px;margin:0;max-width:100%"
        return f'<figure style="{style}">{self.svg()}<figcaption>{escape(self.caption)}</figcaption></figure>'


class Tips:
    """What each mark says when the pointer rests on it: group of the SVG -> one text per mark."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.through = False
        """Whether the pointer goes through words to the marks below them."""

    def mark(self, artist: Any, texts: Sequence[str]) -> None:
        """Give the marks of an artist their texts, in the order in which it draws them."""
        name = f"tip-{len(self.texts)}"
        artist.set_gid(name)
        self.texts[name] = [escape(printable(text)) for text in texts]

    def written(self, svg: str) -> str:
        """The SVG with the texts as titles; an artist that drew another number of marks stays without."""
        for name, texts in self.texts.items():
            start = svg.find(f'<g id="{name}">')
            end = _end_of_group(svg, start)
            group = re.sub(r"<defs>.*?</defs>", lambda found: " " * len(found[0]), svg[start:end], flags=re.S)
            marks = list(re.finditer(r"<use [^>]*/>", group)) or list(re.finditer(r"<path [^>]*/>", group))
            if start < 0 or len(marks) != len(texts):
                continue
            for found, text in reversed(list(zip(marks, texts, strict=True))):
                tag = re.match(r"<(\w+)", found[0])
                assert tag is not None
                at = start + found.end()
                svg = f"{svg[: at - 2]}><title>{text}</title></{tag[1]}>{svg[at:]}"
        return svg.replace("</style>", "text{pointer-events: none}</style>", 1) if self.through else svg


def _end_of_group(svg: str, start: int) -> int:
    open_ = 0
    for found in re.finditer(r"<g[ >]|</g>", svg[start:]):
        open_ += 1 if found[0] != "</g>" else -1
        if not open_:
            return start + found.end()
    return len(svg)


def _draw(figure: Drawing) -> str:
    """The figure as SVG text; its ink is ``currentColor``, so that it follows the page."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    tips = Tips()
    with _style():
        canvas = Canvas(figsize=_size(figure), layout="constrained")
        FigureCanvasSVG(canvas)
        FORMS[figure.form](figure, canvas.add_subplot(), tips)
        layout: Any = canvas.get_layout_engine()
        layout.execute(canvas)
        canvas.set_layout_engine("none")  # which else draws everything twice
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
    label = printable(figure.title).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return tips.written(text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label in a script the layout font lacks: the browser has it
        yield


def _size(figure: Drawing) -> tuple[float, float]:
    """Width and height in inches."""
    if figure.form == "counts":
        labels = len(set(figure.data["actual"]))
        return min(2.2 + 0.42 * labels, 9.0), min(1.6 + 0.38 * labels, 8.0)
    if figure.form == "map":
        across, down = (len(set(figure.data[axis])) for axis in ("x", "y"))
        return min(max(1.4 + 0.3 * across, 3.0), 9.0), min(max(1.2 + 0.22 * down, 2.4), 9.0)
    if figure.form == "grid":
        across, down = (len(set(figure.data[axis])) for axis in ("x", "y"))
        return 1.3 + CELL * max(across, 4), 1.1 + LINE * down
    if figure.form in ("scatter", "curve"):
        names = [_label(name) for name in dict.fromkeys(figure.data["series"])]
        legend = 0.18 * -(-len(names) // _columns(names))
        return (6.4, 4.2 + legend) if figure.form == "scatter" else (7.2, 3.4 + legend)
    return 7.2, 0.8 + 0.42 * len(figure.data)


def _curve(figure: Drawing, axes: Any, tips: Tips) -> None:
    for i, (name, part) in enumerate(figure.data.groupby("series", sort=False)):
        at, part = int(part["colour"].iloc[0]) if "colour" in part else i, part.sort_values("x")
        if at < 0:
            shade: Any = {"color": FAINT, "alpha": 0.3, "linewidth": 0, "label": _label(name)}
            axes.fill_between(part["x"], part["low"], part["high"], **shade)
            continue
        colour = PALETTE[at % len(PALETTE)]
        axes.fill_between(part["x"], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)
        (line,) = axes.plot(
            part["x"],
            part["value"],
            color=colour,
            marker=MARKS[at // len(PALETTE) * 2],
            linestyle="-" if at < len(PALETTE) else (0, (4, 2)),
            markersize=3.2,
            linewidth=1.6,
            label=_label(name),
        )
        rows = part[["x", "value", "low", "high"]].itertuples(index=False)
        told = [f"{name}, {figure.x} {x:g}: {_interval(*row)}" for x, *row in rows if row[0] == row[0]]
        tips.mark(line, told)
    if figure.reference is not None:
        axes.axhline(
            figure.reference, color=FAINT, linestyle=(0, (4, 3)), linewidth=1, label=figure.reference_name
        )
    axes.set_ylim(figure.limits)
    if figure.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))
    _legend(axes)


def _legend(axes: Any) -> None:
    """Name the series above the axes, from the left: what a page narrower than the drawing shows first."""
    columns = _columns(axes.get_legend_handles_labels()[1])
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    axes.legend(frameon=False, fontsize=9, ncols=columns, **place)


def _columns(names: Sequence[str]) -> int:
    """Of a legend that a phone shows whole."""
    return 2 if max(map(len, names), default=0) <= SHORT else 1


def _intervals(figure: Drawing, axes: Any, tips: Tips) -> None:
    rows, colours = figure.data.reset_index(drop=True), _interval_colours(figure)
    if figure.band is not None:
        axes.axvspan(*figure.band, color=FAINT, alpha=0.16, linewidth=0)
    for i, row in enumerate(rows.to_dict("records")):
        colour = colours[i]
        axes.plot([row["low"], row["high"]], [i, i], color=colour, linewidth=2.4, solid_capstyle="round")
        (dot,) = axes.plot([row["value"]], [i], color=colour, marker="o", markersize=6.5)
        tips.mark(dot, [f"{row['name']}: {_interval(row['value'], row['low'], row['high'])}"])
    if figure.reference is not None:
        axes.axvline(figure.reference, color=FAINT, linestyle=(0, (4, 3)), linewidth=1)
        axes.annotate(
            printable(figure.reference_name),
            (figure.reference, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=8.5,
            color=FAINT,
        )
    axes.set_yticks(range(len(rows)), [_label(name, WIDE) for name in rows["name"]])
    axes.set_xlim(figure.limits)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(printable(figure.x))


def _counts(figure: Drawing, axes: Any, tips: Tips) -> None:
    names = list(dict.fromkeys(figure.data["actual"]))
    labels, places = [_label(name) for name in names], {name: i for i, name in enumerate(names)}
    cells = [
        (places[actual], places[predicted], n, share)
        for actual, predicted, n, share in figure.data[list(COLUMNS["counts"])].itertuples(index=False)
    ]
    rows = figure.data[list(COLUMNS["counts"])].itertuples(index=False)
    told = [f"{actual} read as {predicted}: {n:.0f} ({share:.0%})" for actual, predicted, n, share in rows]
    tips.mark(_squares(axes, cells), told)
    if len(names) <= NUMBERED:
        for i, j, n, _ in cells:
            axes.text(j, i, f"{n:.0f}" if n else "", ha="center", va="center", fontsize=8.5)
    axes.set_xticks(range(len(names)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))


def _squares(axes: Any, cells: list[tuple[int, int, float | int, float]]) -> Any:
    """Draw one square per cell: its hue says right or wrong, its strength the share of the row."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    half = 0.48
    corners = [
        [(j - half, i - half), (j + half, i - half), (j + half, i + half), (j - half, i + half)]
        for i, j, _, _ in cells
    ]
    colours = [
        to_rgba(PALETTE[0] if i == j else PALETTE[1], 0.06 + 0.74 * share if share else 0.03)
        for i, j, _, share in cells
    ]
    return axes.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0))


def _map(figure: Drawing, axes: Any, tips: Tips) -> None:
    """Draw one square per cell: blue above zero, orange below, grey where it is not told from noise."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    half, rows = 0.48, list(figure.data[list(COLUMNS["map"])].itertuples(index=False))
    clear = figure.data["clear"] if "clear" in figure.data else [True] * len(rows)
    told_from_noise = [abs(value) for (_, _, value), told in zip(rows, clear, strict=True) if told]
    most = max(told_from_noise, default=0.0) or 1.0
    most = most if figure.limits is None else max(map(abs, figure.limits))
    corners = [
        [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
        for x, y, _ in rows
    ]
    colours = [
        to_rgba(_hue(value), 0.04 + 0.92 * abs(value) / most) if told else to_rgba(FAINT, 0.35)
        for (_, _, value), told in zip(rows, clear, strict=True)
    ]
    squares = axes.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0))
    noise = ["" if told else ", not told from noise" for told in clear]
    places = [f"{figure.y} {y:g}, {figure.x} {x:g}: {value:.4g}" for x, y, value in rows]
    tips.mark(squares, [place + more for place, more in zip(places, noise, strict=True)])
    axes.set_xlim(min(x for x, _, _ in rows) - 0.6, max(x for x, _, _ in rows) + 0.6)
    axes.set_ylim(min(y for _, y, _ in rows) - 0.6, max(y for _, y, _ in rows) + 0.6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.tick_params(length=0)
    axes.set_title(f"strongest: {most:.3g}", fontsize=8.5, color=FAINT, loc="right")
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))


def _grid(figure: Drawing, axes: Any, tips: Tips) -> None:
    """Draw a word in each cell on a colour as strong as its value; a frame where the rank is 1."""
    rows = list(figure.data[list(COLUMNS["grid"])].itertuples(index=False))
    xs, ys = sorted(set(figure.data["x"])), list(dict.fromkeys(figure.data["y"]))  # rows from below, as given
    places = [(xs.index(x), ys.index(y)) for x, y, *_ in rows]
    told = figure.data["tip"] if "tip" in figure.data else [_grid_tip(figure, row) for row in rows]
    tips.mark(_boxes(axes, places, rows), list(told))
    tips.through = True
    for (x, y), row in zip(places, rows, strict=True):
        axes.text(x, y, _cell_word(row[3]), ha="center", va="center", fontsize=7.5, color=INK)
    names = dict(zip(figure.data["x"], figure.data["column"], strict=True))
    axes.set_xticks(range(len(xs)), [_cell_word(names[x]) for x in xs], fontsize=7.5)
    step = 1 if len(ys) <= SPARSE else 5
    axes.set_yticks(range(0, len(ys), step), [f"{y:g}" for y in ys[::step]], fontsize=7.5)
    axes.tick_params(length=0, labelleft=True, labelright=True)
    axes.set_xlim(-0.55, len(xs) - 0.45)
    axes.set_ylim(-0.6, len(ys) - 0.4)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))


def _boxes(axes: Any, places: Sequence[tuple[int, int]], rows: Sequence[Any]) -> Any:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    right, up = 0.48, 0.44
    corners = [
        [(x - right, y - up), (x + right, y - up), (x + right, y + up), (x - right, y + up)]
        for x, y in places
    ]
    colours = [to_rgba(PALETTE[0], 0.03 + 0.5 * min(max(row[4], 0.0), 1.0)) for row in rows]
    edges = [to_rgba(PALETTE[1], 1.0 if row[5] == 1 else 0.0) for row in rows]
    return axes.add_collection(PolyCollection(corners, facecolors=colours, edgecolors=edges, linewidths=0.9))


def _grid_tip(figure: Drawing, row: Any) -> str:
    x, y, column, text, value, rank = row
    place = f"{figure.y} {y:g}, {figure.x} {x:g} ({column!r})"
    return f"{place}: {text!r} {value:.3f}; rank of the model's own word: {rank:,.0f}"


def _cell_word(text: str) -> str:
    """A word as a cell shows it: blanks as dots, the rest of a long one cut off."""
    shown, room = "", LETTERS
    for letter in printable(text).replace(" ", "\u00b7"):
        room -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if room < 0:
            return f"{shown[:-1]}\u2026"
        shown += letter
    return shown


def _graph(figure: Drawing, axes: Any, tips: Tips) -> None:
    """Draw nodes as dots with names, and arrows as strong as their share of the largest."""
    nodes, arrows = _graph_parts(figure)
    strongest = max((abs(arrow.value) for arrow in arrows), default=0.0) or 1.0
    for row in arrows:
        share = abs(row.value) / strongest
        look = {"arrowstyle": "-|>", "color": _hue(row.value), "linewidth": 0.4 + 2.2 * share, "shrinkB": 7}
        look |= {"alpha": 0.15 + 0.75 * share, "shrinkA": 7, "connectionstyle": "arc3,rad=0.08"}
        drawn = axes.annotate("", (row.to_x, row.to_y), (row.x, row.y), arrowprops=look)
        tips.mark(drawn.arrow_patch, [f"{row.name}: {row.value:.4g}"] * 2)  # a line and its head
    most = max((abs(node.value) for node in nodes), default=0.0) or 1.0
    for row in nodes:
        size = 30 + 170 * abs(row.value) / most
        dot = axes.scatter([row.x], [row.y], s=size, color=_hue(row.value), zorder=3)
        tips.mark(dot, [f"{row.name}: {row.value:.4g}"])
        place = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(_label(row.name), (row.x, row.y), **place)
    axes.margins(0.12)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))


def _scatter(figure: Drawing, axes: Any, tips: Tips) -> None:
    """Draw one mark per row, of another shape and colour for each series, and the line where x is y."""
    low, high = _ends(figure)
    axes.plot([low, high], [low, high], color=FAINT, linestyle=(0, (4, 3)), linewidth=1, label="the same")
    for i, (name, part) in enumerate(figure.data.groupby("series", sort=False)):
        look = {"marker": MARKS[i % len(MARKS)], "color": PALETTE[i % len(PALETTE)], "alpha": 0.75, "s": 22}
        dots = axes.scatter(part["x"], part["y"], label=_label(name), linewidths=0.8, **look)
        rows = part[["name", "x", "y"]].itertuples(index=False)
        tips.mark(dots, [f"{mark}, {name}: {x:.4g}, {y:.4g}" for mark, x, y in rows])
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))
    _legend(axes)


class Mark(NamedTuple):
    """A row of a graph: a node, or an arrow from ``x, y`` to ``to_x, to_y`` (NaN for a node)."""

    name: str
    x: float
    y: float
    to_x: float
    to_y: float
    value: float


def _graph_parts(figure: Drawing) -> tuple[list[Mark], list[Mark]]:
    """The nodes of a graph and its arrows."""
    name, *places = COLUMNS["graph"]
    rows = zip(figure.data[name], figure.data[places].astype(float).to_numpy(), strict=True)
    marks = [Mark(str(name), *(float(value) for value in numbers)) for name, numbers in rows]
    return [mark for mark in marks if mark.to_x != mark.to_x], [m for m in marks if m.to_x == m.to_x]


def _interval_colours(figure: Drawing) -> list[str]:
    """The colour of each row of intervals: the first stands out unless the rows say otherwise."""
    given = figure.data.get("colour")
    chosen = [0] + [-1] * (len(figure.data) - 1) if given is None else given.astype(int).tolist()
    return [FAINT if index < 0 else PALETTE[index] for index in chosen]


def _ends(figure: Drawing) -> tuple[float, float]:
    """The ends of both axes of a scatter, a little outside of what is drawn."""
    values = figure.data[["x", "y"]].to_numpy(dtype=float)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    edge = 0.05 * (high - low) or 0.5
    return low - edge, high + edge


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.4g} [{low:.4g}, {high:.4g}]" if low == low and high == high else f"{value:.4g}"


def _hue(value: float) -> str:
    return PALETTE[0] if value >= 0 else PALETTE[1]


def _label(name: object, most: int = LABEL) -> str:
    text = printable(name)
    return text if len(text) <= most else text[: most - 1] + "…"


FORMS = {
    "curve": _curve,
    "intervals": _intervals,
    "counts": _counts,
    "map": _map,
    "graph": _graph,
    "scatter": _scatter,
    "grid": _grid,
}
