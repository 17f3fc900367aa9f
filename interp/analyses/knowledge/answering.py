"""Findings about the answers themselves: right or not, how likely, by relation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.analyses.knowledge.questions import Questions
from interp.models.answers import score
from interp.models.model import Model
from interp.results.findings import Finding
from interp.results.shapes import Cell, Table

__all__ = ["Answering", "answering"]

ENOUGH = 40
"""Questions from which a relation has a finding of its own: of fewer, the interval alone decides nothing."""
SATURATED = 0.9


@dataclass(frozen=True, eq=False)
class Answering:
    """Hold how a model answers each question.

    Attributes:
        questions: what was asked.
        right: 1 where every token of the answer is the likeliest where it stands, else 0.
        usual: 1 where the relation's most frequent answer is right, else 0.
        log_probability: of the whole answer, in nats: each token given those before it.
        guess: what guessing among the relation's answers, as often as each is asked, gives it, in nats; at
            least chance in the vocabulary.
    """

    questions: Questions
    right: Float[np.ndarray, " item"]
    usual: Float[np.ndarray, " item"]
    log_probability: Float[np.ndarray, " item"]
    guess: Float[np.ndarray, " item"]

    @property
    def groups(self) -> tuple[str, ...]:
        """Give the fact of each question."""
        return tuple(one.group for one in self.questions.asked)

    def rows(self, relation: str) -> list[int]:
        """Give the questions of a relation."""
        return [row for row, one in enumerate(self.questions.asked) if one.relation == relation]

    def overall(self) -> tuple[Finding, ...]:
        """Give accuracy and log-probability over all questions."""
        return (
            self._accuracy("accuracy", range(len(self.right))),
            Finding(
                "log-probability of the answer",
                self.log_probability,
                self.groups,
                self.guess,
                "nats",
                about="of the whole answer; control: a guess among the answers to the relation",
                direction=1,
            ),
        )

    def by_relation(self) -> tuple[Finding, ...]:
        """Give the accuracy of each relation that has enough questions, where there are several."""
        names = self.questions.relations
        rows = {name: self.rows(name) for name in names} if len(names) > 1 else {}
        return tuple(
            self._accuracy(f"accuracy: {name}", at) for name, at in rows.items() if len(at) >= ENOUGH
        )

    def _accuracy(self, name: str, rows: Any) -> Finding:
        at = list(rows)
        return Finding(
            name,
            self.right[at],
            tuple(self.groups[row] for row in at),
            self.usual[at],
            "share",
            about="each token of the answer is the likeliest; control: always the relation's usual answer",
            direction=1,
        )

    def tables(self, reference: Answering) -> tuple[Table, ...]:
        """Every relation with its loss from the reference, and the loss by saturation there.

        Args:
            reference: the answers of the reference model to the same questions.
        """
        relations: list[dict[str, Cell]] = []
        for name in self.questions.relations:
            at = self.rows(name)
            before = float(reference.right[at].mean())
            lost = reference.log_probability - self.log_probability
            row: dict[str, Cell] = {
                "relation": name,
                "n": len(at),
                "accuracy": float(self.right[at].mean()),
                "always the usual answer": float(self.usual[at].mean()),
                "log_probability": float(self.log_probability[at].mean()),
                "accuracy of the reference": before,
                "saturated": before >= SATURATED,
                "drop of accuracy": before - float(self.right[at].mean()),
                "drop of log-probability": float(lost[at].mean()),
            }
            relations.append(row)
        drops = [_mean(relations, part) for part in PARTS]
        note = f"Saturated: the reference knows at least {SATURATED:.0%}."
        return (
            Table.of("relations", "Relation by relation", relations, note),
            Table.of("drops", "Losses from the reference", drops, note),
        )


PARTS = {"saturated": True, "not saturated": False}


def _mean(relations: Sequence[Mapping[str, Any]], part: str) -> dict[str, Cell]:
    """The mean drops of the relations that the reference knows (nearly) all of, or of the others."""
    rows = [row for row in relations if row["saturated"] == PARTS[part]]
    names = ("drop of accuracy", "drop of log-probability")
    means = {name: float(np.mean([row[name] for row in rows])) if rows else None for name in names}
    return {"part": part, "relations": len(rows), **means}


def answering(model: Model, questions: Questions) -> Answering:
    """Ask all questions.

    Args:
        model: what is run, once.
        questions: with the tokens of their answers.
    """
    asked = questions.asked
    scored = score(model, [one.prompt for one in asked], [one.ids for one in asked])
    pairs = Counter((one.relation, one.ids) for one in asked)
    sizes, chance = Counter(one.relation for one in asked), 1 / model.vocab_size
    guess = [
        max(chance ** len(one.ids), pairs[one.relation, one.ids] / sizes[one.relation])
        if sizes[one.relation] > 1
        else chance ** len(one.ids)
        for one in asked
    ]
    return Answering(
        questions,
        scored.likeliest.double().numpy(),
        np.array([float(one.ids == questions.usual[one.relation]) for one in asked]),
        scored.log_probability.numpy(),
        np.log(guess),
    )
