"""Every search of the table, those that are trained with so few steps that they can stand in any test."""

from __future__ import annotations

from dataclasses import replace

from interp.mediation import SEARCHES, LearnedMask, MaskTraining, Search

__all__ = ["TRAINED", "quick"]

TRAINED = tuple(name for name, row in SEARCHES.items() if isinstance(row, LearnedMask))
"""Searches that learn one thing from all pairs, so that no pair stands for itself."""


def quick(name: str) -> Search:
    """Give a row of the table, trained in two steps where it is trained at all."""
    row = SEARCHES[name]
    return replace(row, training=MaskTraining(steps=2, batch=4)) if isinstance(row, LearnedMask) else row
