"""Pairs of years (Hanna, Liu and Variengien 2023, arXiv 2305.00586)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.pairs import Pair
from interp.tasks.greater_than import CENTURIES, TEMPLATES, YEARS, example
from interp.tasks.world import World

__all__ = ["pairs"]


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
    """Yield pairs without end; answers are the years after, foils the others."""
    while True:
        century, year = rng.choice(CENTURIES), rng.randrange(2, 98)
        other = 1 if kind == "low" else rng.randrange(2, 98)
        if other == year:
            continue
        at, event = rng.randrange(len(TEMPLATES)), rng.choice(world.column("events"))
        clean, corrupt = (
            example(at, event=event, century=century, year=y, answer=99).prompt for y in (year, other)
        )
        yield Pair(clean, corrupt, YEARS[year + 1 :], YEARS[: year + 1], kind, f"{century}{YEARS[year]}")
