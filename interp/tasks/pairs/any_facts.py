"""Pairs of one-hop statements: the subject exchanged, or the same question in other words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from interp.pairs import Pair
from interp.tasks.relations import RELATIONS
from interp.tasks.world import World

__all__ = ["of_relation", "pairs"]


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
    """Yield pairs of every relation without end."""
    yield from of_relation(world, rng, kind, sorted(world.facts))


def of_relation(world: World, rng: random.Random, kind: str, relations: Sequence[str]) -> Iterator[Pair]:
    """Yield pairs of some relations; a foil is another subject's object."""
    while True:
        name = rng.choice(relations)
        templates = RELATIONS[name].templates
        fact, other = rng.sample(world.facts[name], 2)
        if fact.object == other.object:
            continue
        at = rng.randrange(len(templates))
        if kind == "null":
            if len(templates) < 2:
                continue
            again = rng.choice([i for i in range(len(templates)) if i != at])
            corrupt = templates[again].format(fact.subject)
        else:
            corrupt = templates[at].format(other.subject)
        yield Pair(
            templates[at].format(fact.subject), corrupt, (fact.object,), (other.object,), kind, fact.subject
        )
