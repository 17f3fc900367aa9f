"""Claim: a wrong answer is read before it is given; and what wrongly answered prompts hold, by kind.

As the failure reports of Bronzini et al. 2025 (arXiv 2509.25045), over sets of concepts, before the first new
token and after the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.claims.evidence import Evidence, Setting
from interp.analyses.claims.peeling import SetReader, Sets, nearest
from interp.analyses.concepts.generation import Answered, answered, standing
from interp.analyses.concepts.trial import codebook_of
from interp.errors import DataError, counted
from interp.tasks.items import Item
from interp.tasks.protocols import PROTOCOLS
from probes.arrays import Inputs
from probes.controls import bag_of_tokens
from probes.vsa import Codebook

__all__ = ["KINDS", "failures"]

LEAST = 10
OWN = "sets, by peeling"
States = Float[torch.Tensor, "example d_model"]


def _example(item: Item) -> tuple[str, ...]:
    return item.shown or ()


def _context(item: Item, names: tuple[str, ...]) -> tuple[str, ...]:
    """The concepts read that stand in the prompt and are neither its answer nor of its example."""
    return tuple(
        name for name in standing(names, item.text) if name not in _example(item) and name != item.answer
    )


def _outside(item: Item, names: tuple[str, ...]) -> bool:
    return len(set(names) - {item.answer, *_example(item), *_context(item, names)}) > 0


KINDS: dict[str, Callable[[Item, tuple[str, ...]], bool]] = {
    "the target": lambda item, names: item.answer in names,
    "the example": lambda item, names: bool(set(_example(item)) & set(names)),
    "other words of the context": lambda item, names: bool(_context(item, names)),
    "out of context": _outside,
    "nothing": lambda item, names: not names,
}
"""What the concepts that are read out of one state may hold; one state may hold several."""


@dataclass(frozen=True, eq=False)
class Wrong:
    """The test prompts that the model answers wrong.

    Attributes:
        rows: these prompts, among all that were drawn.
        items: the prompts.
        answers: what the model says, and the states around it.
        told: the concept that each reply names first; "" where it names none.
        asked: how many prompts were answered.
    """

    rows: list[int]
    items: list[Item]
    answers: Answered
    told: list[str]
    asked: int

    @classmethod
    def of(cls, setting: Setting, items: Sequence[Item], names: Sequence[str]) -> Wrong:
        """Answer the test prompts, and keep those whose reply does not hold the answer.

        Raises:
            DataError: fewer than ``LEAST`` replies name another concept.
        """
        test = [row for row, item in enumerate(items) if item.part == "test"]
        made = answered(setting.model, [items[row].text for row in test], setting.layer)
        kept = [at for at, row in enumerate(test) if not standing((items[row].answer,), made.said[at])]
        said = tuple(made.said[at] for at in kept)
        told, rows = [_first(names, text) for text in said], [test[at] for at in kept]
        if sum(map(bool, told)) < LEAST:
            raise DataError(
                f"of {counted(len(test), 'prompt')} for the claim 'failures', {len(kept)} are answered "
                f"wrong, {sum(map(bool, told))} of them with another concept; at least {LEAST} are needed. "
                "Give more prompts, or leave the claim out."
            )
        answers = Answered(said, made.before[kept], made.after[kept])
        return cls(rows, [items[row] for row in rows], answers, told, len(test))

    @property
    def naming(self) -> list[int]:
        """Which of them are answered with another concept."""
        return [at for at, name in enumerate(self.told) if name]

    def foretold(self, read: Sets) -> Int[np.ndarray, " example"]:
        """1 where the concept that is going to be said is among those read."""
        return np.array([int(self.told[at] in read[at]) for at in self.naming])


def failures(setting: Setting) -> Evidence:
    """Train on the sets of concepts of analogies, and read prompts that the model answers wrong.

    What counts as right can be checked without knowing what a state holds: the concept that the model is
    about to say in place of the answer is among those read.

    Raises:
        DataError: too few wrong answers.
    """
    row = PROTOCOLS["pair-disjoint"]
    drawn = row.items(seed=setting.seed, sizes=setting.sizes)
    book = codebook_of(
        setting.model, drawn.concepts, "embeddings", dimension=setting.dimension, seed=setting.seed
    )
    wrong = Wrong.of(setting, drawn.items, drawn.concepts)
    texts = [item.text for item in drawn.items]
    states = setting.states(texts)
    own = _fitted(setting, drawn.items, states, book)
    permuted = _fitted(setting, drawn.items, states, book.permuted(setting.seed), own.pull)
    order = _others(len(wrong.rows), setting.seed)

    def translated(X: States, counts: list[int]) -> Sets:
        return nearest(setting.final_states(X) @ _rows(book).T, book.names, counts)

    readers: dict[str, Callable[[States, list[int]], Sets]] = {
        "another prompt's state": lambda X, _: own.read(X[order]),
        "a permuted codebook": lambda X, _: permuted.read(X),
        "the same map without the algebra": own.plainly,  # the ablation, named in advance
        "the translator, as many": translated,
    }
    read: dict[tuple[str, str], Sets] = {}
    for when, X in (("before", wrong.answers.before), ("after", wrong.answers.after)):
        read[OWN, when] = own.read(X)
        counts = [len(names) for names in read[OWN, when]]
        read |= {(name, when): reader(X, counts) for name, reader in readers.items()}
    before = {name: wrong.foretold(read[name, "before"]) for name in (OWN, *readers)}
    controls = {name: before[name] for name in list(readers)[:2]}
    counts = [len(names) for names in read[OWN, "before"]]
    return Evidence(
        "the wrong answer that the model is about to give, among the concepts read",
        before[OWN],
        controls | _without_the_model(setting, drawn.items, book, wrong, own.pull),
        {name: before[name] for name in list(readers)[2:]},
        [wrong.items[at].fact for at in wrong.naming],
        note=f"{len(wrong.rows)} of {wrong.asked} prompts were answered wrong, {len(wrong.naming)} of these "
        f"with another concept; {np.mean(counts):.1f} concepts were read of a state, and plain readers give "
        "as many",
        held={
            (name, when, kind): np.array(
                [int(holds(item, one)) for item, one in zip(wrong.items, found, strict=True)]
            )
            for (name, when), found in read.items()
            for kind, holds in KINDS.items()
        },
        held_groups=[item.fact for item in wrong.items],
    )


def _without_the_model(
    setting: Setting, items: Sequence[Item], book: Codebook, wrong: Wrong, pull: float
) -> dict[str, Int[np.ndarray, " example"]]:
    """Probes of random weights and of the words of the prompt, trained alike."""
    texts = [item.text for item in items]
    tokens = setting.model.tokenize(texts).token_ids
    known = sorted(
        {token for ids, item in zip(tokens, items, strict=True) if item.part == "train" for token in ids}
    )
    given: dict[str, Inputs] = {
        "random weights": setting.untrained.states(texts),
        "a bag of words": bag_of_tokens(tokens, vocabulary=known),
    }
    return {
        name: wrong.foretold(_fitted(setting, items, X, book, pull).read(X[wrong.rows]))
        for name, X in given.items()
    }


def _fitted(
    setting: Setting, items: Sequence[Item], X: Inputs, book: Codebook, pull: float | None = None
) -> SetReader:
    members = [tuple(dict.fromkeys((*_example(item), item.subject, item.answer))) for item in items]
    rows = {
        part: [row for row, item in enumerate(items) if item.part == part] for part in ("train", "validation")
    }
    return SetReader.fitted(book, X, members, rows, seed=setting.seed, regularisation=pull)


def _rows(book: Codebook) -> Float[torch.Tensor, "concept d_model"]:
    assert book.embeddings is not None  # it was made from them
    return book.embeddings


def _first(names: Sequence[str], text: str) -> str:
    """The concept that a text names first, the longest of several; "" for none."""
    found = standing(names, text)
    return min(found, key=lambda name: (text.casefold().find(name.casefold()), -len(name)), default="")


def _others(n: int, seed: int) -> list[int]:
    """Another row for each row."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    found = torch.empty_like(order)
    found[order] = order.roll(1)
    return found.tolist()
