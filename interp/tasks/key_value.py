"""Bindings that hold in one prompt only: 'Paris : lion , Rome : chair . Paris :' -> lion."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from interp.tasks.prompts import Example, PairTexts
from interp.tasks.splits import Split, in_split
from interp.tasks.world import World

__all__ = ["TEMPLATES", "example", "generate", "pairs"]

TEMPLATES: dict[str, tuple[str, str, str]] = {
    "colon": ("{k} : {v}", " , ", ". {k} :"),
    "equals": ("{k} = {v}", " ; ", ". {k} ="),
    "has": ("the {k} has the {v}", " and ", ". the {k} has the"),
}


def example(keys: Sequence[str], values: Sequence[str], asked: Sequence[int], template: str) -> Example:
    """Bind keys to values and ask for some of them, one after the other.

    Args:
        keys: distinct words, at least two.
        values: one word for each key, distinct.
        asked: indices of the keys to ask for; the first is the prompt's question, the others follow as
            further turns.
        template: a key of ``TEMPLATES``.
    """
    pair, joint, query = TEMPLATES[template]
    listing = joint.join(pair.format(k=k, v=v) for k, v in zip(keys, values, strict=True))
    turns = [(query.format(k=keys[index]), values[index]) for index in asked]
    first = asked[0]
    return Example(
        prompt=f"{listing} {turns[0][0]}",
        answer=turns[0][1],
        task="key-value",
        template=template,
        group=f"{keys[first]}={values[first]}",
        label=values[first],
        correct=(values[first],),
        wrong=tuple(v for index, v in enumerate(values) if index != first),
        more=tuple(turns[1:]),
        variables=(("keys", "|".join(keys)), ("values", "|".join(values)), ("asked", str(first))),
    )


def generate(
    world: World,
    rng: random.Random,
    split: Split,
    *,
    vocabulary: Sequence[str] | None = None,
    sizes: Sequence[int] = (2, 3, 4, 5),
) -> Example:
    """Draw fresh bindings whose asked pairs belong to the split.

    Args:
        world: supplies the words.
        rng: the only source of randomness.
        split: the split of every (key, value) binding that is asked for.
        vocabulary: words to draw keys and values from; all concepts of the world when left out.
        sizes: how many bindings a prompt may hold.
    """
    words = vocabulary if vocabulary is not None else world.concepts
    while True:
        n = rng.choice(sizes)
        drawn = rng.sample(words, 2 * n)
        keys, values = drawn[:n], drawn[n:]
        asked = [i for i in rng.sample(range(n), n) if in_split(split, "key-value", keys[i], values[i])]
        if asked:
            return example(keys, values, asked, rng.choice(tuple(TEMPLATES)))


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[PairTexts]:
    """Yield pairs of two bindings without end: the other key asked, or the values exchanged."""
    while True:
        drawn = rng.sample(world.concepts, 4)
        keys, values, template = drawn[:2], drawn[2:], rng.choice(tuple(TEMPLATES))
        clean = example(keys, values, [0], template)
        corrupt = (
            example(keys, values, [1], template)
            if kind == "query"
            else example(keys, values[::-1], [0], template)
        )
        yield PairTexts(clean.prompt, corrupt.prompt, (values[0],), (values[1],), kind, clean.group)
