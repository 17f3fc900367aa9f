"""Controls of a circuit in which there is nothing to find: an untrained model, and arbitrary labels.

Their total effect is near zero, so that no share of it means anything: ``m(C) - m(none)`` is reported in
units of the metric, beside ``m(all) - m(none)``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from interp.models.model import Model
from interp.pairs import PairSet

__all__ = ["UNMATCHED", "Unmatched"]


@dataclass(frozen=True)
class Unmatched:
    """Describe a control.

    Attributes:
        name: what users type.
        description: one line.
        missing: why there can be none.
        build: from the model, the pairs and a seed to those of the control; None where there is none.
    """

    name: str
    description: str
    missing: str
    build: Callable[[Model, PairSet, int], tuple[Model, PairSet] | None]


def _untrained(model: Model, pairs: PairSet, seed: int) -> tuple[Model, PairSet] | None:
    from interp.models.loading import load

    if model.weights == "random":
        return None
    return load(model.hf, weights="random", tokenizer=model.tokenizer), pairs


def _arbitrary(model: Model, pairs: PairSet, seed: int) -> tuple[Model, PairSet] | None:
    """Give each pair the answer and the foil of another one that has others, either way round."""
    rng, given = random.Random(f"labels:{seed}"), list(zip(pairs.answer_ids, pairs.foil_ids, strict=True))
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for answers, foils in given:
        own = {*answers, *foils}
        others = [other for other in given if not own & {*other[0], *other[1]}]
        if not others:
            return None
        one, two = rng.choice(others)
        found.append((one, two) if rng.random() < 0.5 else (two, one))
    answers, foils = zip(*found, strict=True)
    return model, replace(pairs, answer_ids=answers, foil_ids=foils)


_ROWS = (
    Unmatched(
        "random-weights", "the same architecture, untrained", "the model is untrained itself", _untrained
    ),
    Unmatched(
        "arbitrary-labels",
        "answer and foil of another pair, either way round",
        "a pair shares its answer or foil with every other one",
        _arbitrary,
    ),
)
UNMATCHED: dict[str, Unmatched] = {row.name: row for row in _ROWS}
