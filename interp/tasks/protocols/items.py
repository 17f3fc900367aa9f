"""One prompt of a protocol, and a protocol's prompts with what is known about them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Item", "ProtocolItems", "check_apart", "shuffled"]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Item:
    """Hold one prompt and the concept that should be read out of its last token.

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


@dataclass(frozen=True, eq=False)
class ProtocolItems:
    """Hold a protocol's prompts.

    Attributes:
        items: the prompts, training first.
        concepts: every concept a probe may name.
        notes: what the drawing could not do as asked.
    """

    items: tuple[Item, ...]
    concepts: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def part(self, name: Part) -> tuple[Item, ...]:
        """Give one part."""
        return tuple(item for item in self.items if item.part == name)

    @functools.cached_property
    def trained(self) -> frozenset[str]:
        """Give the concepts that are an answer in training."""
        return frozenset(item.answer for item in self.items if item.part == "train")

    def ceiling(self) -> float:
        """Give the test accuracy of an ideal knower of the training part that never sees the model.

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
    if item.candidates:
        return 1.0 if len(item.candidates) == 1 else 1 / len(item.candidates)
    return float(guess == item.answer)


def shuffled(values: Sequence[str], seed: int) -> list[str]:
    """Give the values, sorted and then shuffled by the seed alone."""
    import random

    found = sorted(set(values))
    random.Random(f"{seed}:{len(found)}").shuffle(found)
    return found


def parts_of(values: Sequence[str], shares: tuple[float, float, float], seed: int) -> dict[str, Part]:
    """Share values out over the parts."""
    order = shuffled(values, seed)
    first, second = shares[0] * len(order), (shares[0] + shares[1]) * len(order)
    return {
        value: "train" if i < first else "validation" if i < second else "test"
        for i, value in enumerate(order)
    }


def check_apart(found: ProtocolItems, key: Callable[[Item], str]) -> ProtocolItems:
    """Give the items back if no key of a test or validation item is one of training.

    Raises:
        ValueError: a key straddles; the drawing is wrong.
    """
    known = {key(item) for item in found.part("train")}
    for item in found.items:
        if item.part != "train" and key(item) in known:
            raise ValueError(f"{key(item)!r} is in training and in {item.part}: {item.text!r}.")
    return found
