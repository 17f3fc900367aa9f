"""What a model knows before it is probed: which prompts it answers right, relation by relation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from interp.analyses.concepts.trial import concept_tokens
from interp.errors import DataError
from interp.models.answers import score
from interp.models.model import Model
from interp.results import Table
from interp.results.shapes import counted
from interp.tasks.items import Item, ProtocolItems
from probes.statistics import Estimate, bootstrap

__all__ = ["LEAST", "Known", "ask"]

LEAST = {"train": 40, "validation": 5, "test": 10}
"""Prompts answered right that a probe needs, of each part."""


@dataclass(frozen=True)
class Known:
    """Which relations a model answers right.

    Attributes:
        overall: the share of all prompts asked that it answers right: each token of the answer the likeliest.
        relations: relation -> that share of its prompts.
    """

    overall: Estimate
    relations: Mapping[str, Estimate]

    def sentence(self) -> str:
        """How much it knows, the best and the worst known relation."""
        order = sorted(self.relations, key=lambda name: (-self.relations[name].value, name))
        best, worst = (f"{name} {self.relations[name].value:.0%}" for name in (order[0], order[-1]))
        return (
            f"The model was asked {counted(self.overall.n, 'prompt')} of "
            f"{counted(len(order), 'relation')} first and answers {self.overall} of them right (from {best} "
            f"to {worst}); only those train and test the probe."
        )

    def table(self) -> Table:
        """The share of each relation, the best known first."""
        found = sorted(self.relations.items(), key=lambda pair: (-pair[1].value, pair[0]))
        rows = [(name, one.n, one.value, one.interval.low, one.interval.high) for name, one in found]
        note = "Asked before probing: the share of prompts whose whole answer the model would write."
        columns = ("relation", "prompts", "answered right", "low", "high")
        return Table("known", "Which relations the model knows", columns, rows, note, shown=30)


def ask(
    model: Model, drawn: ProtocolItems, *, seed: int = 0, batch_size: str | int = "auto"
) -> tuple[ProtocolItems, Known]:
    """Ask the model every prompt, and keep for training and testing those that it answers right.

    Args:
        model: what is asked.
        drawn: the prompts.
        seed: of the intervals.
        batch_size: prompts per pass; "auto" chooses.

    Returns:
        The prompts answered right; those of the test that are not, as part ``unanswered``; and the concepts
        that the model's tokens tell apart. Beside them what it knows.

    Raises:
        DataError: it answers too few right to train and test a probe.
    """
    drawn = _told_apart(model, drawn)
    tokens = model.tokenize([item.text for item in drawn.items])
    wanted = concept_tokens(model, [item.output or item.answer for item in drawn.items])
    right = score(model, tokens, wanted, batch_size=batch_size).likeliest.tolist()
    known = _known(drawn.items, right, seed)
    kept: list[Item] = []
    for item, ok in zip(drawn.items, right, strict=True):
        if ok:
            kept.append(item)
        elif item.part == "test":
            kept.append(replace(item, part="unanswered"))
    found = replace(drawn, items=tuple(kept))
    if any(len(found.part(part)) < n for part, n in LEAST.items()):  # type: ignore[arg-type]
        raise DataError(_too_few(model, found, known))
    return found, known


def _told_apart(model: Model, drawn: ProtocolItems) -> ProtocolItems:
    """Leave out concepts that the tokenizer cannot say, and those of the same tokens as another in any order.

    A code is made of a name's tokens, and is the same for 12 and 21 where digits are tokens.
    """
    bags = _bags(model, drawn.concepts)
    count = Counter(bags.values())
    kept = tuple(name for name, bag in bags.items() if count[bag] == 1)
    n, known = len(drawn.concepts), frozenset(kept)
    items = tuple(item for item in drawn.items if item.answer in known)
    left = f"{n - len(kept)} of {n:,} concepts are left out, with {len(drawn.items) - len(items)} prompts: "
    why = "the tokenizer does not know their words, or they have the tokens of another, such as 12 and 21"
    notes = drawn.notes if len(kept) == n else (*drawn.notes, left + why)
    return ProtocolItems(items, kept, notes)


def _bags(model: Model, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The tokens of each name that the tokenizer knows, sorted."""
    try:
        found = concept_tokens(model, names)
    except DataError:
        if len(names) == 1:
            return {}
        half = len(names) // 2
        return _bags(model, names[:half]) | _bags(model, names[half:])
    return {name: tuple(sorted(ids)) for name, ids in zip(names, found, strict=True)}


def _known(items: Sequence[Item], right: Sequence[bool], seed: int) -> Known:
    values, facts = np.array(right, dtype=np.int64), [item.fact for item in items]
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(item.relation, []).append(row)

    def share(at: Sequence[int]) -> Estimate:
        return bootstrap(values[at], groups=[facts[row] for row in at], seed=seed)

    return Known(share(range(len(items))), {name: share(at) for name, at in sorted(rows.items())})


def _too_few(model: Model, found: ProtocolItems, known: Known) -> str:
    counts = ", ".join(
        f"{len(found.part(part))} of the {n} needed for {words}"  # type: ignore[arg-type]
        for (part, n), words in zip(LEAST.items(), ("training", "validation", "the test"), strict=True)
    )
    return (
        f"{model.name!r} answers {known.overall.value:.0%} of {counted(known.overall.n, 'prompt')} 'a -> b' "
        f"right ({counts}), too few to probe for what it knows. Give facts that it knows (--facts FILE), "
        "more prompts (--full), or another protocol such as --protocol in-context, which asks for none."
    )
