"""Pairs of bindings that hold in one prompt: the other key asked, or the values exchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.pairs import Pair
from interp.tasks.key_value import TEMPLATES, example
from interp.tasks.world import World

__all__ = ["pairs"]


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
    """Yield pairs of two bindings without end."""
    while True:
        drawn = rng.sample(world.concepts, 4)
        keys, values, template = drawn[:2], drawn[2:], rng.choice(tuple(TEMPLATES))
        clean = example(keys, values, [0], template)
        corrupt = (
            example(keys, values, [1], template)
            if kind == "query"
            else example(keys, values[::-1], [0], template)
        )
        yield Pair(clean.prompt, corrupt.prompt, (values[0],), (values[1],), kind, clean.group)
