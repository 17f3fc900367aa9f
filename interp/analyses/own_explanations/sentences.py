"""Sentences with one of two labels, a chat model's own answer to each, and what it writes about them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from interp.errors import ConfigError, DataError
from interp.models.model import Model
from interp.paths import assets
from interp.tasks.files import cell, rows_of

__all__ = ["Asked", "Sentence", "Sentences", "asked", "words_of", "written"]

QUOTES = "\"' \u201c\u201d\u2018\u2019"
MARKS = ".,;:!?()[]" + QUOTES


@dataclass(frozen=True)
class Sentence:
    """A sentence with its label.

    Attributes:
        text: the sentence.
        label: one of the two labels; a model is asked which of them the sentence is.
        cue: the words that make it so, separated by blanks; "" where nobody marked them.
    """

    text: str
    label: str
    cue: str = ""


Sentences = Sequence[Sentence] | str | Path | None
"""Sentences, or a ``.csv``, ``.tsv`` or ``.jsonl`` file of text, label and, if wanted, cue; or None."""


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without the marks around them."""
    return [word for word in (part.strip(MARKS).lower() for part in text.split()) if word]


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of every model alike.

    Attributes:
        sentences: with their labels.
        labels: the two words that are asked for.
        tokens: of each label the tokens that an answer with it may begin with.
    """

    sentences: tuple[Sentence, ...]
    labels: tuple[str, str]
    tokens: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def texts(self) -> list[str]:
        """The sentences."""
        return [one.text for one in self.sentences]

    @property
    def groups(self) -> tuple[str, ...]:
        """Each sentence is a group."""
        return tuple(f"sentence {at}" for at in range(len(self.sentences)))

    def question(self, text: str, *, order: tuple[str, str] | None = None) -> list[dict[str, str]]:
        """The question for the label of a text, as a conversation."""
        first, second = order or self.labels
        content = f'Is this sentence {first} or {second}?\n"{text}"\nAnswer with one word.'
        return [{"role": "user", "content": content}]

    def odds(self, model: Model, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """The log-odds of the first label over the second, in nats, the mean over both orders of asking.

        Args:
            model: what is asked.
            texts: about which.
        """
        found = []
        for order in (self.labels, (self.labels[1], self.labels[0])):
            logits = model.logits([self.question(text, order=order) for text in texts]).double().cpu()
            one, two = (torch.logsumexp(logits[:, list(ids)], dim=1) for ids in self.tokens)
            found.append((one - two).numpy())
        return np.mean(found, axis=0)

    def named(self, odds: float) -> tuple[str, str]:
        """The label that a model gives, and the other one."""
        return self.labels if odds > 0 else (self.labels[1], self.labels[0])


def asked(model: Model, data: Sentences, *, n: int, seed: int) -> Asked:
    """Draw sentences of both labels in equal parts; nothing depends on the weights.

    Args:
        model: whose tokenizer, and template of conversations.
        data: the user's own, or a table of them; the bundled ones where left out.
        n: how many at most.
        seed: of the draw.

    Raises:
        ConfigError: fewer than two asked.
        DataError: no conversation can be had with this model, or there are no two labels that it tells apart.
    """
    if n < 2:
        raise ConfigError(f"n={n} sentences asked; ask for at least 2.")
    words: Any = model.tokenizer
    if not getattr(words, "chat_template", None):
        raise DataError(
            f"{model.name!r} has no template for conversations, and cannot be asked about its answers. "
            "Take a chat model, such as smollm2."
        )
    place = assets("opinions", "sentences.csv") if data is None else data
    given = _read(Path(place)) if isinstance(place, str | Path) else list(place)
    labels = tuple(dict.fromkeys(one.label for one in given))
    if len(labels) != 2:
        raise DataError(f"sentences with the labels {list(labels)} given; exactly two labels are needed.")
    rng, parts = random.Random(f"sentences:{seed}"), []
    for label in labels:
        own = [one for one in given if one.label == label]
        parts.append(rng.sample(own, len(own)))
    turns = [one for at in range(max(map(len, parts))) for part in parts for one in part[at : at + 1]]
    ids = [_first(words, label) for label in labels]
    if ids[0] & ids[1] or not all(ids):
        raise DataError(
            f"the labels {labels[0]!r} and {labels[1]!r} begin with one token, or with none the tokenizer "
            "knows; take other words."
        )
    return Asked(tuple(turns[:n]), (labels[0], labels[1]), (tuple(sorted(ids[0])), tuple(sorted(ids[1]))))


def _first(words: Any, label: str) -> set[int]:
    """The tokens that an answer may begin with: the word in small letters, or with a capital."""
    forms = (words(form, add_special_tokens=False)["input_ids"] for form in (label, label.capitalize()))
    return {ids[0] for ids in forms if ids and ids[0] != words.unk_token_id}


def _read(path: Path) -> list[Sentence]:
    """The rows of a table with the columns text and label, and cue if wanted."""
    return [
        Sentence(
            cell(path, line, row, "text"), cell(path, line, row, "label"), str(row.get("cue") or "").strip()
        )
        for line, row in rows_of(path, ("text", "label"))
    ]


def written(model: Model, talks: Sequence[Any], *, max_new_tokens: int) -> list[str]:
    """The first line that a model answers, likeliest token by token, without quotes around it.

    Args:
        model: what writes.
        talks: conversations that end with a user's message.
        max_new_tokens: at most.
    """
    texts = model.generate(list(talks), max_new_tokens=max_new_tokens, stop="\n").texts
    lines = ([line.strip(QUOTES) for line in text.splitlines() if line.strip(QUOTES)] for text in texts)
    return [found[0] if found else "" for found in lines]
