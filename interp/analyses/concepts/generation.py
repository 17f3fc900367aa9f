"""Concepts before and after generating: what the state holds when a question is read, and when answered.

*Before* is the last token of the question; *after* is the state that produced the last new token (that token
itself is never processed). Both are read with the same probe, which was trained on other prompts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp import results
from interp.errors import ConfigError, DataError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.tasks import load_world, one_hop
from interp.tasks.world import World
from probes.hyperdimensional import HyperdimensionalProbe
from probes.statistics import Estimate, bootstrap, paired_difference

if TYPE_CHECKING:
    import pandas

__all__ = ["GenerationResult", "Reply", "bundled_questions", "probe_generation"]

SCHEMA = "interp.generation/1"
MOST = 5
ENDS = (".", "\n")


@dataclass(frozen=True)
class Reply:
    """Hold what was read around one answer.

    Attributes:
        question: the prompt.
        answer: the right answer.
        generated: the new text.
        before: concepts claimed before the first new token, best first: above the threshold, and nothing
            where the state is unlike those that the probe was trained on.
        after: the same at the state that produced the last new token.
        asked: concepts that stand in the question.
        wanted: concepts that stand in the right answer.
    """

    question: str
    answer: str
    generated: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    asked: tuple[str, ...]
    wanted: tuple[str, ...]

    @property
    def mentioned(self) -> bool:
        """Say whether the right answer stands in the new text, as whole words."""
        return f" {_plain(self.answer)} " in f" {_plain(self.generated)} "

    @property
    def gained(self) -> tuple[str, ...]:
        """Give the concepts read after and not before."""
        return tuple(name for name in self.after if name not in self.before)

    @property
    def lost(self) -> tuple[str, ...]:
        """Give the concepts read before and not after."""
        return tuple(name for name in self.before if name not in self.after)


@dataclass(frozen=True, eq=False, repr=False)
class GenerationResult:
    """Hold the concepts read around many answers.

    Attributes:
        layer: what was read.
        threshold: similarity below which nothing counts as read.
        replies: one per question.
        scores: name -> mean over questions with its interval: Jaccard overlaps, and shares of questions.
        nulls: name -> the same overlap with the question or answer of *another* question: what agreement by
            luck scores; only for overlaps with questions and answers.
        differences: name -> the paired difference of the two.
        warnings: what a reader should know.
    """

    layer: int
    threshold: float
    replies: tuple[Reply, ...]
    scores: dict[str, Estimate]
    nulls: dict[str, Estimate]
    differences: dict[str, Estimate]
    warnings: tuple[str, ...] = ()

    def table(self) -> pandas.DataFrame:
        """Give one row per score: name, value, low, high, by_luck, difference and its interval."""
        import pandas

        rows: list[dict[str, Any]] = []
        for name, found in self.scores.items():
            null, change = self.nulls.get(name), self.differences.get(name)
            rows.append(
                {
                    "name": name,
                    "value": found.value,
                    "low": found.interval.low,
                    "high": found.interval.high,
                    "by_luck": None if null is None else null.value,
                    "difference": None if change is None else change.value,
                    "difference_low": None if change is None else change.interval.low,
                    "difference_high": None if change is None else change.interval.high,
                }
            )
        return pandas.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types, in stable keys."""
        replies = [
            {
                "question": reply.question,
                "answer": reply.answer,
                "generated": reply.generated,
                "mentioned": reply.mentioned,
                **{key: list(getattr(reply, key)) for key in ("before", "after", "gained", "lost")},
            }
            for reply in self.replies
        ]
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "layer": self.layer,
                "threshold": self.threshold,
                "n": len(self.replies),
                "scores": self.table().astype(object).where(self.table().notna(), None).to_dict("records"),
                "replies": replies,
                "warnings": list(self.warnings),
            }
        )
        return plain

    def __repr__(self) -> str:
        """Say in one line what was found."""
        before, after = self.scores["before and answer"], self.scores["after and answer"]
        return f"GenerationResult({len(self.replies)} questions, answer before {before}, after {after})"


def bundled_questions(n: int = 200, *, seed: int = 0, world: World | None = None) -> list[tuple[str, str]]:
    """Draw statements of the bundled facts, cut before the answer, with the answer."""
    facts = list((load_world() if world is None else world).all_facts)
    rng = random.Random(f"questions:{seed}")
    found: list[tuple[str, str]] = []
    for fact in rng.sample(facts, min(n, len(facts))):
        found.append((one_hop.example(fact, 0).prompt, fact.object))
    return found


