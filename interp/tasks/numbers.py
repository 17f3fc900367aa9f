"""Relations of numbers: generated facts such as 7 -> 8, 7 -> 14 and 7 -> seven, beside the bundled tables."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import replace

from interp.tasks.relations import Relation
from interp.tasks.world import Fact, World, load_world

__all__ = ["NUMBERS", "number_facts", "with_numbers"]

MOST = 60
"""Facts of a relation, at most."""
_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)


def _word(n: int) -> str:
    """An English numeral below a hundred."""
    words = _WORDS.split()
    if n < 20:
        return words[n]
    tens = words[18 + n // 10]
    return tens if n % 10 == 0 else f"{tens}-{words[n % 10]}"


def _row(name: str, noun: str, *templates: str) -> Relation:
    return Relation(name, "", "number", "result", noun, templates)


_ROWS: tuple[tuple[Relation, range, Callable[[int], tuple[object, object]]], ...] = (
    (_row("successor", "successor", "the number after {} is"), range(1, 99), lambda n: (n, n + 1)),
    (_row("predecessor", "predecessor", "the number before {} is"), range(2, 100), lambda n: (n, n - 1)),
    (_row("double", "double", "the double of {} is"), range(1, 61), lambda n: (n, 2 * n)),
    (_row("half", "half", "the half of {} is"), range(1, 61), lambda n: (2 * n, n)),
    (_row("square", "square", "the square of {} is"), range(2, 32), lambda n: (n, n * n)),
    (_row("square_root", "square root", "the square root of {} is"), range(2, 32), lambda n: (n * n, n)),
    (_row("numeral", "numeral", "in words {} is"), range(1, 100), lambda n: (n, _word(n))),
    (_row("number", "number", "in digits {} is"), range(1, 100), lambda n: (_word(n), n)),
)
NUMBERS: dict[str, Relation] = {row.name: row for row, _, _ in _ROWS}
"""Relations of numbers, with the sentences that state them."""


def number_facts(*, n: int = MOST, seed: int = 0) -> World:
    """Generate facts about numbers.

    Args:
        n: of each relation, at most; 30 of squares and square roots.
        seed: which numbers are drawn.
    """
    rng = random.Random(f"numbers:{seed}")
    facts: dict[str, tuple[Fact, ...]] = {}
    for row, numbers, pair in _ROWS:
        pairs = [pair(one) for one in sorted(rng.sample(numbers, min(n, len(numbers))))]
        facts[row.name] = tuple(Fact(row.name, str(a), str(b)) for a, b in pairs)
    return World(facts, {}, NUMBERS, ())


@functools.cache
def with_numbers() -> World:
    """The bundled facts and those about numbers."""
    world, numbers = load_world(), number_facts()
    return replace(
        world, facts={**world.facts, **numbers.facts}, relations={**world.relations, **numbers.relations}
    )
