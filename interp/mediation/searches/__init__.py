"""The table of searches: (model, pairs, mediators) to effects, exact or estimated from gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interp.mediation.effects import Effects
from interp.mediation.searches.attribution import attribution
from interp.mediation.searches.exhaustive import exhaustive

__all__ = ["SEARCHES", "SearchMethod", "attribution", "exhaustive"]


@dataclass(frozen=True)
class SearchMethod:
    """Describe a search.

    Attributes:
        name: what users type (``--search``).
        description: one line.
        run: the function.
        exact: whether its effects are those of real replacements.
    """

    name: str
    description: str
    run: Callable[..., Effects]
    exact: bool


_ROWS = (
    SearchMethod("exhaustive", "replace each mediator on its own", exhaustive, True),
    SearchMethod(
        "attribution", "estimate each effect from one gradient, verify the largest", attribution, False
    ),
)

SEARCHES: dict[str, SearchMethod] = {row.name: row for row in _ROWS}
