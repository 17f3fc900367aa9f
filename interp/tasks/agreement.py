"""Subject-verb agreement with an attractor.

'the farmer near the dogs' -> is, has, runs; never are, have, run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from interp.tasks.prompts import Example, PairTexts
from interp.tasks.splits import Split, in_split
from interp.tasks.world import World

__all__ = ["TEMPLATES", "Number", "example", "generate", "pairs"]

Number = Literal["singular", "plural"]

TEMPLATES: dict[str, str] = {
    "near": "the {noun} near the {attractor}",
    "behind": "the {noun} behind the {attractor}",
    "with": "the {noun} with the {attractor} today",
    "that": "the {noun} that the {attractor} liked",
    "who": "the {noun} who saw the {attractor}",
    "simple": "we know that the {noun}",
}


def example(
    world: World, template: str, *, noun: str, attractor: str, number: Number, answer: str
) -> Example:
    """Start a sentence whose verb must agree with ``noun`` and not with ``attractor``."""
    column = 0 if number == "singular" else 1
    return Example(
        prompt=TEMPLATES[template].format(noun=noun, attractor=attractor),
        answer=answer,
        task="agreement",
        template=template,
        group=f"{noun}|{attractor}",
        label=number,
        correct=world.column("verbs_agreement", column),
        wrong=world.column("verbs_agreement", 1 - column),
        variables=(("noun", noun), ("attractor", attractor)),
    )


def generate(world: World, rng: random.Random, split: Split) -> Example:
    """Draw a subject and an attractor, each singular or plural, whose pair belongs to the split."""
    rows = world.lists["animate_nouns"]
    while True:
        subject, other = rng.sample(rows, 2)
        if not in_split(split, "agreement", subject[0], other[0]):
            continue
        column = rng.randrange(2)
        number: Number = "singular" if column == 0 else "plural"
        return example(
            world,
            rng.choice(tuple(TEMPLATES)),
            noun=subject[column],
            attractor=other[rng.randrange(2)],
            number=number,
            answer=rng.choice(world.column("verbs_agreement", column)),
        )


def labels(world: World, rng: random.Random) -> Iterator[Example]:
    """Yield trained prompts without end; the label is the number of the subject."""
    while True:
        yield generate(world, rng, "train")


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[PairTexts]:
    """Yield pairs without end: the number of the subject, or of the noun beside it, is changed.

    Answers are the verbs of the subject's number.
    """
    nouns = world.lists["animate_nouns"]
    with_attractor = [text for text in TEMPLATES.values() if "{attractor}" in text]
    while True:
        subject, other = rng.sample(nouns, 2)
        number, beside = rng.randrange(2), rng.randrange(2)
        template = rng.choice(with_attractor if kind == "attractor" else list(TEMPLATES.values()))
        changed = (number, 1 - beside) if kind == "attractor" else (1 - number, beside)
        clean, corrupt = (
            template.format(noun=subject[own], attractor=other[its])
            for own, its in ((number, beside), changed)
        )
        answers, foils = (world.column("verbs_agreement", column) for column in (number, 1 - number))
        named = "null" if kind == "attractor" else kind
        yield PairTexts(clean, corrupt, answers, foils, named, f"{subject[0]}|{other[0]}")
