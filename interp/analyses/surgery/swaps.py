"""Which concept is exchanged for which, in prompts that the model answers right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interp.analyses.concepts.trial import concept_tokens
from interp.errors import DataError
from interp.models.answers import score
from interp.models.model import Model
from interp.tasks.protocols import Item

__all__ = ["Role", "Swap", "part_of", "same_subject", "swaps_of", "unrelated"]

Role = Literal["answer", "subject"]

BESIDE = 2
"""The most other prompts about the same subject that are watched for each swap."""


@dataclass(frozen=True)
class Swap:
    """One prompt whose concept is exchanged for that of another prompt of the same relation.

    Attributes:
        item: the prompt that is edited; its ``answer`` is the old concept.
        donor: the prompt whose ``answer`` is the new concept.
        old: first token of what the model says to the prompt.
        new: first token of what it says to the donor.
        role: what is exchanged: the ``answer``, or the ``subject``, after which the answer should follow.
    """

    item: Item
    donor: Item
    old: int
    new: int
    role: Role = "answer"

    @property
    def pair(self) -> tuple[str, str]:
        """The old concept and the new one."""
        return part_of(self.item, self.role), part_of(self.donor, self.role)


def part_of(item: Item, role: Role) -> str:
    """What stands in a role of a prompt's fact; "" for a subject that it does not have."""
    return item.answer if role == "answer" else item.subject or ""


def swaps_of(
    model: Model,
    items: Sequence[Item],
    *,
    n: int = 100,
    seed: int = 0,
    role: Role = "answer",
    known: bool = False,
) -> tuple[Swap, ...]:
    """Draw swaps among the prompts that a model answers right.

    A prompt's donor has the same relation, another answer, and another first token of it. One prompt is taken
    for each fact before a second one of any.

    Args:
        model: what answers.
        items: prompts with their concepts, such as the test part of a protocol.
        n: how many, at most.
        seed: of the draw.
        role: what is exchanged.
        known: whether the model was asked already and answers all of them right.

    Raises:
        DataError: no two of them have one relation and different answers that the model gives.
    """
    right = _right(model, items, known)
    rng = random.Random(f"surgery:{seed}")
    swaps = []
    for item, old in _one_of_each_fact(right, rng):
        donors = [
            (other, new)
            for other, new in right
            if other.relation == item.relation and other.answer != item.answer and new != old
            if part_of(other, role) != part_of(item, role) and part_of(other, role) and part_of(item, role)
        ]
        if donors:
            donor, new = rng.choice(donors)
            swaps.append(Swap(item, donor, old, new, role))
        if len(swaps) == n:
            break
    if len(swaps) < 2:
        raise DataError(
            f"{model.name!r} answers {len(right)} of {len(items)} prompts right, and no two of them have one "
            "relation and different answers; give prompts that it can answer."
        )
    return tuple(swaps)


def _right(model: Model, items: Sequence[Item], known: bool) -> list[tuple[Item, int]]:
    """The prompts that the model answers right, with the first token of what it says."""
    answers = [item.output or item.answer for item in items]
    if known:
        return [(item, ids[0]) for item, ids in zip(items, concept_tokens(model, answers), strict=True)]
    found = score(model, [item.text for item in items], answers)
    rows = zip(items, found.token_ids, found.likeliest.tolist(), strict=True)
    return [(item, ids[0]) for item, ids, ok in rows if ok]


def _one_of_each_fact(right: Sequence[tuple[Item, int]], rng: random.Random) -> list[tuple[Item, int]]:
    """The same in an order in which no fact comes a second time before every fact came once."""
    order = rng.sample(list(right), len(right))
    seen: dict[str, int] = {}
    turns = []
    for item, _ in order:
        seen[item.fact] = seen.get(item.fact, -1) + 1
        turns.append(seen[item.fact])
    return [order[at] for at in sorted(range(len(order)), key=lambda at: turns[at])]


def unrelated(swaps: Sequence[Swap], items: Sequence[Item], seed: int) -> list[Item]:
    """For each swap a prompt of another relation, or of another fact where there is one relation alone."""
    rng = random.Random(f"unrelated:{seed}")
    found = []
    for swap in swaps:
        apart = [item for item in items if item.relation != swap.item.relation]
        apart = apart or [item for item in items if item.fact not in (swap.item.fact, swap.donor.fact)]
        found.append(rng.choice(apart or list(items)))
    return found


def same_subject(swaps: Sequence[Swap], items: Sequence[Item]) -> list[tuple[int, Item]]:
    """Other facts about the subject of each swap: the number of the swap, and a prompt about one."""
    about: dict[str, list[Item]] = {}
    for item in items:
        if item.subject:
            about.setdefault(item.subject, []).append(item)
    return [
        (at, item)
        for at, swap in enumerate(swaps)
        for item in [o for o in about.get(swap.item.subject, []) if o.relation != swap.item.relation][:BESIDE]
    ]
