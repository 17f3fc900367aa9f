"""The published split: new prompts about the facts that the probe was trained on."""

from __future__ import annotations

import random

from interp.tasks.protocols.drawing import analogies
from interp.tasks.protocols.items import Part, ProtocolItems
from interp.tasks.world import World

__all__ = ["items"]


def items(world: World, *, seed: int, sizes: tuple[int, int, int] = (6000, 600, 1200)) -> ProtocolItems:
    """Train and test on analogies over the same facts; only the prompts differ.

    A probe can store which answer belongs to which subject, so this is an upper bound (Bronzini et al. 2025
    train and
    probe on the same quadruples).
    """
    rng = random.Random(f"seen-pairs:{seed}")
    found = analogies(world, "train", sizes[0], asked=world.all_facts, shown=lambda fact: True, rng=rng)
    met, texts = {item.fact for item in found}, {item.text for item in found}
    asked = [fact for fact in world.all_facts if fact.key in met]
    plan: list[tuple[Part, int]] = [("validation", sizes[1]), ("test", sizes[2])]
    for part, n in plan:
        more = analogies(world, part, 2 * n, asked=asked, shown=lambda fact: True, rng=rng)
        fresh = [item for item in more if item.text not in texts][:n]
        texts |= {item.text for item in fresh}
        found += fresh
    return ProtocolItems(tuple(found), world.concepts)
