"""Turn what a user asks for into mediators of sites, or into edges."""

from __future__ import annotations

from typing import Any

from interp.mediation.edges.asked import are_edges, at_all_positions
from interp.mediation.edges.edge import Edge
from interp.mediation.edges.graph import Graph
from interp.mediation.mediators import Mediator, mediators_of
from interp.models.loading import ModelLike, as_model
from interp.pairs import PairSet

__all__ = ["Members", "chosen"]

Members = tuple[Mediator, ...] | tuple[Edge, ...]


def chosen(model: ModelLike, pairs: PairSet, asked: Any, *, positions: str | int = "auto") -> Members:
    """Give the edges or the mediators that names, globs or values mean, in the order of execution.

    Args:
        model: which there are.
        pairs: how long the prompts are.
        asked: ``edge.*`` and the like, or mediators as for ``mediators_of``.
        positions: as for ``mediators_of``; edges are replaced at all positions.

    Raises:
        SiteError: there is no such mediator or edge.
        ConfigError: edges and others together, or edges at single positions.
    """
    if are_edges(asked):
        at_all_positions(positions)
        return Graph.of(as_model(model)).select(asked)
    return mediators_of(model, pairs, asked, positions=positions)
