"""Tell whether what a user asks for are edges rather than mediators of one site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from interp.errors import ConfigError
from interp.mediation.edges.edge import ARROW, PREFIX, Edge

__all__ = ["EDGE_SEARCHES", "Edges", "are_edges", "at_all_positions", "need_edges", "refuse_edges"]

Edges = str | Edge | Sequence[str | Edge]
EDGE_SEARCHES = ("exhaustive", "attribution", "eap-ig")
"""Those of ``SEARCHES`` that take edges."""


def are_edges(asked: object) -> TypeGuard[Edges]:
    """Say whether mediators that were asked for are edges: ``edge.*``, or ``Edge`` values.

    Raises:
        ConfigError: some are edges and some are not.
    """
    given = list(asked) if isinstance(asked, Sequence) and not isinstance(asked, str) else [asked]
    found = [isinstance(one, Edge) or (isinstance(one, str) and _is_edge(one.strip())) for one in given]
    if any(found) and not all(found):
        raise ConfigError("edges and other mediators were asked for together; search for them one by one.")
    return any(found)


def _is_edge(text: str) -> bool:
    return text.startswith(PREFIX) or ARROW in text


def refuse_edges(asked: object) -> None:
    """Refuse edges where only parts of one site can be replaced.

    Raises:
        ConfigError: names the searches that take edges.
    """
    if are_edges(asked):
        one = asked if isinstance(asked, str | Edge) else next(iter(asked))
        raise ConfigError(
            f"edges were asked for ({one}) where a site or a part of it is meant. The searches over edges "
            f"are: {', '.join(EDGE_SEARCHES)}. Otherwise ask for their writers, such as head.* or mlp_out.*."
        )


def need_edges(asked: object) -> Edges:
    """Refuse other mediators where only edges can be ranked.

    Raises:
        ConfigError: names what was asked, and the search over nodes that does the same.
    """
    if are_edges(asked):
        return asked
    raise ConfigError(
        f"search 'eap-ig' ranks edges, and other mediators were asked for: {asked}. Ask for edge.*, or use "
        "ig-inputs, which does the same for sites."
    )


def at_all_positions(positions: str | int) -> None:
    """Refuse single positions, which edges do not have.

    Raises:
        ConfigError: names what was asked.
    """
    if positions not in ("auto", "all"):
        raise ConfigError(
            f"positions {positions!r} asked, but an edge is replaced at all positions; use 'all'."
        )
