"""Concepts before and after generating: what the state holds when a question is read, and when answered.

*Before* is the last token of the question; *after* is the state that produced the last new token (that token
itself is never processed). Both are read with the same probe, which was trained on other prompts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float

from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About, Figure, Number, Result, Table
from interp.tasks import few_shot, load_world
from interp.tasks.prompts import text_sha256
from interp.tasks.world import World
from probes.hyperdimensional import HyperdimensionalProbe
from probes.statistics import Estimate, bootstrap, paired_difference

__all__ = [
    "Answered",
    "GenerationResult",
    "Measure",
    "Reply",
    "answered",
    "bundled_questions",
    "probe_generation",
    "standing",
]

MOST = 5
ENDS = (".", "\n")
COLUMNS = ("name", "value", "low", "high", "by_luck", "difference", "difference_low", "difference_high")


@dataclass(frozen=True)
class Reply:
    """What was read around one answer.

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
        """Whether the right answer stands in the new text, as whole words."""
        return bool(standing((self.answer,), self.generated))

    @property
    def gained(self) -> tuple[str, ...]:
        """The concepts read after and not before."""
        return tuple(name for name in self.after if name not in self.before)

    @property
    def lost(self) -> tuple[str, ...]:
        """The concepts read before and not after."""
        return tuple(name for name in self.before if name not in self.after)

    def redacted(self) -> Reply:
        """The same with the sha256 of each text in its place."""
        texts = {name: text_sha256(getattr(self, name)) for name in ("question", "answer", "generated")}
        return replace(self, **texts)


