"""What a model knows before it is probed: which prompts it answers right, relation by relation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from interp.analyses.concepts.one_pass import OnePass, one_pass
from interp.analyses.concepts.trial import concept_tokens
from interp.errors import DataError
from interp.models.model import Model
from interp.results import Table
from interp.results.shapes import counted
from interp.tasks.items import Item, Part, ProtocolItems
from probes.statistics import Estimate, bootstrap

__all__ = ["LEAST", "Known", "ask", "protocol_of"]

WRONG: Mapping[str, Part] = {
    "train": "train-unanswered",
    "validation": "validation-unanswered",
    "test": "unanswered",
}
"""What becomes of a part's prompts that are answered wrong."""
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
            f"to {worst}); only those are tested, and only those train what learns answers."
        )

    def table(self) -> Table:
        """The share of each relation, the best known first."""
        found = sorted(self.relations.items(), key=lambda pair: (-pair[1].value, pair[0]))
        rows = [(name, one.n, one.value, one.interval.low, one.interval.high) for name, one in found]
        note = "Asked before probing: the share of prompts whose whole answer the model would write."
        columns = ("relation", "prompts", "answered right", "low", "high")
        return Table("known", "Which relations the model knows", columns, rows, note, shown=30)


def protocol_of(model: Model) -> str:
    """The protocol that suits a model: prompts ``a -> b`` that it answers right, unless it is bundled."""
    return "concept-disjoint" if model.name == "demo" else "known-relations"


def ask(
    model: Model,
    drawn: ProtocolItems,
    layers: Sequence[int] = (),
    *,
    seed: int = 0,
    batch_size: str | int = "auto",
    least: Mapping[str, int] = LEAST,
) -> tuple[ProtocolItems, Known, OnePass]:
    """Ask the model every prompt, and keep for training and testing those that it answers right.

    Args:
        model: what is asked.
        drawn: the prompts.
        layers: whose states are kept from the same pass.
        seed: of the intervals.
        batch_size: prompts per pass; "auto" chooses.
        least: how many prompts answered right each part needs.

    Returns:
        The prompts answered right, and the others as parts of their own: ``unanswered`` for the test,
        ``train-unanswered`` and ``validation-unanswered``, from which only a probe that needs no answers may
        learn; and the concepts whose first tokens tell them apart. Beside them what the model knows, and the
        states of these prompts.

    Raises:
        DataError: it answers too few right to train and test a probe.
    """
    drawn = _told_apart(model, drawn)
    tokens = model.tokenize([item.text for item in drawn.items]).token_ids
    wanted = concept_tokens(model, [item.output or item.answer for item in drawn.items])
    seen = one_pass(model, drawn.items, tokens, layers, answers=wanted, batch_size=batch_size)
    known = _known(drawn.items, seen.right, seed)
    pairs = zip(drawn.items, seen.right, strict=True)
    found = replace(
        drawn, items=tuple(one if ok else replace(one, part=WRONG[one.part]) for one, ok in pairs)
    )
    if any(len(found.part(part)) < n for part, n in least.items()):  # type: ignore[arg-type]
        raise DataError(_too_few(model, found, known, least))
    return found, known, seen


def _told_apart(model: Model, drawn: ProtocolItems) -> ProtocolItems:
    """Leave out concepts that the tokenizer cannot say, and those that it cannot tell from another.

    What a model is about to say is a token: of concepts that begin with the same one, the one with the fewest
    tokens stays. A code is made of a name's tokens, and is the same for two names of the same ones.
    """
    tokens = _tokens(model, drawn.concepts)
    count = Counter(tuple(sorted(ids)) for ids in tokens.values())
    owners: dict[int, str] = {}
    for name, ids in sorted(tokens.items(), key=lambda pair: len(pair[1])):
        if count[tuple(sorted(ids))] == 1:
            owners.setdefault(ids[0], name)
    known = frozenset(owners.values())
    kept, n = tuple(name for name in drawn.concepts if name in known), len(drawn.concepts)
    items = tuple(item for item in drawn.items if item.answer in known)
    left = f"{n - len(kept)} of {n:,} concepts are left out, with {len(drawn.items) - len(items)} prompts: "
    why = "the tokenizer does not know their words, or they begin with the token of another"
    notes = drawn.notes if len(kept) == n else (*drawn.notes, left + why)
    return ProtocolItems(items, kept, notes)


def _tokens(model: Model, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The tokens of each name that the tokenizer knows."""
    try:
        return dict(zip(names, concept_tokens(model, names), strict=True))
    except DataError:
        if len(names) == 1:
            return {}
        half = len(names) // 2
        return _tokens(model, names[:half]) | _tokens(model, names[half:])


def _known(items: Sequence[Item], right: Sequence[bool], seed: int) -> Known:
    values, facts = np.array(right, dtype=np.int64), [item.fact for item in items]
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(item.relation, []).append(row)

    def share(at: Sequence[int]) -> Estimate:
        return bootstrap(values[at], groups=[facts[row] for row in at], seed=seed)

    return Known(share(range(len(items))), {name: share(at) for name, at in sorted(rows.items())})


def _too_few(model: Model, found: ProtocolItems, known: Known, least: Mapping[str, int]) -> str:
    words = {"train": "training", "validation": "validation", "test": "the test"}
    counts = ", ".join(
        f"{len(found.part(part))} of the {n} needed for {words[part]}"  # type: ignore[arg-type]
        for part, n in least.items()
    )
    return (
        f"{model.name!r} answers {known.overall.value:.0%} of {counted(known.overall.n, 'prompt')} 'a -> b' "
        f"right ({counts}), too few to probe for what it knows. Give facts that it knows (--facts FILE), "
        "more prompts (--full), or another protocol such as --protocol in-context, which asks for none."
    )
