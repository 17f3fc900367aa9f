"""Relations by example: 'France -> Paris', 'Japan -> Tokyo', 'Italy ->' in three lines, in any vocabulary."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from interp.tasks import one_hop
from interp.tasks.items import Item, Part, ProtocolItems, Sizes, check_apart, given_away, parts_of
from interp.tasks.world import Fact, World

__all__ = ["SHOTS", "known_relations", "prompt", "shots", "statements"]

SHOTS = 3
"""Pairs that a prompt shows before it asks."""
SHARES = (0.6, 0.15, 0.25)
TRIES = 20
EXAMPLED = 2
"""Prompts by examples of a fact whose relation has no sentence."""


def prompt(shown: Iterable[Fact], subject: str) -> str:
    """Ask for an object by the pairs shown, one a line: ``a -> b``."""
    return "\n".join([*(f"{fact.subject} -> {fact.object}" for fact in shown), f"{subject} ->"])


def shots(asked: Fact, pool: Sequence[Fact], rng: random.Random) -> tuple[Fact, ...] | None:
    """Facts to show before one is asked: of other subjects, that neither hold its answer nor name it.

    Args:
        asked: the fact that the prompt asks for.
        pool: what may be shown.
        rng: the only source of randomness.

    Returns:
        Three facts with different subjects, fewer where the pool has fewer; None where it has none that fits,
        or the answer is a part of the question.
    """
    if given_away(asked.object, (asked.subject,)):
        return None
    fits = [
        fact
        for fact in rng.sample(pool, min(len(pool), TRIES))
        if fact.subject != asked.subject and not given_away(asked.object, (fact.subject, fact.object))
    ]
    return tuple(fits[:SHOTS]) or None


def statements(world: World, fact: Fact, shown: Sequence[Fact], rng: random.Random) -> list[str]:
    """A fact in every sentence of its relation; by examples, twice, where the relation has no sentence.

    Args:
        world: the relations.
        fact: what is stated.
        shown: facts of any relation that may stand as examples.
        rng: the only source of randomness; not used where there are sentences.
    """
    n = len(world.relations[fact.relation].templates)
    if n:
        return [one_hop.example(fact, at, world.relations).prompt for at in range(n)]
    pool = [one for one in shown if one.relation == fact.relation]
    drawn = (shots(fact, pool, rng) for _ in range(EXAMPLED))
    return list(dict.fromkeys(prompt(one, fact.subject) for one in drawn if one))


def known_relations(world: World, seed: int, sizes: Sizes) -> ProtocolItems:
    """Ask by three examples for facts of every relation, whose answers are shared out over the parts.

    An answer of validation or test stands in no training prompt, and in no example of any prompt. Relations
    are taken in turns, so that fewer prompts are of as many relations; every fact is asked once.
    """
    rng = random.Random(f"known-relations:{seed}")
    part = parts_of([fact.object for fact in world.all_facts], SHARES, seed)
    held = {name for name, where in part.items() if where != "train"}
    groups: dict[str, set[Part]] = {}
    for fact in world.all_facts:
        groups.setdefault(fact.unit, set()).add(part[fact.object])
    drawn: list[Item] = []
    plan: list[tuple[Part, int]] = [("train", sizes[0]), ("validation", sizes[1]), ("test", sizes[2])]
    for name, n in plan:
        columns: list[list[Item]] = []
        for facts in world.facts.values():
            pool = [f for f in facts if groups[f.unit] == {"train"} and f.subject not in held]
            asked = pool if name == "train" else [f for f in facts if groups[f.unit] == {name}]
            columns.append([*_asked(rng.sample(asked, len(asked)), pool, name, rng)])
        drawn += [item for row in zip_longest(*columns) for item in row if item is not None][:n]
    found = ProtocolItems(tuple(drawn), world.concepts)
    return check_apart(check_apart(found, lambda item: item.answer), lambda item: item.fact)


def _asked(facts: Sequence[Fact], pool: Sequence[Fact], part: Part, rng: random.Random) -> Iterator[Item]:
    for fact in facts:
        shown = shots(fact, pool, rng)
        if shown is not None:
            yield Item(
                text=prompt(shown, fact.subject),
                answer=fact.object,
                relation=fact.relation,
                fact=fact.unit,
                part=part,
                output=fact.object,
                subject=fact.subject,
            )
