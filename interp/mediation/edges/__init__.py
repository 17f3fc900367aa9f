"""Edges between the parts of a model: the graph, exact runs of any set of edges, gradients of readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.mediation.edges.edge import Edge as Edge
    from interp.mediation.edges.edge import Reader as Reader
    from interp.mediation.edges.engine import edge_logits as edge_logits
    from interp.mediation.edges.graph import Graph as Graph

__getattr__, __dir__, __all__ = exports(__name__)
