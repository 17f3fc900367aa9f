"""Indirect object: 'when Mary and John went to the store , John gave a book to' -> Mary.

The task of Wang et al. 2022 (arXiv 2211.00593).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator

from interp.tasks.prompts import Example, PairTexts
from interp.tasks.splits import Split, in_split
from interp.tasks.world import World

__all__ = ["TEMPLATES", "example", "generate", "pairs"]

TEMPLATES: tuple[str, ...] = (
    "when {x} and {y} went to the {place} , {s} gave a {thing} to",
    "then {x} and {y} had a long talk , and {s} gave a {thing} to",
    "after {x} and {y} left the {place} , {s} handed the {thing} to",
    "while {x} and {y} were at the {place} , {s} passed a {thing} to",
    "{x} and {y} met at the {place} and {s} offered a {thing} to",
    "yesterday {x} and {y} visited the {place} , where {s} sold the {thing} to",
    "once {x} and {y} came to the {place} , {s} brought a {thing} for",
    "friends {x} and {y} found a {thing} near the {place} , and {s} showed it to",
)


def example(
    template: int, *, giver: str, receiver: str, place: str, thing: str, order: str = "ABBA"
) -> Example:
    """Tell that ``giver`` gives something, so that ``receiver`` comes next.

    Args:
        template: index into ``TEMPLATES``.
        giver: the repeated name (the subject).
        receiver: the name said once (the indirect object, the answer).
        place: where it happens.
        thing: what is given.
        order: ``"ABBA"`` names the receiver first, ``"BABA"`` the giver.
    """
    x, y = (receiver, giver) if order == "ABBA" else (giver, receiver)
    return Example(
        prompt=TEMPLATES[template].format(x=x, y=y, s=giver, place=place, thing=thing),
        answer=receiver,
        task="indirect-object",
        template=f"{order}/{template}",
        group="|".join(sorted((giver, receiver))),
        label=order,
        correct=(receiver,),
        wrong=(giver,),
        variables=(("giver", giver), ("receiver", receiver), ("place", place), ("thing", thing)),
    )


def generate(
    world: World, rng: random.Random, split: Split, *, names: tuple[str, ...] | None = None
) -> Example:
    """Draw two names whose unordered pair belongs to the split, and a sentence for them."""
    pool = names if names is not None else world.column("names")
    while True:
        giver, receiver = rng.sample(pool, 2)
        if in_split(split, "indirect-object", *sorted((giver, receiver))):
            return example(
                rng.randrange(len(TEMPLATES)),
                giver=giver,
                receiver=receiver,
                place=rng.choice(world.column("places")),
                thing=rng.choice(world.column("objects")),
                order=rng.choice(("ABBA", "BABA")),
            )


def labels(world: World, rng: random.Random) -> Iterator[Example]:
    """Yield trained prompts without end; the label is the order of the names."""
    while True:
        yield generate(world, rng, "train")


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[PairTexts]:
    """Yield pairs without end: the other name gives, two new names in the clause, or another place."""
    places = world.column("places")
    while True:
        giver, receiver, *others = rng.sample(world.column("names"), 4)
        place, elsewhere = rng.sample(places, 2)
        template, order = rng.randrange(len(TEMPLATES)), rng.choice(("ABBA", "BABA"))
        thing = rng.choice(world.column("objects"))
        told = functools.partial(_told, template, thing)
        clean = told(giver, receiver, place, order)
        if kind == "flip":
            corrupt = told(receiver, giver, place, "BABA" if order == "ABBA" else "ABBA")
        elif kind == "names":
            first, second = (receiver, giver) if order == "ABBA" else (giver, receiver)
            corrupt = clean.replace(first, others[0], 1).replace(second, others[1], 1)
        else:
            corrupt = told(giver, receiver, elsewhere, order)
            if corrupt == clean:
                continue
        group = "|".join(sorted((giver, receiver)))
        yield PairTexts(clean, corrupt, (receiver,), (giver,), kind, group)


def _told(template: int, thing: str, giver: str, receiver: str, place: str, order: str) -> str:
    return example(template, giver=giver, receiver=receiver, place=place, thing=thing, order=order).prompt
