"""A circuit as a drawing: nodes at their layer and head, arrows where it is of edges."""

from __future__ import annotations

from collections.abc import Mapping

from interp.mediation.edges.edge import Edge
from interp.mediation.mediators import Mediator, Members
from interp.results import Figure

__all__ = ["circuit_figure"]

NODES, EDGES = 40, 60
"""What is drawn at most, the largest effects first."""
Node = tuple[str, int | None, int | None]
"""Kind, layer and number of a node: ``("head", 5, 3)``."""
Point = tuple[float, float]


def circuit_figure(
    circuit: Members, effects: Mapping[str, float], metric: str, heads_per_group: int = 1
) -> Figure | None:
    """Draw a circuit; None where a member has no place of its own, such as a subspace.

    Args:
        circuit: its nodes or edges.
        effects: of each, by name: the size of its dot.
        metric: that they are on.
        heads_per_group: how many heads share keys and values.
    """
    largest = sorted(circuit, key=lambda one: -abs(effects.get(str(one), 0.0)))[:EDGES]
    ends = {one: _nodes(one, heads_per_group) for one in largest}
    layers = [layer for nodes in ends.values() for _, layer, _ in nodes if layer is not None]
    top = max(layers, default=0) + 1.5
    rows: list[tuple[str, float, float, float | None, float | None, float]] = []
    weights: dict[Node, float] = {}
    for one, nodes in ends.items():
        value = effects.get(str(one), 0.0)
        points = [_point(node, top, heads_per_group) for node in nodes]
        if not points:
            return None
        if len(points) == 2:
            rows.append((str(one), *points[0], *points[1], value))
        for node in nodes:
            weights[node] = weights.get(node, 0.0) + value
    for node, value in sorted(weights.items(), key=lambda item: -abs(item[1]))[:NODES]:
        name = ".".join(str(part) for part in node if part is not None)
        rows.append((name, *_point(node, top, heads_per_group), None, None, value))
    part = f"The {len(largest)} largest of {len(circuit):,}. " if len(largest) < len(circuit) else ""
    return Figure(
        "circuit",
        "graph",
        dict(zip(("name", "x", "y", "to_x", "to_y", "value"), zip(*rows, strict=True), strict=True)),
        "The circuit",
        f"{part}Up is later. The larger the dot, the larger the effect on {metric}; blue works towards the "
        "clean answer, orange against it.",
        x="head",
        y="layer",
    )


def _nodes(one: Mediator | Edge, heads_per_group: int) -> tuple[Node, ...]:
    """The node a mediator is, or the two that an edge joins; none for what cannot be drawn."""
    if isinstance(one, Mediator):
        if one.units or one.subspace is not None:
            return ()
        return (("kv" if one.with_values else one.site.kind, one.site.layer, one.site.index),)
    kind, layer, index = one.reader.kind, one.reader.layer, one.reader.index
    if kind == "mlp":
        kind = "mlp_out"
    elif kind != "logits":  # queries, keys and values belong to their head, or to their group of heads
        kind = "kv" if kind != "q" and heads_per_group > 1 else "head"
    return (one.writer.kind, one.writer.layer, one.writer.index), (kind, layer, index)


def _point(node: Node, top: float, heads_per_group: int) -> Point:
    """The place of a node: layer over head. MLPs stand to the left of the heads, a group below its heads."""
    kind, layer, index = node
    if layer is None:
        return 0.0, top if kind == "logits" else -1.0
    if kind == "mlp_out":
        return -1.5, layer + 0.4
    if kind == "kv":
        return ((index or 0) + 0.5) * heads_per_group - 0.5, layer - 0.3
    return -2.5 if index is None else float(index), float(layer)
