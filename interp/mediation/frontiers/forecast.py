"""What comparing types will take, by the units that each has; nothing is run."""

from __future__ import annotations

from collections.abc import Sequence

from interp.mediation.frontiers.chance import draws_for
from interp.mediation.frontiers.goals import GOALS
from interp.mediation.frontiers.ranking import VERIFIED
from interp.mediation.frontiers.run import DRAWS, SAMPLED, sizes_of
from interp.mediation.frontiers.types import FRONTIER_TYPES, Asked, units_of
from interp.mediation.parsing import experiment_of
from interp.models.model import Model
from interp.pairs import PairSet

__all__ = ["forecast_types"]

FIRST_ORDER = 4
"""Passes of every pair for gradients."""
BESIDES = 12
"""Passes of every pair for unpatched prompts and checks, of one type."""


def forecast_types(
    model: Model,
    pairs: PairSet,
    unseen: int,
    *,
    goal: str,
    types: Sequence[str],
    budget: float | int,
    controls: int = 0,
) -> float:
    """About how many forward passes of one prompt a frontier takes, within a factor of two.

    Sizes are those of all sets: a type that is done early takes less.

    Args:
        model: whose units.
        pairs: to rank on.
        unseen: how many others.
        goal: a key of ``GOALS``.
        types: keys of ``FRONTIER_TYPES``; those that the model has not are left out.
        budget: of each search.
        controls: pairs of other tasks.
    """
    found, n, row = 0.0, len(pairs), GOALS[goal]
    for name in types:
        kind = FRONTIER_TYPES[name]
        asked = Asked(model, pairs)
        units, why = ([*kind.lucky(asked)], "") if kind.lucky else units_of(kind, asked)
        if why:
            continue
        members = tuple(dict.fromkeys(one for unit in units for one in unit))
        bill = experiment_of(model, pairs, members, directions=row.direction, positions="all").forecast()
        each = bill.forwards / n / len(members)
        whole = each * len(units)
        search = whole if whole <= budget else min(budget, FIRST_ORDER + VERIFIED * each)
        search += 0 if kind.home is None else len({kind.home(unit) for unit in units})
        sizes = len(sizes_of(len(units)))
        draws = SAMPLED if row.foretold else draws_for(len(types))
        found += 2 * search * n + sizes * (n + (2 + DRAWS) * unseen) + draws * unseen
        found += BESIDES * (n + unseen) + (2 * sizes * controls if row.side else 0)
    return found