@dataclass(frozen=True)
class Measure:
    """A mean over questions: a Jaccard overlap of concepts, or a share of questions.

    Attributes:
        found: the mean with its interval.
        by_luck: the same overlap with the question or answer of *another* question; None for what is no
            overlap with a question or an answer.
        difference: the paired difference of the two.
    """

    found: Estimate
    by_luck: Estimate | None = None
    difference: Estimate | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GenerationResult(Result):
    """The concepts read around many answers.

    Attributes:
        layer: what was read.
        threshold: similarity below which nothing counts as read.
        replies: one per question.
        scores: name -> what was measured over the questions.
    """

    schema: ClassVar[str] = "interp.generation/2"
    layer: int
    threshold: float
    replies: tuple[Reply, ...]
    scores: Mapping[str, Measure]

    def question(self) -> str:
        """What is asked of the states."""
        return f"What does layer {self.layer} hold before and after the answer? ({self.about.words})"

    def verdict(self) -> str:
        """Whether the right answer is read before and after it is said."""
        before, after = (_beside(self.scores[f"{when} and answer"]) for when in ("before", "after"))
        return (
            f"Over {counted(len(self.replies), 'question')}, concepts read before the answer overlap with "
            "its own by "
            f"{before}, those read after it by {after}."
        )

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        return (
            f"{counted(len(self.replies), 'question was', 'questions were')} answered greedily. Concepts "
            "were read from layer "
            f"{self.layer} at the last token of the question, and at the state that produced the last new "
            f"token; those with a similarity above {self.threshold:.3f} count as read. Overlaps are those of "
            "Jaccard, from 0 to 1; luck is the overlap with another question, or with its answer.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Every mean over the questions, and what a similarity has to reach."""
        found = (
            Number(name.replace(" ", "-"), *_ends(one.found), meaning=_luck(one))
            for name, one in self.scores.items()
        )
        return (
            *found,
            Number(
                "threshold",
                self.threshold,
                meaning="95% of validation states with exchanged coordinates stay below",
            ),
        )

    def tables(self) -> tuple[Table, ...]:
        """The means over questions, and every reply."""
        rows = [
            (name, *_ends(one.found), one.by_luck and one.by_luck.value, *_ends(one.difference))
            for name, one in self.scores.items()
        ]
        note = (
            f"Jaccard overlaps of the concepts above {self.threshold:.3f}, and shares of questions; by luck: "
            "with another question, or its answer. Intervals: 95%, over questions."
        )
        title = "Concepts read before and after the answer"
        sets = ("before", "after", "gained", "lost")
        replies = [
            (
                one.question,
                one.generated,
                one.answer,
                one.mentioned,
                *(", ".join(getattr(one, name)) for name in sets),
            )
            for one in self.replies
        ]
        columns = ("question", "generated", "answer", "mentioned", *sets)
        return (
            Table("scores", title, COLUMNS, rows, note, narrow=("by_luck",)),
            Table(
                "replies",
                "The replies",
                columns,
                replies,
                narrow=("mentioned", "lost", "gained", "generated"),
            ),
        )

    def figures(self) -> tuple[Figure, ...]:
        """The overlaps beside luck."""
        rows: list[tuple[str, float, float, float, int]] = []
        for name, one in self.scores.items():
            rows.append((name, one.found.value, one.found.interval.low, one.found.interval.high, 0))
            if (luck := one.by_luck) is not None:
                rows.append((f"{name}, by luck", luck.value, luck.interval.low, luck.interval.high, -1))
        columns = ("name", "value", "low", "high", "colour")
        data: dict[str, tuple[Any, ...]] = dict(zip(columns, zip(*rows, strict=True), strict=True))
        caption = f"{counted(len(self.replies), 'question')}. Intervals: 95%."
        title = "Concepts before and after the answer"
        return (Figure("scores", "intervals", data, title, caption, x="share", limits=(0.0, 1.02)),)


def _luck(one: Measure) -> str:
    return "" if one.by_luck is None else f"by luck {one.by_luck.value:.2f}"


def _beside(one: Measure) -> str:
    return f"{one.found} ({_luck(one)})"


def _ends(found: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if found is None else (found.value, found.interval.low, found.interval.high)


def bundled_questions(n: int = 200, *, seed: int = 0, world: World | None = None) -> list[tuple[str, str]]:
    """Statements of facts, the bundled ones where none are given, cut before the answer, with the answer."""
    world = load_world() if world is None else world
    facts, rng = list(world.all_facts), random.Random(f"questions:{seed}")
    asked = rng.sample(facts, min(n, len(facts)))
    stated = [(few_shot.statements(world, fact, facts, rng), fact.object) for fact in asked]
    return [(texts[0], answer) for texts, answer in stated if texts]


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
        raise ConfigError(
            f"{counted(len(questions), 'question')}; give at least 2, so that luck can be measured."
        )
    for number, (question, answer) in enumerate(questions):
        if not question.strip() or not answer.strip():
            raise DataError(f"question {number} is empty or has no answer; leave it out.")
    made = answered(
        model,
        [question for question, _ in questions],
        layer,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    before, threshold = _read(probe, made.before)
    after, _ = _read(probe, made.after)
    names = probe.codebook_.names
    replies = tuple(
        Reply(question, answer, made.said[at], before[at], after[at], found[0], found[1])
        for at, (question, answer) in enumerate(questions)
        for found in [(standing(names, question), standing(names, answer))]
    )
    unknown = sum(not reply.wanted for reply in replies)
    notes = (
        (f"{unknown} of {counted(len(replies), 'answer')} hold no concept of the codebook",)
        if unknown
        else ()
    )
    return GenerationResult(
        about=About(model.described, {"name": "questions", "n": len(replies)}),
        seed=seed,
        layer=layer,
        threshold=threshold,
        replies=replies,
        scores=_scores(replies, seed),
        warnings=notes,
    )


@dataclass(frozen=True, eq=False)
class Answered:
    """Greedy answers, and the states around them.

    Attributes:
        said: the new text of each prompt, to the end of its first sentence.
        before: the state at the last token of the prompt.
        after: the state that produced the last new token.
    """

    said: tuple[str, ...]
    before: Float[torch.Tensor, "example d_model"]
    after: Float[torch.Tensor, "example d_model"]


def answered(
    model: Model,
    prompts: Sequence[str],
    layer: int,
    *,
    max_new_tokens: int = 4,
    batch_size: str | int = "auto",
) -> Answered:
    """Answer prompts greedily, and keep the states of a layer before and after.

    Args:
        model: what answers.
        prompts: texts.
        layer: whose ``resid_post`` is kept.
        max_new_tokens: at most.
        batch_size: prompts per pass.
    """
    site = f"resid_post.{layer}"
    made = model.generate(list(prompts), max_new_tokens=max_new_tokens, capture=[site], batch_size=batch_size)
    assert made.activations is not None
    states = made.activations[site].to("cpu", torch.float32)
    last = torch.tensor([_end(model, ids) for ids in made.token_ids])
    said = [_text(model, ids[: end + 1]) for ids, end in zip(made.token_ids, last.tolist(), strict=True)]
    return Answered(tuple(said), states[:, 0], states[torch.arange(len(states)), last])


def _text(model: Model, ids: Sequence[int]) -> str:
    assert model.tokenizer is not None
    return str(model.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def _end(model: Model, ids: Sequence[int]) -> int:
    """The step that ends the first sentence, or the last one."""
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


def standing(names: Sequence[str], text: str) -> tuple[str, ...]:
    """The concepts that stand in a text as whole words."""
    padded = f" {_plain(text)} "
    return tuple(name for name in names if _plain(name) and f" {_plain(name)} " in padded)


def _jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    union = set(one) | set(other)
    return len(set(one) & set(other)) / len(union) if union else 0.0


def _scores(replies: tuple[Reply, ...], seed: int) -> dict[str, Measure]:
    groups = [reply.question for reply in replies]
    others = _others(len(replies), seed)
    scores: dict[str, Measure] = {}
    for when in ("before", "after"):
        for what, field in (("question", "asked"), ("answer", "wanted")):
            own = np.array([_jaccard(getattr(r, when), getattr(r, field)) for r in replies])
            luck = np.array(
                [
                    _jaccard(getattr(r, when), getattr(replies[o], field))
                    for r, o in zip(replies, others, strict=True)
                ]
            )
            scores[f"{when} and {what}"] = Measure(
                bootstrap(own, groups=groups, seed=seed, support="share"),
                bootstrap(luck, groups=groups, seed=seed, support="share"),
                paired_difference(own, luck, groups=groups, seed=seed),
            )
    both = np.array([_jaccard(reply.before, reply.after) for reply in replies])
    scores["before and after"] = Measure(bootstrap(both, groups=groups, seed=seed, support="share"))
    for name, values in (
        ("answer generated", [reply.mentioned for reply in replies]),
        ("nothing read before", [not reply.before for reply in replies]),
        ("nothing read after", [not reply.after for reply in replies]),
    ):
        found = bootstrap(np.array(values, dtype=np.int64), groups=groups, seed=seed)
        scores[name] = Measure(found)
    return scores


def _others(n: int, seed: int) -> list[int]:
    """Pair every question with another one: a random cycle."""
    order = list(range(n))
    random.Random(f"others:{seed}").shuffle(order)
    following = {order[at]: order[(at + 1) % n] for at in range(n)}
    return [following[at] for at in range(n)]
