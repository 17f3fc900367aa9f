"""Which mediators for which goal: types side by side, by what they take and what they do."""

from __future__ import annotations

from interp.mediation.frontiers.goals import GOALS
from interp.mediation.frontiers.result import Frontier
from interp.mediation.frontiers.run import description_length, frontier
from interp.mediation.frontiers.types import FRONTIER_TYPES

__all__ = ["FRONTIER_TYPES", "GOALS", "Frontier", "description_length", "frontier"]
