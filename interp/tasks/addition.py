"""Addition of small numbers: '12 + 7 =' -> 19."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.tasks.prompts import Example, PairTexts
from interp.tasks.splits import Split, in_split
from interp.tasks.world import World

__all__ = ["LARGEST", "TEMPLATES", "example", "generate", "pairs"]

LARGEST = 49
TEMPLATES: tuple[str, ...] = ("{a} + {b} =", "the sum of {a} and {b} is", "{a} plus {b} gives")


def example(first: int, second: int, template: int) -> Example:
    """Ask for the sum of two numbers; their sum must stay below 100 to be one token."""
    return Example(
        prompt=TEMPLATES[template].format(a=first, b=second),
        answer=str(first + second),
        task="addition",
        template=str(template),
        group="+".join(str(n) for n in sorted((first, second))),
        label=str(first + second),
        variables=(("a", str(first)), ("b", str(second))),
    )


def generate(world: World, rng: random.Random, split: Split) -> Example:
    """Draw two summands whose unordered pair belongs to the split; the world is not consulted."""
    while True:
        first, second = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
        if in_split(split, "addition", *(str(n) for n in sorted((first, second)))):
            return example(first, second, rng.randrange(len(TEMPLATES)))


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[PairTexts]:
    """Yield pairs of sums without end: another second summand, or the two exchanged."""
    while True:
        first, second, third = rng.sample(range(LARGEST + 1), 3)
        at = rng.randrange(len(TEMPLATES))
        clean = example(first, second, at)
        corrupt = example(second, first, at) if kind == "swap" else example(first, third, at)
        foil = str(first + third)
        named = "null" if kind == "swap" else kind
        yield PairTexts(clean.prompt, corrupt.prompt, (clean.answer,), (foil,), named, clean.group)
