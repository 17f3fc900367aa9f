"""Pairs of two hops: another first entity, or another second question."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.pairs import Pair
from interp.tasks.two_hop import TEMPLATES, compositions, example
from interp.tasks.world import World

__all__ = ["pairs"]


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
    """Yield pairs without end."""
    known = compositions(world)
    while True:
        one = rng.choice(known)
        fits = [
            other
            for other in rng.sample(known, min(400, len(known)))
            if other.bridge == one.bridge
            and other.answer != one.answer
            and (other.subject == one.subject) == (kind == "second")
            and (other.second == one.second) == (kind == "first")
        ]
        if fits:
            other, at = rng.choice(fits), rng.randrange(len(TEMPLATES))
            clean, corrupt = example(one, at).prompt, example(other, at).prompt
            yield Pair(clean, corrupt, (one.answer,), (other.answer,), kind, one.entity)
