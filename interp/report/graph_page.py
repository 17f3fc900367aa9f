"""An attribution graph as one page whose nodes open: tokens from left to right, layers from bottom to top.

The page needs no script to be read: a node is a link to its card. The one small script that it has marks
what a chosen node is joined to, and lets arrow keys move along edges. It is allowed by its hash alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.report.document import document
from interp.report.page import environment, policy, text_of

if TYPE_CHECKING:
    from interp.mediation.graphs import AttributionGraph, Edge, Node

__all__ = ["render"]

STEP, ROW, LEFT, TOP, LEAST = 26, 34, 86, 24, 74
"""Pixels between nodes and rows, before the first token and above the first row; the narrowest token."""


@dataclass(frozen=True)
class Dot:
    """A node as it is drawn: where, how large, under which link."""

    node: Node
    link: str
    x: float
    y: float
    size: float
    label: str


@dataclass(frozen=True)
class Line:
    """An edge as it is drawn: its curve, width, and whether it was confirmed."""

    edge: Edge
    source: str
    target: str
    path: str
    width: float
    state: str


@dataclass(frozen=True)
class Ends:
    """An edge on the card of one of its nodes: where it leads, and its numbers."""

    link: str
    label: str
    edge: Edge
    state: str


STATES = {True: "yes", False: "no", None: "no test"}


def render(graph: AttributionGraph) -> str:
    """The page as HTML text.

    Args:
        graph: what is drawn.
    """
    rows = _rows(graph)
    columns, width = _columns(graph, rows)
    height = TOP + ROW * len(rows) + 40
    dots = _dots(graph, rows, columns)
    by_name = {one.node.name: one for one in dots}
    script = text_of("graph.js")
    lines = _lines(graph, by_name)
    labels = [(TOP + ROW * (len(rows) - 1 - at), name) for at, name in enumerate(rows.values())]
    return (
        environment()
        .get_template("graph.html")
        .render(
            document=document(graph),
            graph=graph,
            dots=dots,
            lines=lines,
            cards=[(one, _into(graph, one, by_name), _out_of(graph, one, by_name)) for one in dots],
            tokens=[
                (left + size / 2, token) for (left, size), token in zip(columns, graph.tokens, strict=True)
            ],
            labels=labels,
            width=round(width),
            height=height,
            style=text_of("page.css") + text_of("graph.css"),
            script=script,
            policy=policy(script),
        )
    )


def _height(node: Node, n_layers: int) -> tuple[int, str]:
    """In which row a node stands, and what the row is called."""
    if node.kind == "embed":
        return -1, "tokens"
    if node.kind == "output":
        return 2 * n_layers + 2, "says"
    layer, late = node.layer or 0, node.kind not in ("head", "heads")
    return 2 * layer + late, f"{'MLP' if late else 'heads'} {layer}"


def _rows(graph: AttributionGraph) -> dict[int, str]:
    return dict(sorted({_height(one, graph.n_layers) for one in graph.nodes}))


def _columns(graph: AttributionGraph, rows: dict[int, str]) -> tuple[list[tuple[float, float]], float]:
    """Where each token's column begins and how wide it is: as wide as its fullest row."""
    cells: dict[tuple[int, int], int] = {}
    for one in graph.nodes:
        key = (one.position, _height(one, graph.n_layers)[0])
        cells[key] = cells.get(key, 0) + 1
    columns, at = [], float(LEFT)
    for position in range(len(graph.tokens)):
        most = max((cells.get((position, row), 0) for row in rows), default=0)
        size = max(LEAST, STEP * (most + 1))
        columns.append((at, float(size)))
        at += size
    return columns, at + 10


def _dots(graph: AttributionGraph, rows: dict[int, str], columns: list[tuple[float, float]]) -> list[Dot]:
    groups: dict[tuple[int, int], list[Node]] = {}
    for one in graph.nodes:
        groups.setdefault((one.position, _height(one, graph.n_layers)[0]), []).append(one)
    order = list(rows)
    most = max((one.influence for one in graph.nodes if one.kind != "output"), default=0.0) or 1.0
    found = []
    for number, one in enumerate(graph.nodes):
        row = _height(one, graph.n_layers)[0]
        group = groups[one.position, row]
        left, size = columns[one.position]
        step = size / (len(group) + 1)
        x = left + step * (1 + next(at for at, other in enumerate(group) if other is one))
        y = float(TOP + ROW * (len(order) - 1 - order.index(row)))
        radius = 4 + 6 * min(1.0, one.influence / most) ** 0.5
        found.append(Dot(one, f"node-{number}", x, y, radius, graph.words(one)))
    return found


def _lines(graph: AttributionGraph, dots: dict[str, Dot]) -> list[Line]:
    most = max((one.share for one in graph.edges), default=0.0) or 1.0
    found = []
    for edge in graph.edges:
        a, b = dots[edge.source], dots[edge.target]
        middle = (a.y + b.y) / 2
        path = f"M{a.x:.1f} {a.y:.1f}C{a.x:.1f} {middle:.1f} {b.x:.1f} {middle:.1f} {b.x:.1f} {b.y:.1f}"
        width = 0.8 + 3.2 * (edge.share / most) ** 0.5
        state = {True: "yes", False: "no", None: "untested"}[edge.confirmed()]
        found.append(Line(edge, a.link, b.link, path, width, state))
    return found


def _into(graph: AttributionGraph, dot: Dot, dots: dict[str, Dot]) -> list[Ends]:
    return [
        Ends(dots[e.source].link, dots[e.source].label, e, STATES[e.confirmed()])
        for e in graph.edges
        if e.target == dot.node.name
    ]


def _out_of(graph: AttributionGraph, dot: Dot, dots: dict[str, Dot]) -> list[Ends]:
    return [
        Ends(dots[e.target].link, dots[e.target].label, e, STATES[e.confirmed()])
        for e in graph.edges
        if e.source == dot.node.name
    ]
