"""Edges between the parts of a model: the graph, exact runs of any set of edges, attribution, paths."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.mediation.edges.attribution import edge_attribution
    from interp.mediation.edges.edge import Edge, Reader
    from interp.mediation.edges.engine import edge_logits
    from interp.mediation.edges.exhaustive import edge_effects
    from interp.mediation.edges.graph import Graph

_HOME = {
    "Edge": "edge",
    "Graph": "graph",
    "Reader": "edge",
    "edge_attribution": "attribution",
    "edge_effects": "exhaustive",
    "edge_logits": "engine",
}

__all__ = ["Edge", "Graph", "Reader", "edge_attribution", "edge_effects", "edge_logits"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562): names of edges are needed before models can be run."""
    if name not in _HOME:
        known = ", ".join(__all__)
        raise AttributeError(f"module 'interp.mediation.edges' has no attribute {name!r}; its names: {known}")
    value = getattr(importlib.import_module(f"interp.mediation.edges.{_HOME[name]}"), name)
    globals()[name] = value
    return value
