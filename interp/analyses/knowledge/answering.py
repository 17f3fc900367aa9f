"""Findings about the answers themselves: right or not, how likely, by relation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.knowledge.questions import Questions
from interp.models.model import Model
from interp.results.findings import Finding

__all__ = ["Answering", "answering"]

ENOUGH = 40
"""Questions from which a relation has a finding of its own: of fewer, the interval alone decides nothing."""
SATURATED = 0.9


@dataclass(frozen=True, eq=False)
class Answering:
    """Hold how a model answers each question.

    Attributes:
        questions: what was asked.
        right: 1 where the answer's first token is the likeliest, else 0.
        usual: 1 where the relation's most frequent answer is right, else 0.
        log_probability: of the answer's first token, in nats.
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
                about="of the answer's first token; control: a guess among the answers to the relation",
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
            about="the answer's first token is the likeliest; control: always the relation's usual answer",
            direction=1,
        )

    def facts(self, reference: Answering) -> dict[str, Any]:
        """Give every relation with its loss from the reference, and the loss by saturation there.

        Args:
            reference: the answers of the reference model to the same questions.
        """
        relations: dict[str, Any] = {}
        for name in self.questions.relations:
            at = self.rows(name)
            before = float(reference.right[at].mean())
            lost = reference.log_probability - self.log_probability
            relations[name] = {
                "n": len(at),
                "accuracy": float(self.right[at].mean()),
                "always the usual answer": float(self.usual[at].mean()),
                "log_probability": float(self.log_probability[at].mean()),
                "accuracy of the reference": before,
                "saturated": before >= SATURATED,
                "drop of accuracy": before - float(self.right[at].mean()),
                "drop of log-probability": float(lost[at].mean()),
            }
        return {"relations": relations, "drops": {part: _mean(relations, part) for part in PARTS}}


PARTS = {"saturated": True, "not saturated": False}


def _mean(relations: dict[str, Any], part: str) -> dict[str, float | int] | None:
    """Average the drops of the relations that the reference knows (nearly) all of, or of the others."""
    rows = [row for row in relations.values() if row["saturated"] == PARTS[part]]
    if not rows:
        return None
    names = ("drop of accuracy", "drop of log-probability")
    return {"relations": len(rows), **{name: float(np.mean([row[name] for row in rows])) for name in names}}


def answering(model: Model, questions: Questions) -> Answering:
    """Ask all questions.

    Args:
        model: what is run, once.
        questions: with the tokens of their answers.
    """
    asked = questions.asked
    logits = model.logits([one.prompt for one in asked])
    tokens = torch.tensor([one.token for one in asked], device=logits.device)
    logs = logits.double().log_softmax(dim=1)
    pairs = Counter((one.relation, one.token) for one in asked)
    sizes, chance = Counter(one.relation for one in asked), 1 / logits.shape[1]
    guess = [
        max(chance, pairs[one.relation, one.token] / sizes[one.relation])
        if sizes[one.relation] > 1
        else chance
        for one in asked
    ]
    return Answering(
        questions,
        (logits.argmax(dim=1) == tokens).double().cpu().numpy(),
        np.array([float(one.token == questions.usual[one.relation]) for one in asked]),
        logs.gather(1, tokens[:, None])[:, 0].cpu().numpy(),
        np.log(guess),
    )
