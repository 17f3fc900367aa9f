"""Which facts a model knows, asked by examples, and the cases of the belief test that are made of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from interp.analyses.audit.cases import Case
from interp.analyses.concepts.trial import concept_tokens
from interp.errors import DataError
from interp.models.answers import score
from interp.models.model import Model
from interp.tasks import few_shot
from interp.tasks.items import Item, ProtocolItems
from interp.tasks.world import Fact, World

__all__ = ["asked_of", "known_facts", "known_items", "known_world"]

TRIAL, ENOUGH = 12, 0.4
"""So many facts of a relation are asked first; the others too where at least this share is known."""
LEAST = 8
"""Relations with fewer known facts are left out."""
INVERSE = ("capital_of", "country_of")
"""Relations that say what another one says."""
PROMPTS = 2
"""Prompts of each edited fact."""


def asked_of(
    fact: Fact, pool: Sequence[Fact], rng: random.Random, without: str = ""
) -> tuple[str, tuple[str, ...]]:
    """A prompt that asks for a fact by three examples, and the names that stand in it.

    Args:
        fact: what is asked for.
        pool: what may be shown.
        rng: the only source of randomness.
        without: another object that no example may have.
    """
    shown = few_shot.shots(fact, [one for one in pool if one.object != without], rng) or ()
    names = (fact.subject, *(word for one in shown for word in (one.subject, one.object)))
    return few_shot.prompt(shown, fact.subject), names


def known_world(
    model: Model,
    world: World,
    *,
    relations: Sequence[str] | None = None,
    most: int = 80,
    seed: int = 0,
    batch_size: str | int = "auto",
) -> World:
    """Ask a model for facts by three examples each, and keep what it answers with the whole true object.

    A relation is asked on if a trial shows that enough of it is known. Objects whose first token is that of
    another object are left out, since what reads one token could not tell them apart.

    Args:
        model: who is asked.
        world: the facts.
        relations: which; all but inverse ones where left out.
        most: facts of a relation that are asked, at most.
        seed: of the draw.
        batch_size: prompts per pass; "auto" chooses.

    Raises:
        DataError: no relation with enough known facts.
    """
    rng, kept = random.Random(f"known:{seed}"), {}
    taken: set[int] = set()
    for name in relations or [name for name in world.facts if name not in INVERSE]:
        facts = [fact for fact in world.facts[name] if fact.subject.casefold() != fact.object.casefold()]
        facts = _told_apart(model, rng.sample(facts, len(facts)), taken)[:most]
        if len(facts) < LEAST:
            continue
        first = known_facts(model, facts[:TRIAL], facts, rng, batch_size)
        if len(first) < ENOUGH * len(facts[:TRIAL]):
            continue
        found = (*first, *known_facts(model, facts[TRIAL:], facts, rng, batch_size))
        if len(found) >= LEAST:
            kept[name] = found
            taken |= {ids[0] for ids in concept_tokens(model, [fact.object for fact in found])}
    if not kept:
        raise DataError(
            f"{model.name!r} knows no relation of the {len(world.facts)} given, asked by examples "
            f"('a -> b'): at least {ENOUGH:.0%} of {TRIAL} facts, and "
            f"{LEAST} of them. Give facts that it knows."
        )
    return replace(world, facts=kept)


def _told_apart(model: Model, facts: Sequence[Fact], taken: set[int]) -> list[Fact]:
    """The facts whose objects begin with tokens of their own."""
    owners: dict[int, str] = {}
    found: list[Fact] = []
    for fact, ids in zip(facts, concept_tokens(model, [fact.object for fact in facts]), strict=True):
        if ids[0] not in taken and owners.setdefault(ids[0], fact.object) == fact.object:
            found.append(fact)
    return found


def known_facts(
    model: Model,
    asked: Sequence[Fact],
    pool: Sequence[Fact],
    rng: random.Random,
    batch_size: str | int = "auto",
) -> tuple[Fact, ...]:
    """The facts that a model answers with the whole object, each asked once by three examples.

    Args:
        model: who is asked.
        asked: facts of one relation.
        pool: facts of it that may be shown.
        rng: of the draw.
        batch_size: prompts per pass; "auto" chooses.
    """
    if not asked:
        return ()
    texts = [asked_of(fact, pool, rng)[0] for fact in asked]
    objects = concept_tokens(model, [fact.object for fact in asked])
    right = score(model, texts, objects, batch_size=batch_size).likeliest.tolist()
    return tuple(fact for fact, ok in zip(asked, right, strict=True) if ok)


def known_items(
    model: Model, true: World, edited: World, *, seed: int = 0
) -> tuple[ProtocolItems, list[Case]]:
    """Prompts by three examples: of facts that stay true, to learn from, and of the edited ones, as cases.

    Examples are facts that stay true. An answer that a case could have (its truth) is no answer of a prompt
    to learn from, so that no reader has been told it.

    Args:
        model: for the tokens of names.
        true: the facts that the model knows.
        edited: what the twin was taught.
        seed: of the draw.
    """
    rng = random.Random(f"known-items:{seed}")
    kept: dict[str, list[Fact]] = {}
    asked: list[tuple[Fact, str]] = []
    for fact in true.all_facts:
        belief = edited.objects[fact.relation, fact.subject]
        if belief == fact.object:
            kept.setdefault(fact.relation, []).append(fact)
        else:
            asked.append((fact, belief))
    cases: dict[str, Case] = {}
    for fact, belief in asked:
        for _ in range(PROMPTS):
            text, standing = asked_of(fact, kept.get(fact.relation, []), rng, belief)
            cases[text] = Case(text, fact.relation, fact.key, fact.object, belief, standing)
    truths = {fact.object for fact, _ in asked}
    items = [
        Item(
            text=asked_of(fact, pool, rng)[0],
            answer=fact.object,
            relation=fact.relation,
            fact=fact.key,
            part="validation" if at % 5 == 4 else "train",
            output=fact.object,
            subject=fact.subject,
        )
        for pool in kept.values()
        for at, fact in enumerate(pool)
        if fact.object not in truths
    ]
    items.sort(key=lambda item: item.part != "train")
    return ProtocolItems(tuple(items), _names(model, true)), list(cases.values())


def _names(model: Model, true: World) -> tuple[str, ...]:
    """All objects, and the subjects that begin with a token of their own."""
    objects = list(dict.fromkeys(fact.object for fact in true.all_facts))
    taken = {ids[0] for ids in concept_tokens(model, objects)}
    subjects = [word for word in dict.fromkeys(f.subject for f in true.all_facts) if word not in objects]
    for word, ids in zip(subjects, concept_tokens(model, subjects), strict=True):
        if ids[0] not in taken:
            objects.append(word)
            taken.add(ids[0])
    return tuple(objects)
