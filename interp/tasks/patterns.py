"""Repeating sequences of arbitrary words: 'a b a b a' -> b, 'a a b b a a' -> b."""

from __future__ import annotations

import random
from collections.abc import Sequence

from interp.tasks.prompts import Example
from interp.tasks.splits import Split, in_split
from interp.tasks.world import World

__all__ = ["PATTERNS", "example", "generate"]

PATTERNS: tuple[str, ...] = ("ab", "abc", "abcd", "aabb", "abba", "aab", "abb", "abcde", "abcdef")


def example(words: Sequence[str], pattern: str, periods: int = 3) -> Example:
    """Repeat a pattern of words; the first word to predict is the first of the second period.

    Args:
        words: one word for each distinct letter of the pattern.
        pattern: letters from ``a`` on, one period.
        periods: how often the period stands in the sentence, at least two.
    """
    period = [words[ord(letter) - ord("a")] for letter in pattern]
    rest = period[1:] + period * (periods - 2)
    return Example(
        prompt=" ".join([*period, period[0]]),
        answer=rest[0],
        task="pattern",
        template=pattern,
        group=" ".join(sorted(words)),
        label=pattern,
        more=tuple(("", word) for word in rest[1:]),
        variables=(("words", "|".join(words)),),
    )


def generate(
    world: World, rng: random.Random, split: Split, *, vocabulary: Sequence[str] | None = None
) -> Example:
    """Draw words and a pattern; the unordered set of words belongs to the split."""
    pool = vocabulary if vocabulary is not None else world.concepts
    while True:
        pattern = rng.choice(PATTERNS)
        words = rng.sample(pool, len(set(pattern)))
        if in_split(split, "pattern", *sorted(words)):
            return example(words, pattern)
