"""Addition of small numbers: '12 + 7 =' -> 19."""

from __future__ import annotations

import random

from interp.tasks.examples import Example
from interp.tasks.splits import Split, in_split
from interp.tasks.world import World

__all__ = ["LARGEST", "TEMPLATES", "example", "generate"]

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
