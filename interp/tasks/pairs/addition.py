"""Pairs of sums: another summand, or the two exchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.pairs import Pair
from interp.tasks.addition import LARGEST, TEMPLATES, example
from interp.tasks.world import World

__all__ = ["pairs"]


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
    """Yield pairs without end; the world is not consulted."""
    while True:
        first, second, third = rng.sample(range(LARGEST + 1), 3)
        at = rng.randrange(len(TEMPLATES))
        clean = example(first, second, at)
        corrupt = example(second, first, at) if kind == "swap" else example(first, third, at)
        foil = str(first + third)
        named = "null" if kind == "swap" else kind
        yield Pair(clean.prompt, corrupt.prompt, (clean.answer,), (foil,), named, clean.group)
