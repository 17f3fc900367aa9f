"""A capability: what the base answers right and the tuned model does not, and what both still answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from interp.analyses.concepts.known import protocol_of
from interp.analyses.knowledge.questions import OwnFacts, Question, ask
from interp.analyses.prompts import answer_ids
from interp.errors import DataError
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.tasks import few_shot
from interp.tasks.relations import RELATIONS
from interp.tasks.world import load_world

__all__ = ["FEWEST", "KNOWN", "Capability", "found_lacking", "right", "said"]

FEWEST = 12
"""Lacking answers of other facts that there must be."""
TRIED, LOST = 12, 0.5
"""So many questions of each relation are asked first; the others of those in which half is lost."""
TRAINED = 0.6
"""The part of the facts that is fitted, chosen and trained on."""
EXAMPLES, KNOWN = 8, "known-relations"
"""Facts of each relation that are shown and not asked; and the protocol of models that are asked so."""


@dataclass(frozen=True, eq=False)
class Capability:
    """Questions that the base answers right.

    Attributes:
        lacking: those that the tuned model answers wrong.
        kept: some of those that it answers right too.
        spare: all others that the base answers right, for readers to learn from.
        asked: relation -> questions the base answers right, and how many of them the tuned model lacks.
    """

    lacking: tuple[Question, ...]
    kept: tuple[Question, ...]
    spare: tuple[Question, ...]
    asked: dict[str, tuple[int, int]]

    @property
    def enough(self) -> bool:
        """Whether there are enough facts to divide."""
        return len({one.group for one in self.lacking}) >= FEWEST

    def divided(self, seed: int) -> tuple[list[int], list[int]]:
        """Rows of the lacking questions to learn from, and others to judge on; no fact is in both."""
        groups = list(dict.fromkeys(one.group for one in self.lacking))
        random.Random(f"wrapper:{seed}").shuffle(groups)
        train = set(groups[: round(TRAINED * len(groups))])
        rows = range(len(self.lacking))
        first = [row for row in rows if self.lacking[row].group in train]
        return first, [row for row in rows if self.lacking[row].group not in train]


def said(
    model: Model, questions: Sequence[Question], writes: Sequence[Intervention] = ()
) -> Int[np.ndarray, " question"]:
    """The likeliest next token after each question."""
    logits = model.run([one.prompt for one in questions], interventions=writes).logits
    assert logits is not None
    return logits.float().argmax(dim=-1).cpu().numpy()


def right(
    model: Model, questions: Sequence[Question], writes: Sequence[Intervention] = ()
) -> Bool[np.ndarray, " question"]:
    """Whether it is the first token of the answer."""
    return said(model, questions, writes) == np.array([one.token for one in questions])


def found_lacking(
    base: Model, tuned: Model, *, n: int, seed: int, data: OwnFacts | None = None
) -> Capability:
    """Ask both models, and find where the base answers right and the tuned model does not.

    Of the bundled facts a few of each relation are asked first, then all of those relations in which the
    tuned model lacks at least half of what the base knows. The bundled model is asked in sentences, others by
    three examples ``a -> b``: a sentence goes on in many ways, of which the answer is one.

    Args:
        base: before training.
        tuned: after it.
        n: how many lacking questions at most, and as many that are kept.
        seed: of the draw.
        data: own questions, which are all asked.

    Raises:
        DataError: nothing that the base answers right.
    """
    first = _asked(base, tuned, ask(base, data, None, n=10**6, seed=seed).asked) if data is not None else None
    if first is None:
        tried = _bundled(base, tuple(RELATIONS), TRIED * len(RELATIONS), seed)
        first = _asked(base, tuned, tried)
        lost = [name for name, (known, gone) in _counts(*first).items() if known > 2 and gone >= LOST * known]
        if lost:
            more = _bundled(base, tuple(lost), 2 * n, seed)
            known = {one.prompt for one in tried}
            again = _asked(base, tuned, [one for one in more if one.prompt not in known])
            first = ([*first[0], *again[0]], [*first[1], *again[1]])
    lacking, kept = first
    if not lacking and not kept:
        raise DataError(f"{base.called!r} answers none of the questions, so nothing can be lacking.")
    counts = _counts(lacking, kept)
    return Capability(tuple(lacking[:n]), tuple(kept[:n]), (*kept[n:], *lacking[n:]), counts)


def _bundled(model: Model, names: Sequence[str], n: int, seed: int) -> Sequence[Question]:
    """Bundled facts of some relations in turn, in sentences or by examples."""
    if protocol_of(model) != KNOWN:
        return ask(model, None, names, n=n, seed=seed).asked
    columns = [list(_by_examples(model, name, seed)) for name in names]
    return [one for row in zip_longest(*columns) for one in row if one is not None][:n]


def _by_examples(model: Model, relation: str, seed: int) -> Iterator[Question]:
    """Every fact of a relation, asked by three others that are never asked themselves.

    So no answer that is held out stands in a prompt that is trained on.
    """
    rng = random.Random(f"wrapper:{relation}:{seed}")
    facts = list(load_world().facts[relation])
    rng.shuffle(facts)
    for fact in facts[EXAMPLES:]:
        shown = few_shot.shots(fact, facts[:EXAMPLES], rng)
        prompt = "" if shown is None else few_shot.prompt(shown, fact.subject)
        given = fact.object.lower() in prompt.lower()  # as Guinea-Bissau gives Bissau
        ids = answer_ids(model, prompt, fact.object) if prompt and not given else None
        if ids is not None:
            yield Question(prompt, fact.object, relation, fact.key, ids)


def _asked(base: Model, tuned: Model, questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """Of those that the base answers right: what the tuned model lacks, and what it keeps."""
    known = (
        [one for one, ok in zip(questions, right(base, questions), strict=True) if ok] if questions else []
    )
    now = right(tuned, known) if known else []
    lacking = [one for one, ok in zip(known, now, strict=True) if not ok]
    return lacking, [one for one, ok in zip(known, now, strict=True) if ok]


def _counts(lacking: Sequence[Question], kept: Sequence[Question]) -> dict[str, tuple[int, int]]:
    gone, rest = (Counter(one.relation for one in part) for part in (lacking, kept))
    return {name: (gone[name] + rest[name], gone[name]) for name in dict.fromkeys([*gone, *rest])}


def last_states(
    model: Model, questions: Sequence[Question], layers: Sequence[int]
) -> dict[int, Float[np.ndarray, "question d_model"]]:
    """The residual stream after each question's last token."""
    names = [f"resid_post.{layer}" for layer in layers]
    acts = model.capture([one.prompt for one in questions], names, "last", device="cpu", dtype=torch.float32)
    return {layer: acts[name].double().numpy() for layer, name in zip(layers, names, strict=True)}
