"""Pairs of capitals: another country, another relation, other words."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.pairs import Pair
from interp.tasks.pairs.any_facts import of_relation
from interp.tasks.relations import RELATIONS
from interp.tasks.world import World

__all__ = ["pairs"]


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
    """Yield pairs about capitals without end."""
    if kind != "relation":
        yield from of_relation(world, rng, kind, ["capital"])
    others = ("currency", "language")
    while True:
        fact = rng.choice(world.facts["capital"])
        second = rng.choice(others)
        other = world.objects.get((second, fact.subject))
        templates = RELATIONS["capital"].templates[0], RELATIONS[second].templates[0]
        if other is None or other == fact.object:
            continue
        clean, corrupt = (template.format(fact.subject) for template in templates)
        yield Pair(clean, corrupt, (fact.object,), (other,), group=fact.subject)
