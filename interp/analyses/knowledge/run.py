"""The analysis ``recall``: are facts known, and which neurons and layers say so?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.analyses.knowledge.internals import Inside, inside
from interp.analyses.knowledge.questions import OwnFacts, Questions, ask
from interp.analyses.provenance import about, earlier
from interp.errors import ConfigError, counted
from interp.models.answers import score
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Cell, Table

__all__ = ["recall"]

ENOUGH = 40
"""Questions from which a relation has a finding of its own: of fewer, the interval alone decides nothing."""
SATURATED = 0.9


@dataclass(frozen=True, eq=False)
class Answering:
    """How a model answers each question.

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
        """The fact of each question."""
        return tuple(one.group for one in self.questions.asked)

    def rows(self, relation: str) -> list[int]:
        """The questions of a relation."""
        return [row for row, one in enumerate(self.questions.asked) if one.relation == relation]

    def overall(self) -> tuple[Finding, ...]:
        """Accuracy and log-probability over all questions."""
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
        """The accuracy of each relation that has enough questions, where there are several."""
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


THRESHOLDS = ("per-prompt", "pooled")


def recall(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 200,
    seed: int = 0,
    data: OwnFacts | None = None,
    relations: Sequence[str] | None = None,
    threshold: str = "per-prompt",
    top: int = 300,
    prompts: int = 24,
) -> FindingsResult:
    """Ask one-hop facts, and find what raises the log-probability of the answers.

    A neuron's importance is ``log p(w | base + v) - log p(w | base)``, read through the final norm and head,
    with ``v`` what the neuron writes and ``base`` the stream that enters the FFN (Yu and Ananiadou 2024,
    arXiv 2312.12141; Wang et al. 2025, arXiv 2505.13963, knowledge memorization analysis).

    Args:
        model: what is run.
        reference: the same analysis of another model, whose top neurons and threshold are taken; itself where
            left out.
        n: how many questions, relations in equal parts.
        seed: of the draw, and of the wrong answers that are asked about too.
        data: your own questions: prompts labelled with their answers, (prompt, answer[, relation]), or a file
            or folder of facts (``interp.tasks.read_facts``: a table, LRE, and others).
        relations: which of the relations of the bundled facts, four of them where left out; or of a file.
        threshold: the k-th best neuron of each prompt, or ``pooled`` over prompts.
        top: k, at most a tenth of all neurons.
        prompts: for how many of the questions neurons are measured.

    Returns:
        Accuracy (against always saying the relation's most frequent answer), log-probability of the answer in
        nats (against other answers to the relation), neurons above the threshold, overlap and rank
        correlation of neurons, accuracy by relation, and what attention and FFN of each layer add, in
        nats. Further tables: ``relations`` with losses from the reference, ``drops`` of the relations that
        the reference knows (nearly) all of and of the others, ``neurons``, and ``layers`` with all layers and
        what they add for a wrong answer.

    Raises:
        ConfigError: an option out of range, or a reference that asked other questions.
        DataError: no question can be asked of this tokenizer.
        SiteError: the model's final norm is unknown.
    """
    _check(threshold, top, prompts)
    model = as_model(model)
    questions = ask(model, data, relations, n=n, seed=seed)
    key = {"questions": questions.fingerprint, "top": top, "prompts": prompts, "seed": seed}
    before = None if reference is None else _same(reference, key)
    answers = answering(model, questions)
    within = inside(
        model,
        questions,
        questions.wrong(seed),
        top=top,
        prompts=prompts,
        reference=None if before is None else before[1],
    )
    known, other = (answers, within) if before is None else before
    found = (
        *answers.overall(),
        *within.neuron_findings(other, threshold),
        *answers.by_relation(),
        *within.curves(),
    )
    base = "resid_pre" if model.architecture.parallel else "resid_mid"
    n_asked = len(questions.asked)
    return FindingsResult(
        analysis="recall",
        about=about(model, {"n": n_asked, "prompts": prompts, "top": top, "threshold": threshold}),
        asked=f"Which facts does {model.name} know, and which neurons and layers say so?",
        how=(
            f"{counted(n_asked, 'question of one hop was', 'questions of one hop were')} asked. Neurons "
            f"were measured in {min(prompts, n_asked)} "
            f"of them: what each adds to the answer's log-probability when it is added to {base}.",
        ),
        found=found,
        more=(*answers.tables(known), *within.tables(other, threshold)),
        state={"key": key, "answers": answers, "inside": within},
        seed=seed,
        warnings=(*model.warnings, *questions.notes, *within.missing),
    )


def _check(threshold: str, top: int, prompts: int) -> None:
    if threshold not in THRESHOLDS:
        raise ConfigError(f"threshold {threshold!r} asked; use {' or '.join(THRESHOLDS)}.")
    if top < 1 or prompts < 1:
        raise ConfigError(f"top={top} neurons of prompts={prompts} asked; ask for at least 1 of each.")


def _same(reference: FindingsResult, key: dict[str, object]) -> tuple[Answering, Inside]:
    """Take the reference's numbers.

    Raises:
        ConfigError: of another analysis, without state, or made with other questions or options.
    """
    theirs = earlier(reference, "recall", "key")
    if other := [name for name, value in key.items() if theirs[name] != value]:
        raise ConfigError(
            f"recall: the reference was made with other {' and '.join(other)}. Use the same data, n, seed "
            "and options for both, and models that share a tokenizer."
        )
    return reference.state["answers"], reference.state["inside"]
