"""How analogies are drawn for a protocol."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from interp.tasks import analogy
from interp.tasks.protocols.items import Item, Part
from interp.tasks.splits import Split
from interp.tasks.world import Fact, World

__all__ = ["analogies", "as_item"]

TRIES = 200


def as_item(shown: Fact, asked: Fact, template: str, part: Part) -> Item:
    """Ask for the object of one fact by analogy with another."""
    example = analogy.example(shown, asked, template)
    return Item(
        text=example.prompt,
        answer=asked.object,
        relation=asked.relation,
        fact=asked.key,
        part=part,
        output=asked.object,
        subject=asked.subject,
        shown=(shown.subject, shown.object),
    )


def analogies(
    world: World,
    part: Part,
    n: int,
    *,
    asked: Sequence[Fact],
    shown: Callable[[Fact], bool],
    rng: random.Random,
    split: Split | None = None,
) -> list[Item]:
    """Draw n different analogies, or as many as there are within a fixed number of tries.

    Args:
        world: the facts.
        part: which part they are for.
        n: how many.
        asked: the facts to ask for.
        shown: which facts may stand as the example.
        rng: the only source of randomness.
        split: which pairs, by what the bundled model was trained on; any where left out.
    """
    if not asked:
        return []
    pools = {name: tuple(fact for fact in facts if shown(fact)) for name, facts in world.facts.items()}
    found: dict[str, Item] = {}
    for _ in range(TRIES * n):
        if len(found) == n:
            break
        question = rng.choice(asked)
        pool = pools[question.relation]
        example = rng.choice(pool) if pool else question
        fits = split is None or analogy.in_pair_split(split, example, question)
        if fits and analogy.clear(world, example, question) and not _given_away(example, question):
            item = as_item(example, question, rng.choice(tuple(analogy.TEMPLATES)), part)
            found.setdefault(item.text, item)
    return list(found.values())


def _given_away(shown: Fact, asked: Fact) -> bool:
    """Say whether the answer stands in the prompt, as Singapore in Singapore's own."""
    words = f" {shown.subject} {shown.object} {asked.subject} ".casefold()
    return f" {asked.object} ".casefold() in words
