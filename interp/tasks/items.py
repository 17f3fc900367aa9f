"""The prompts of a protocol as values, and how facts are shared out over training, validation and test."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from interp.tasks.prompts import text_sha256

__all__ = ["Item", "Part", "ProtocolItems", "Sizes", "check_apart", "given_away", "parts_of"]

Part = Literal["train", "validation", "test", "unanswered", "train-unanswered", "validation-unanswered"]
"""``unanswered`` are test prompts that the model, asked first, answers wrong."""
Sizes = tuple[int, int, int]
"""Prompts for training, validation and test, at most."""


@dataclass(frozen=True)
class Item:
    """One prompt and the concept that should be read out of its last token.

    Attributes:
        text: the prompt.
        answer: the concept to decode.
        relation: by which results are broken down.
        fact: what must not straddle parts, and over which intervals are drawn.
        part: train, validation or test.
        output: the text the model itself should produce; the answer, except in two-hop prompts.
        candidates: the concepts that the prompt alone narrows the answer to; empty where it narrows nothing.
        subject: whom the prompt asks about.
        shown: the example pair in the prompt, where there is one.
    """

    text: str
    answer: str
    relation: str
    fact: str
    part: Part
    output: str = ""
    candidates: tuple[str, ...] = ()
    subject: str = ""
    shown: tuple[str, str] | None = None

    def redacted(self) -> Item:
        """The same with the sha256 of its text in the text's place."""
        text = text_sha256(self.text)
        return replace(self, text=text, fact=text if self.fact == self.text else self.fact)


@dataclass(frozen=True, eq=False)
class ProtocolItems:
    """A protocol's prompts.

    Attributes:
        items: the prompts, training first.
        concepts: every concept a probe may name.
        notes: what the drawing could not do as asked.
    """

    items: tuple[Item, ...]
    concepts: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def part(self, name: Part) -> tuple[Item, ...]:
        """The prompts of one part."""
        return tuple(item for item in self.items if item.part == name)

    @functools.cached_property
    def trained(self) -> frozenset[str]:
        """The concepts that are an answer in training."""
        return frozenset(item.answer for item in self.items if item.part == "train")

    def ceiling(self) -> float:
        """The test accuracy of the best guess from the training part alone, without the model.

        It knows, for every relation, the commonest answer of the training part, and for every fact that was
        trained its answer; it takes the relation as given (the shown pair names it).
        """
        facts: dict[str, str] = {}
        counts: dict[str, dict[str, int]] = {}
        for item in self.part("train"):
            facts[item.fact] = item.answer
            found = counts.setdefault(item.relation, {})
            found[item.answer] = found.get(item.answer, 0) + 1
        commonest = {name: max(sorted(found), key=found.__getitem__) for name, found in counts.items()}
        guesses = [(facts.get(i.fact, commonest.get(i.relation)), i) for i in self.part("test")]
        return sum(_chance(guess, item) for guess, item in guesses) / max(1, len(guesses))


def _chance(guess: str | None, item: Item) -> float:
    return 1 / len(item.candidates) if item.candidates else float(guess == item.answer)


def given_away(answer: str, words: Sequence[str]) -> bool:
    """Whether an answer is a part of what the prompt says, as Singapore in a prompt about Singapore."""
    return f" {answer} ".casefold() in f" {' '.join(words)} ".casefold()


def parts_of(values: Sequence[str], shares: tuple[float, float, float], seed: int) -> dict[str, Part]:
    """Share the different values out over the parts, in an order shuffled by the seed alone."""
    order = sorted(set(values))
    random.Random(f"{seed}:{len(order)}").shuffle(order)
    first, second = shares[0] * len(order), (shares[0] + shares[1]) * len(order)
    return {
        value: "train" if i < first else "validation" if i < second else "test"
        for i, value in enumerate(order)
    }


def check_apart(found: ProtocolItems, key: Callable[[Item], str]) -> ProtocolItems:
    """Return the items if no key of a test or validation item is one of training.

    Raises:
        ValueError: a key straddles; the drawing is wrong.
    """
    known = {key(item) for item in found.part("train")}
    for item in found.items:
        if item.part != "train" and key(item) in known:
            raise ValueError(f"{key(item)!r} is in training and in {item.part}: {item.text!r}.")
    return found
