"""What a set of units has to be told from: the spread of random sets, and what overshoots is as far off."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from interp.mediation.frontiers.goals import ENOUGH

__all__ = ["LEVEL", "chosen_of", "draws_for", "folded", "luck_of", "shown_of"]

LEVEL = 0.05
"""How often at most, of frontiers whose rankings say nothing, any type is told from random units."""
LEAST = 40
"""Random sets of the size that is shown, at least."""
NEARLY = 0.9
SAME = 1e-4
"""Shares closer than this are the same set of values, but for rounding."""


def folded(share: Float[np.ndarray, " *any"] | float) -> Float[np.ndarray, " *any"] | float:
    """A share that overshoots as the one that falls short by as much: 1.9 as 0.1."""
    return 1 - abs(1 - share)


def draws_for(types: int) -> int:
    """Random sets of which one in all may do as well, and the best of some types is still told from them.

    Args:
        types: that are compared, over which p-values are corrected.
    """
    return max(LEAST, math.ceil(types / LEVEL) - 1)


def luck_of(found: float, lucky: Float[np.ndarray, " draw"], every: bool) -> float:
    """The p-value of a set among random ones, by how many do as well.

    Args:
        found: the folded share of the set.
        lucky: those of random sets.
        every: whether these are all sets of that size, the one found among them.
    """
    as_well = int((np.asarray(lucky) >= found - SAME).sum())
    return as_well / len(lucky) if every else (as_well + 1) / (len(lucky) + 1)


def chosen_of(ranking: Float[np.ndarray, " size"]) -> int | None:
    """The place of the first size that comes as near to 100% as 80% is; None where none does."""
    enough = np.flatnonzero(folded(ranking) >= ENOUGH)
    return int(enough[0]) if len(enough) else None


def shown_of(ranking: Float[np.ndarray, " size"]) -> int:
    """The chosen size; else the first that comes nearly (90%) as near as the best."""
    chosen = chosen_of(ranking)
    if chosen is not None:
        return chosen
    near = np.asarray(folded(ranking))
    return int(np.flatnonzero(near >= near.max() - (1 - NEARLY) * abs(near.max()))[0])
