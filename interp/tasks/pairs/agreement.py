"""Pairs of subjects and verbs: the number of the subject, or of the noun beside it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.pairs import Pair
from interp.tasks.agreement import TEMPLATES
from interp.tasks.world import World

__all__ = ["pairs"]


def pairs(world: World, rng: random.Random, kind: str) -> Iterator[Pair]:
    """Yield pairs without end; answers are the verbs of the subject's number."""
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
        yield Pair(clean, corrupt, answers, foils, named, f"{subject[0]}|{other[0]}")
