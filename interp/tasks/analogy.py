"""Two facts of one relation: 'Denmark : krone = Japan :' -> yen, and the same in words."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.tasks.prompts import Example
from interp.tasks.relations import RELATIONS
from interp.tasks.splits import Split, in_split, part_of
from interp.tasks.world import Fact, World

__all__ = ["TEMPLATES", "clear", "example", "generate", "in_pair_split"]

TEMPLATES: dict[str, str] = {
    "symbolic": "{a} : {b} = {c} :",
    "verbal": "{a} is to {b} as {c} is to",
}


def clear(world: World, shown: Fact, asked: Fact) -> bool:
    """Whether the pair shown fits one relation only, and the answer is not simply the object shown."""
    return (
        shown.subject != asked.subject
        and shown.object != asked.object
        and len(world.relations_between[shown.subject, shown.object]) == 1
    )


def in_pair_split(split: Split, first: Fact, second: Fact) -> bool:
    """Whether an unordered pair of facts belongs to the split."""
    subjects = sorted((first.subject, second.subject))
    return in_split(split, "analogy", first.relation, *subjects)


def example(shown: Fact, asked: Fact, template: str) -> Example:
    """Ask for the object of ``asked`` by analogy with the fact shown."""
    return Example(
        prompt=TEMPLATES[template].format(a=shown.subject, b=shown.object, c=asked.subject),
        answer=asked.object,
        task="analogy",
        template=template,
        group=asked.key,
        label=asked.relation,
        variables=(
            ("a", shown.subject),
            ("b", shown.object),
            ("c", asked.subject),
            ("relation", asked.relation),
        ),
    )


def generate(world: World, rng: random.Random, split: Split) -> Example:
    """Draw two facts of one relation whose unordered pair belongs to the split."""
    while True:
        asked = rng.choice(world.all_facts)
        shown = rng.choice(world.facts[asked.relation])
        if clear(world, shown, asked) and in_pair_split(split, shown, asked):
            return example(shown, asked, rng.choice(tuple(TEMPLATES)))


def labels(world: World, rng: random.Random) -> Iterator[Example]:
    """Yield analogies of words of one part, relations in turn, without end; the label is the relation."""
    names = [name for name in RELATIONS if name not in ("capital_of", "country_of")]
    while True:
        facts = world.facts[names[0]]
        names = [*names[1:], names[0]]
        asked = rng.choice(facts)
        shown = rng.choice([fact for fact in facts if part_of(fact.subject) == part_of(asked.subject)])
        if clear(world, shown, asked):
            yield example(shown, asked, rng.choice(tuple(TEMPLATES)))