def probe_generation(
    model: ModelLike,
    probe: HyperdimensionalProbe,
    questions: Sequence[tuple[str, str]],
    *,
    layer: int,
    max_new_tokens: int = 4,
    seed: int = 0,
    batch_size: str | int = "auto",
) -> GenerationResult:
    """Answer questions greedily and read the concepts before and after (probing of Bronzini et al. 2025, QA).

    Args:
        model: what answers; an answer ends with its first sentence, at ``max_new_tokens``, or with the
            end-of-sequence token.
        probe: of the layer, for bare concepts; its calibrated threshold decides what counts as read.
        questions: (question, answer).
        layer: whose ``resid_post`` is read.
        max_new_tokens: at most.
        seed: of the pairing by luck and of the intervals.
        batch_size: prompts per pass.

    Raises:
        ConfigError: fewer than two questions, or a probe without a threshold.
        DataError: an empty question or answer.
    """
    model = as_model(model)
    if len(questions) < 2:
        raise ConfigError(f"{len(questions)} questions; give at least 2, so that luck can be measured.")
    for number, (question, answer) in enumerate(questions):
        if not question.strip() or not answer.strip():
            raise DataError(f"question {number} is empty or has no answer; leave it out.")
    site = f"resid_post.{layer}"
    made = model.generate(
        [question for question, _ in questions],
        max_new_tokens=max_new_tokens,
        capture=[site],
        batch_size=batch_size,
    )
    assert made.activations is not None
    states = made.activations[site].to("cpu", torch.float32)
    last = torch.tensor([_end(model, ids) for ids in made.token_ids])
    said = [_text(model, ids[: end + 1]) for ids, end in zip(made.token_ids, last.tolist(), strict=True)]
    before, threshold = _read(probe, states[:, 0])
    after, _ = _read(probe, states[torch.arange(len(states)), last])
    names = probe.codebook_.names
    replies = tuple(
        Reply(question, answer, said[at], before[at], after[at], found[0], found[1])
        for at, (question, answer) in enumerate(questions)
        for found in [(_standing(names, question), _standing(names, answer))]
    )
    return _scored(replies, layer, threshold, seed)


def _text(model: Model, ids: Sequence[int]) -> str:
    assert model.tokenizer is not None
    return str(model.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def _end(model: Model, ids: Sequence[int]) -> int:
    """Give the step that ends the first sentence, or the last one."""
    assert model.tokenizer is not None
    texts = [str(model.tokenizer.decode([token])) for token in ids]
    return next((at for at, text in enumerate(texts) if any(mark in text for mark in ENDS)), len(ids) - 1)


def _read(probe: HyperdimensionalProbe, states: torch.Tensor) -> tuple[list[tuple[str, ...]], float]:
    read = probe.decode(states, k=MOST)
    if not np.isfinite(read.threshold):
        raise ConfigError(
            "the probe has no threshold, so that every concept would count as read; fit it again."
        )
    far = [False] * len(read) if read.unfamiliar is None else read.unfamiliar.tolist()
    kept = [
        () if unlike else tuple(name for name, value in row if value >= read.threshold)
        for row, unlike in zip(read, far, strict=True)
    ]
    return kept, read.threshold


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", text.casefold()).split())


def _standing(names: Sequence[str], text: str) -> tuple[str, ...]:
    """Give the concepts that stand in a text as whole words."""
    padded = f" {_plain(text)} "
    return tuple(name for name in names if _plain(name) and f" {_plain(name)} " in padded)


def _jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    union = set(one) | set(other)
    return len(set(one) & set(other)) / len(union) if union else 0.0


def _scored(replies: tuple[Reply, ...], layer: int, threshold: float, seed: int) -> GenerationResult:
    groups = [reply.question for reply in replies]
    others = _others(len(replies), seed)
    scores: dict[str, Estimate] = {}
    nulls: dict[str, Estimate] = {}
    changes: dict[str, Estimate] = {}
    for when in ("before", "after"):
        for what, field in (("question", "asked"), ("answer", "wanted")):
            name = f"{when} and {what}"
            own = np.array([_jaccard(getattr(r, when), getattr(r, field)) for r in replies])
            luck = np.array(
                [
                    _jaccard(getattr(r, when), getattr(replies[o], field))
                    for r, o in zip(replies, others, strict=True)
                ]
            )
            scores[name] = bootstrap(own, groups=groups, seed=seed, support="share")
            nulls[name] = bootstrap(luck, groups=groups, seed=seed, support="share")
            changes[name] = paired_difference(own, luck, groups=groups, seed=seed)
    both = np.array([_jaccard(reply.before, reply.after) for reply in replies])
    scores["before and after"] = bootstrap(both, groups=groups, seed=seed, support="share")
    for name, values in (
        ("answer generated", [reply.mentioned for reply in replies]),
        ("nothing read before", [not reply.before for reply in replies]),
        ("nothing read after", [not reply.after for reply in replies]),
    ):
        scores[name] = bootstrap(np.array(values, dtype=np.int64), groups=groups, seed=seed)
    unknown = sum(not reply.wanted for reply in replies)
    notes = (f"{unknown} of {len(replies)} answers hold no concept of the codebook",) if unknown else ()
    return GenerationResult(layer, threshold, replies, scores, nulls, changes, notes)


def _others(n: int, seed: int) -> list[int]:
    """Pair every question with another one: a random cycle."""
    order = list(range(n))
    random.Random(f"others:{seed}").shuffle(order)
    following = {order[at]: order[(at + 1) % n] for at in range(n)}
    return [following[at] for at in range(n)]
