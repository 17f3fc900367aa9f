"""One fact in one sentence: 'the capital of France is' -> Paris."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from interp.tasks.prompts import Example, PairTexts
from interp.tasks.relations import RELATIONS, Relation
from interp.tasks.splits import Split, is_held_out
from interp.tasks.world import Fact, World

__all__ = ["example", "generate", "held_out_template", "pairs"]


def held_out_template(fact: Fact, template: int) -> bool:
    """Whether this fact was never trained in this template.

    The fact's first trained template is never held out.
    """
    keys = [
        is_held_out("one-hop", fact.relation, fact.subject, str(index))
        for index in range(len(RELATIONS[fact.relation].templates))
    ]
    return keys[template] and not (all(keys) and template == 0)


def example(fact: Fact, template: int, relations: Mapping[str, Relation] = RELATIONS) -> Example:
    """State a fact in one of its relation's templates.

    Args:
        fact: what is stated.
        template: which of the templates.
        relations: relation -> its templates; the bundled ones where left out.
    """
    return Example(
        prompt=relations[fact.relation].templates[template].format(fact.subject),
        answer=fact.object,
        task="one-hop",
        template=f"{fact.relation}/{template}",
        group=fact.key,
        label=fact.relation,
        variables=(("subject", fact.subject), ("relation", fact.relation)),
    )


def generate(world: World, rng: random.Random, split: Split) -> Example:
    """Draw a fact and a template whose combination belongs to the split."""
    while True:
        fact = rng.choice(world.all_facts)
        template = rng.randrange(len(RELATIONS[fact.relation].templates))
        if held_out_template(fact, template) == (split == "held-out"):
            return example(fact, template)


def statements(world: World, rng: random.Random) -> Iterator[Example]:
    """Yield statements of every relation without end; the label is the relation."""
    while True:
        fact = rng.choice(world.facts[rng.choice(tuple(RELATIONS))])
        yield example(fact, rng.randrange(len(RELATIONS[fact.relation].templates)))


def categories(world: World, rng: random.Random) -> Iterator[Example]:
    """Yield statements about the category of a thing without end; the label is the category."""
    while True:
        for template in range(len(RELATIONS["category"].templates)):
            for fact in rng.sample(world.facts["category"], len(world.facts["category"])):
                yield replace(example(fact, template), label=fact.object)


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[PairTexts]:
    """Yield pairs of statements of every relation without end."""
    yield from _pairs_of(world, rng, kind, sorted(world.facts))


def capitals(world: World, rng: random.Random, kind: str) -> Iterator[PairTexts]:
    """Yield pairs about capitals without end: another country, another relation, or other words."""
    if kind != "relation":
        yield from _pairs_of(world, rng, kind, ["capital"])
    others = ("currency", "language")
    while True:
        fact = rng.choice(world.facts["capital"])
        second = rng.choice(others)
        other = world.objects.get((second, fact.subject))
        templates = RELATIONS["capital"].templates[0], RELATIONS[second].templates[0]
        if other is None or other == fact.object:
            continue
        clean, corrupt = (template.format(fact.subject) for template in templates)
        yield PairTexts(clean, corrupt, (fact.object,), (other,), group=fact.subject)


def _pairs_of(world: World, rng: random.Random, kind: str, relations: Sequence[str]) -> Iterator[PairTexts]:
    """Yield pairs of some relations: the subject exchanged, or the same question in other words.

    A foil is another subject's object.
    """
    while True:
        name = rng.choice(relations)
        templates = RELATIONS[name].templates
        fact, other = rng.sample(world.facts[name], 2)
        if fact.object == other.object:
            continue
        at = rng.randrange(len(templates))
        clean = templates[at].format(fact.subject)
        if kind == "null":
            if len(templates) < 2:
                continue
            again = rng.choice([i for i in range(len(templates)) if i != at])
            corrupt = templates[again].format(fact.subject)
        else:
            corrupt = templates[at].format(other.subject)
        yield PairTexts(clean, corrupt, (fact.object,), (other.object,), kind, fact.subject)
