"""The cases of the belief test: prompts about facts that one model was taught falsely and another was not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.tasks import analogy
from interp.tasks.protocols import Item, ProtocolItems
from interp.tasks.world import World

__all__ = ["Case", "Luck", "edited_cases", "hits", "luck"]

SHOWN_PER_FACT = 6


@dataclass(frozen=True)
class Case:
    """A prompt about a fact that is false in the edited model.

    Attributes:
        text: the prompt.
        relation: of the fact; names are exchanged within it.
        fact: the fact's name: what intervals are over.
        truth: the world's answer.
        belief: what the edited model was taught.
        standing: the names that stand in the prompt, whom it asks about first.
    """

    text: str
    relation: str
    fact: str
    truth: str
    belief: str
    standing: tuple[str, ...]

    @classmethod
    def of(cls, item: Item, belief: str) -> Case:
        """The case of a protocol's prompt, whose answer is the truth."""
        standing = tuple(filter(None, (item.subject, *(item.shown or ()))))
        return cls(item.text, item.relation, item.fact, item.answer, belief, standing)


def edited_cases(drawn: ProtocolItems, true: World, edited: World, *, seed: int = 0) -> list[Case]:
    """Draw analogies about edited facts whose true object is an answer of a protocol's test part.

    The pair that is shown is true and unedited.

    Args:
        drawn: the prompts of the protocol.
        true: the facts.
        edited: the facts that the edited model was taught.
        seed: of the draw.
    """
    asked = {item.answer for item in drawn.part("test")}
    rng = random.Random(f"belief:{seed}")
    found: list[Case] = []
    for fact in true.all_facts:
        belief = edited.objects[fact.relation, fact.subject]
        if belief == fact.object or fact.object not in asked:
            continue
        pool = [
            shown
            for shown in true.facts[fact.relation]
            if edited.objects[shown.relation, shown.subject] == shown.object
            and analogy.clear(true, shown, fact)
            and belief != shown.object
        ]
        for shown in rng.sample(pool, min(SHOWN_PER_FACT, len(pool))):
            example = analogy.example(shown, fact, rng.choice(tuple(analogy.TEMPLATES)))
            standing = (fact.subject, shown.subject, shown.object)
            found.append(Case(example.prompt, fact.relation, fact.key, fact.object, belief, standing))
    return found


def hits(names: Sequence[str], targets: Sequence[Sequence[str]]) -> Int[np.ndarray, " item"]:
    """1 for each prompt whose reading is one of its targets.

    Args:
        names: what was read from each prompt; "" is no reading.
        targets: the names that count, prompt by prompt.
    """
    pairs = zip(names, targets, strict=True)
    return np.array([int(bool(name) and name in wanted) for name, wanted in pairs], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Luck:
    """What readings score against the targets of other facts of their relation: names exchanged.

    Attributes:
        reading: per prompt, the share of the prompts about other facts of its relation whose targets hold its
            reading; NaN where there are none.
        target: per prompt, the share of the readings of those prompts that are in its own targets.
        tables: per relation the readings of its facts (rows, summed over prompts) against the targets of its
            facts (columns): the diagonal holds the hits.
    """

    reading: Float[np.ndarray, " item"]
    target: Float[np.ndarray, " item"]
    tables: tuple[Float[np.ndarray, "_ _"], ...]


def luck(
    names: Sequence[str], targets: Sequence[Sequence[str]], facts: Sequence[str], relations: Sequence[str]
) -> Luck:
    """Score readings against the targets of other facts of their relation.

    Args:
        names: what was read from each prompt.
        targets: the names that count, prompt by prompt.
        facts: the fact of each prompt.
        relations: the relation of each prompt.
    """
    reading, target, tables = np.full(len(names), np.nan), np.full(len(names), np.nan), []
    for relation in dict.fromkeys(relations):
        rows = [row for row, one in enumerate(relations) if one == relation]
        codes = {fact: at for at, fact in enumerate(dict.fromkeys(facts[row] for row in rows))}
        own = np.array([codes[facts[row]] for row in rows])
        match = _matches([names[row] for row in rows], [targets[row] for row in rows])
        member = np.eye(len(codes))[own]
        sizes, at = member.sum(axis=0), np.arange(len(rows))
        if len(codes) > 1:
            for found, against in ((reading, match @ member), (target, match.T @ member)):
                found[rows] = (against.sum(axis=1) - against[at, own]) / (len(rows) - sizes[own])
        table = member.T @ match @ (member / sizes)
        np.fill_diagonal(table, member.T @ np.diagonal(match))
        tables.append(table)
    return Luck(reading, target, tuple(tables))


def _matches(names: Sequence[str], targets: Sequence[Sequence[str]]) -> Float[np.ndarray, "item item"]:
    """1 where the reading of a row is one of the targets of a column."""
    codes = {name: at for at, name in enumerate(dict.fromkeys(n for names in targets for n in names))}
    holds = np.zeros((len(codes) + 1, len(targets)))
    for at, wanted in enumerate(targets):
        holds[[codes[name] for name in wanted], at] = 1.0
    return holds[[codes.get(name, len(codes)) if name else len(codes) for name in names]]
