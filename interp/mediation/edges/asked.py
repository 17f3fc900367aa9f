"""Tell whether what a user asks for are edges rather than mediators of one site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from interp.errors import ConfigError
from interp.mediation.edges.edge import ARROW, PREFIX, Edge

__all__ = ["Edges", "are_edges", "at_all_positions"]

Edges = str | Edge | Sequence[str | Edge]


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


def at_all_positions(positions: str | int) -> None:
    """Refuse single positions, which edges do not have.

    Raises:
        ConfigError: names what was asked.
    """
    if positions not in ("auto", "all"):
        raise ConfigError(
            f"positions {positions!r} asked, but an edge is replaced at all positions; use 'all'."
        )
