"""Read a binding that holds in one prompt only."""

from __future__ import annotations

import random

from interp.tasks import key_value
from interp.tasks.protocols.items import Item, Part, ProtocolItems
from interp.tasks.world import World

__all__ = ["items"]

N_VALUES = 60


def items(world: World, *, seed: int, sizes: tuple[int, int, int] = (3000, 500, 1200)) -> ProtocolItems:
    """Bind keys to values afresh in every prompt, and ask for one.

    Nothing but the prompt says which value belongs to the key, so that a probe which stores facts has the
    informed
    chance of one over the number of values in the prompt.
    """
    rng = random.Random(f"in-context:{seed}")
    words = rng.sample(sorted(world.concepts), 2 * N_VALUES)
    keys, values = words[:N_VALUES], words[N_VALUES:]
    found: dict[str, Item] = {}
    plan: list[tuple[Part, int]] = [("train", sizes[0]), ("validation", sizes[1]), ("test", sizes[2])]
    for part, n in plan:
        wanted = len(found) + n
        while len(found) < wanted:
            item = _item(keys, values, rng, part)
            found.setdefault(item.text, item)
    return ProtocolItems(tuple(found.values()), tuple(sorted(values)))


def _item(keys: list[str], values: list[str], rng: random.Random, part: Part) -> Item:
    n = rng.choice((2, 3, 4))
    bound, with_values = rng.sample(keys, n), rng.sample(values, n)
    asked = rng.randrange(n)
    example = key_value.example(bound, with_values, [asked], rng.choice(tuple(key_value.TEMPLATES)))
    return Item(
        text=example.prompt,
        answer=with_values[asked],
        relation=f"{n} bindings",
        fact=example.prompt,
        part=part,
        output=with_values[asked],
        candidates=tuple(with_values),
        subject=bound[asked],
    )
