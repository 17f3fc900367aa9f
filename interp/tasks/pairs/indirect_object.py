"""Pairs of the indirect-object task (Wang et al. 2022, arXiv 2211.00593)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.pairs import Pair
from interp.tasks import indirect_object
from interp.tasks.world import World

__all__ = ["pairs"]


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
    """Yield pairs without end."""
    places = world.column("places")
    while True:
        giver, receiver, *others = rng.sample(world.column("names"), 4)
        place, elsewhere = rng.sample(places, 2)
        template, order = rng.randrange(len(indirect_object.TEMPLATES)), rng.choice(("ABBA", "BABA"))
        thing = rng.choice(world.column("objects"))

        def told(
            giver: str, receiver: str, place: str, order: str, thing: str = thing, at: int = template
        ) -> str:
            found = indirect_object.example(
                at, giver=giver, receiver=receiver, place=place, thing=thing, order=order
            )
            return found.prompt

        clean = told(giver, receiver, place, order)
        if kind == "flip":
            turned = "BABA" if order == "ABBA" else "ABBA"
            corrupt = told(receiver, giver, place, turned)
        elif kind == "names":
            first, second = (receiver, giver) if order == "ABBA" else (giver, receiver)
            corrupt = clean.replace(first, others[0], 1).replace(second, others[1], 1)
        else:
            corrupt = told(giver, receiver, elsewhere, order)
            if corrupt == clean:
                continue
        group = "|".join(sorted((giver, receiver)))
        yield Pair(clean, corrupt, (receiver,), (giver,), kind, group)
