"""Greater-than.

'the war lasted from the year 1741 to the year 17' -> any two digits above 41 (Hanna et al. 2305.00586).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.tasks.prompts import Example, PairTexts
from interp.tasks.splits import Split, in_split
from interp.tasks.world import World

__all__ = ["CENTURIES", "TEMPLATES", "YEARS", "example", "generate", "pairs"]

TEMPLATES: tuple[str, ...] = (
    "the {event} lasted from the year {xx}{yy} to the year {xx}",
    "the {event} began in {xx}{yy} and ended in {xx}",
    "from {xx}{yy} the {event} went on until {xx}",
)
CENTURIES: tuple[int, ...] = tuple(range(11, 20))
YEARS: tuple[str, ...] = tuple(f"{year:02d}" for year in range(100))


def example(template: int, *, event: str, century: int, year: int, answer: int) -> Example:
    """Tell that an event began in a year; every later two-digit year of the century is a right end.

    Args:
        template: index into ``TEMPLATES``.
        event: what lasted.
        century: the first two digits, 11 to 19.
        year: the last two digits of the start, 2 to 97.
        answer: the last two digits of the end, above ``year``.
    """
    return Example(
        prompt=TEMPLATES[template].format(event=event, xx=century, yy=YEARS[year]),
        answer=YEARS[answer],
        task="greater-than",
        template=str(template),
        group=f"{century}{YEARS[year]}",
        label=YEARS[year],
        correct=YEARS[year + 1 :],
        wrong=YEARS[: year + 1],
        variables=(("event", event), ("century", str(century)), ("year", YEARS[year])),
    )


def generate(world: World, rng: random.Random, split: Split) -> Example:
    """Draw a century and a year that belong to the split, and an end after it."""
    while True:
        century, year = rng.choice(CENTURIES), rng.randrange(2, 98)
        if in_split(split, "greater-than", str(century), str(year)):
            return example(
                rng.randrange(len(TEMPLATES)),
                event=rng.choice(world.column("events")),
                century=century,
                year=year,
                answer=rng.randrange(year + 1, 100),
            )


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[PairTexts]:
    """Yield pairs of years without end; answers are the years after, foils the others."""
    while True:
        century, year = rng.choice(CENTURIES), rng.randrange(2, 98)
        other = 1 if kind == "low" else rng.randrange(2, 98)
        if other == year:
            continue
        at, event = rng.randrange(len(TEMPLATES)), rng.choice(world.column("events"))
        clean, corrupt = (
            example(at, event=event, century=century, year=y, answer=99).prompt for y in (year, other)
        )
        group = f"{century}{YEARS[year]}"
        yield PairTexts(clean, corrupt, YEARS[year + 1 :], YEARS[: year + 1], kind, group, "direct")
