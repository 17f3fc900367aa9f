"""Draw a figure with matplotlib, as SVG text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from interp.report.figures import COLUMNS, FAINT, INK, PALETTE, Figure, ends, graph_parts, interval_colours
from interp.report.text import printable

__all__ = ["draw"]

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
NUMBERED = 14
MARKS = ("o", "x", "^", "+", "s", "v")


def draw(figure: Figure) -> str:
    """Give the figure as SVG text; its ink is ``currentColor``, so that it follows the page."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with _style():
        canvas = Canvas(figsize=_size(figure), layout="constrained")
        FigureCanvasSVG(canvas)
        FORMS[figure.form](figure, canvas.add_subplot())
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
    label = printable(figure.title).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label in a script the layout font lacks: the browser has it
        yield


def _size(figure: Figure) -> tuple[float, float]:
    """Give width and height in inches."""
    if figure.form == "counts":
        labels = len(set(figure.data["actual"]))
        return min(2.2 + 0.42 * labels, 9.0), min(1.6 + 0.38 * labels, 8.0)
    if figure.form == "map":
        across, down = (len(set(figure.data[axis])) for axis in ("x", "y"))
        return min(max(1.4 + 0.3 * across, 3.0), 9.0), min(max(1.2 + 0.22 * down, 2.4), 9.0)
    if figure.form == "scatter":
        return 6.4, 4.4
    return (7.2, 3.6) if figure.form == "curve" else (7.2, 0.8 + 0.42 * len(figure.data))


def _curve(figure: Figure, axes: Any) -> None:
    for i, (name, part) in enumerate(figure.data.groupby("series", sort=False)):
        colour, part = PALETTE[i % len(PALETTE)], part.sort_values("x")
        axes.fill_between(part["x"], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            part["x"],
            part["value"],
            color=colour,
            marker="o",
            markersize=3.2,
            linewidth=1.6,
            label=_label(name),
        )
    if figure.reference is not None:
        axes.axhline(
            figure.reference, color=FAINT, linestyle=(0, (4, 3)), linewidth=1, label=figure.reference_name
        )
    axes.set_ylim(figure.limits)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _intervals(figure: Figure, axes: Any) -> None:
    rows, colours = figure.data.reset_index(drop=True), interval_colours(figure)
    if figure.band is not None:
        axes.axvspan(*figure.band, color=FAINT, alpha=0.16, linewidth=0)
    for i, row in enumerate(rows.to_dict("records")):
        colour = colours[i]
        axes.plot([row["low"], row["high"]], [i, i], color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot([row["value"]], [i], color=colour, marker="o", markersize=6.5)
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


def _counts(figure: Figure, axes: Any) -> None:
    names = list(dict.fromkeys(figure.data["actual"]))
    labels, places = [_label(name) for name in names], {name: i for i, name in enumerate(names)}
    cells = [
        (places[actual], places[predicted], n, share)
        for actual, predicted, n, share in figure.data[list(COLUMNS["counts"])].itertuples(index=False)
    ]
    _squares(axes, cells)
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


def _squares(axes: Any, cells: list[tuple[int, int, float | int, float]]) -> None:
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
    axes.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0))


def _map(figure: Figure, axes: Any) -> None:
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
    axes.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0))
    axes.set_xlim(min(x for x, _, _ in rows) - 0.6, max(x for x, _, _ in rows) + 0.6)
    axes.set_ylim(min(y for _, y, _ in rows) - 0.6, max(y for _, y, _ in rows) + 0.6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.tick_params(length=0)
    axes.set_title(f"strongest: {most:.3g}", fontsize=8.5, color=FAINT, loc="right")
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))


def _graph(figure: Figure, axes: Any) -> None:
    """Draw nodes as dots with names, and arrows as strong as their share of the largest."""
    nodes, arrows = graph_parts(figure)
    strongest = max((abs(arrow.value) for arrow in arrows), default=0.0) or 1.0
    for row in arrows:
        share = abs(row.value) / strongest
        look = {"arrowstyle": "-|>", "color": _hue(row.value), "linewidth": 0.4 + 2.2 * share, "shrinkB": 7}
        look |= {"alpha": 0.15 + 0.75 * share, "shrinkA": 7, "connectionstyle": "arc3,rad=0.08"}
        axes.annotate("", (row.to_x, row.to_y), (row.x, row.y), arrowprops=look)
    most = max((abs(node.value) for node in nodes), default=0.0) or 1.0
    for row in nodes:
        axes.scatter([row.x], [row.y], s=30 + 170 * abs(row.value) / most, color=_hue(row.value), zorder=3)
        place = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(_label(row.name), (row.x, row.y), **place)
    axes.margins(0.12)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))


def _scatter(figure: Figure, axes: Any) -> None:
    """Draw one mark per row, of another shape and colour for each series, and the line where x is y."""
    low, high = ends(figure)
    axes.plot([low, high], [low, high], color=FAINT, linestyle=(0, (4, 3)), linewidth=1, label="the same")
    for i, (name, part) in enumerate(figure.data.groupby("series", sort=False)):
        look = {"marker": MARKS[i % len(MARKS)], "color": PALETTE[i % len(PALETTE)], "alpha": 0.75, "s": 22}
        axes.scatter(part["x"], part["y"], label=_label(name), linewidths=0.8, **look)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel(printable(figure.x))
    axes.set_ylabel(printable(figure.y))
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


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
}
