"""Prompts as values: one with its answer, and many with labels."""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interp.errors import DataError, counted

if TYPE_CHECKING:
    from interp.models.tokens import Joint

__all__ = ["Example", "Labelled", "PairTexts", "text_sha256"]


@dataclass(frozen=True)
class Example:
    """A prompt, the one word that answers it, and what is needed to group and score it.

    Attributes:
        prompt: the text up to the answer.
        answer: the expected next word (one token of the bundled vocabulary).
        task: the generator's name, a key of ``interp.tasks.TASKS``.
        template: which of the task's templates was used.
        group: what must not straddle a split (the fact asked for, the pair of names, ...).
        label: what a probe may be asked to read (the relation, the number of the noun, ...).
        correct: all answers that count as right; ``(answer,)`` where only one does.
        wrong: the answers they are measured against; empty where the whole vocabulary is meant.
        more: further turns of the same prompt, each (text that follows, its answer).
        end: closing mark of the sentence.
        variables: the values the generator drew, for counterfactuals.
    """

    prompt: str
    answer: str
    task: str
    template: str
    group: str
    label: str = ""
    correct: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    more: tuple[tuple[str, str], ...] = ()
    end: str = "."
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """Every answer that counts as right."""
        return self.correct or (self.answer,)

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """(Text, answer) of the prompt and of everything that follows it."""
        return ((self.prompt, self.answer), *self.more)

    @property
    def text(self) -> str:
        """The whole sentence, answers and closing mark included."""
        return " ".join(part for turn in self.turns for part in turn if part) + f" {self.end}"


class PairTexts(NamedTuple):
    """The texts of one :class:`interp.pairs.Pair`, in its order, before any tokenizer is known."""

    clean: str
    corrupt: str
    answers: tuple[str, ...]
    foils: tuple[str, ...]
    kind: str = ""
    group: str = ""
    joint: Joint = "auto"


def text_sha256(text: str) -> str:
    """The sha256 of a text, in hexadecimal: what stands for a prompt that is not written down."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Labelled:
    """Prompts, their labels, and the groups that must not straddle a split.

    Attributes:
        name: the task, or the file's name.
        description: one sentence for tables and reports.
        texts: the prompts.
        labels: one label for each prompt.
        groups: one group for each prompt; resampling and splitting treat a group as one unit.
        splits: ``"train"``, ``"validation"``, ``"test"``, or ``""`` where the analysis is to decide.
        source: where it comes from: ``"task"`` or a path as the user gave it.
        grouped: False where no group was given, so that every prompt is a group of its own.
        messages: of conversations, per prompt its messages as JSON, of which ``texts`` is the transcript; ""
            for a text. () where no prompt is a conversation.
    """

    name: str
    description: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...]
    source: str = "task"
    grouped: bool = True
    messages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        lengths = {len(self.texts), len(self.labels), len(self.groups), len(self.splits)}
        if len(lengths) > 1:
            raise DataError(
                f"'{self.name}': texts, labels, groups, splits have {len(self.texts)}, {len(self.labels)}, "
                f"{len(self.groups)} and {counted(len(self.splits), 'entry', 'entries')}; give one of each "
                "for every prompt."
            )

    def __len__(self) -> int:
        """Count the prompts."""
        return len(self.texts)

    def __repr__(self) -> str:
        """Summarise, without the texts."""
        classes, groups = len(set(self.labels)), len(set(self.groups))
        return f"Labelled({self.name!r}, n={len(self)}, classes={classes}, groups={groups})"

    @functools.cached_property
    def prompts(self) -> tuple[Any, ...]:
        """What a model is given: each text, or the messages of a conversation."""
        if not self.messages:
            return self.texts
        return tuple(json.loads(m) if m else text for m, text in zip(self.messages, self.texts, strict=True))

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of everything that is read (texts, labels, groups, splits, messages)."""
        rows = [
            self.texts,
            self.labels,
            self.groups,
            self.splits,
            *([self.messages] if self.messages else []),
        ]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()

    @property
    def described(self) -> dict[str, Any]:
        """What a result or a run says about its prompts."""
        return {
            "name": self.name,
            "description": self.description,
            "source": Path(self.source).name,
            "n": len(self),
            "labels": len(set(self.labels)),
            "groups": len(set(self.groups)),
            "fingerprint": self.fingerprint,
        }

    def select(self, rows: Sequence[int]) -> Labelled:
        """Keep some prompts, in the order given."""
        columns = (
            tuple(column[row] for row in rows)
            for column in (self.texts, self.labels, self.groups, self.splits)
        )
        texts, labels, groups, splits = columns
        messages = tuple(self.messages[row] for row in rows) if self.messages else ()
        return replace(self, texts=texts, labels=labels, groups=groups, splits=splits, messages=messages)

    def redacted(self) -> Labelled:
        """The same with each prompt replaced by the sha256 of its text; its fingerprint is another."""
        texts = tuple(text_sha256(text) for text in self.texts)
        known = dict(zip(self.texts, texts, strict=True))  # a prompt may be its own group
        groups = tuple(known.get(group, group) for group in self.groups)
        return replace(self, texts=texts, groups=groups, messages=())

    def limit(self, n: int, *, seed: int = 0) -> Labelled:
        """Keep at most ``n`` prompts, drawn at random and left in order."""
        if n >= len(self):
            return self
        return self.select(sorted(random.Random(seed).sample(range(len(self)), n)))
