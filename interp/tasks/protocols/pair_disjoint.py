"""Read facts that the probe was never trained on, whose answers it was."""

from __future__ import annotations

import random
from collections import Counter

from interp.tasks.protocols.drawing import analogies
from interp.tasks.protocols.items import Part, ProtocolItems, check_apart, parts_of
from interp.tasks.world import Fact, World

__all__ = ["items", "many_to_one"]

SHARES = (0.6, 0.15, 0.25)
MOST_OBJECTS = 0.5


def many_to_one(world: World) -> tuple[str, ...]:
    """Give the relations with at most half as many objects as facts."""
    return tuple(
        name
        for name, facts in world.facts.items()
        if len({fact.object for fact in facts}) <= MOST_OBJECTS * len(facts)
    )


def items(world: World, *, seed: int, sizes: tuple[int, int, int] = (4000, 600, 1200)) -> ProtocolItems:
    """Train and test on analogies of many-to-one relations; facts are shared out over the parts.

    A test fact stands in no training prompt, neither asked nor shown, but its answer does with other
    subjects. On
    one-to-one relations nothing would be left to learn, so they are left out.
    """
    rng = random.Random(f"pair-disjoint:{seed}")
    facts = [fact for name in many_to_one(world) for fact in world.facts[name]]
    counts = Counter((fact.relation, fact.object) for fact in facts)
    facts = [fact for fact in facts if counts[fact.relation, fact.object] >= 3]
    part = parts_of([_pair(fact) for fact in facts], SHARES, seed)
    taught = {(fact.relation, fact.object) for fact in facts if part[_pair(fact)] == "train"}
    found = []
    plan: list[tuple[Part, int]] = [("train", sizes[0]), ("validation", sizes[1]), ("test", sizes[2])]
    for name, n in plan:
        asked = [
            fact for fact in facts if part[_pair(fact)] == name and (fact.relation, fact.object) in taught
        ]
        found += analogies(
            world, name, n, asked=asked, shown=lambda fact: part.get(_pair(fact)) == "train", rng=rng
        )
    result = check_apart(ProtocolItems(tuple(found), world.concepts), lambda item: item.fact)
    return check_apart(result, lambda item: f"{item.subject} -> {item.answer}")


def _pair(fact: Fact) -> str:
    """Name the pair of words: one that two relations share (Brazil, South America) is one thing to know."""
    return f"{fact.subject} -> {fact.object}"
