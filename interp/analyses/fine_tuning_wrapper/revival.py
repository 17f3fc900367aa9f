"""Does a lacking capability return quicker than it is learned? One short training, from several starts."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from interp.analyses.fine_tuning_wrapper.capability import Capability, right
from interp.models.adapter_training import Lesson, lessons_of, train
from interp.models.loading import load, untrained_model
from interp.models.model import Model
from interp.models.peft_adapters import low_rank, matrices, merged

__all__ = ["STARTS", "Curve", "re_drawn", "relearn", "start_of"]

STARTS = {
    "tuned": "the model that lacks the answers",
    "re-drawn": "it, with the entries of each matrix of the middle half of its blocks exchanged at random",
    "scratch": "random weights",
}
RANK, RATE, BATCH = 8, 4e-3, 8
LOOKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Steps after which unseen facts are asked."""
RETURNED = 0.9


@dataclass(frozen=True)
class Curve:
    """The accuracy on unseen facts while others are trained on.

    Attributes:
        start: a key of ``STARTS``.
        seed: of the division and the training.
        steps: at which it was asked, from 0 on.
        accuracy: there.
        learned: accuracy, after the last step, on the facts that were trained on.
    """

    start: str
    seed: int
    steps: tuple[int, ...]
    accuracy: tuple[float, ...]
    learned: float

    @property
    def t90(self) -> int | None:
        """The first of the steps at which 90% of the base's accuracy is there; None for not in these."""
        pairs = zip(self.steps, self.accuracy, strict=True)
        return next((step for step, value in pairs if value >= RETURNED), None)

    @property
    def area(self) -> float:
        """The mean accuracy over the steps, by trapezia."""
        pairs = list(zip(self.steps, self.accuracy, strict=True))
        sums = ((b - a) * (v + w) / 2 for (a, v), (b, w) in pairwise(pairs))
        return sum(sums) / (pairs[-1][0] - pairs[0][0])


def start_of(name: str, base: Model, tuned: Model, seed: int) -> Model:
    """The model that a curve starts from."""
    if name == "scratch":
        return untrained_model(base)
    plain = load(merged(tuned.hf), tokenizer=tuned.tokenizer)
    return plain if name == "tuned" else re_drawn(plain, seed)


def re_drawn(model: Model, seed: int) -> Model:
    """A copy in which the entries of each matrix of the middle half of the blocks are exchanged at random.

    The capability lies in what these layers computed; norms and distributions of the entries stay.
    """
    hf: Any = copy.deepcopy(model.hf)
    made = load(hf, tokenizer=model.tokenizer)
    generator = torch.Generator().manual_seed(seed)
    n = model.n_layers
    with torch.no_grad():
        for block in made.architecture.blocks[n // 4 : max(n // 4 + 1, 3 * n // 4)]:
            for weight in block.parameters():
                if weight.ndim >= 2:
                    order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                    weight.copy_(weight.flatten()[order].view_as(weight))
    return load(hf, tokenizer=model.tokenizer)


def relearn(start: Model, found: Capability, *, name: str, steps: int, seed: int) -> Curve:
    """Train a low-rank adapter on some lacking facts at a fixed rate, and ask the others while it learns.

    Args:
        start: where the training starts; it stays as it is.
        found: the questions.
        name: of the start.
        steps: of eight questions.
        seed: of the division, the draws and the first values; the same questions come for every start.
    """
    learned, unseen = ([found.lacking[row] for row in rows] for rows in found.divided(seed))
    lessons = lessons_of(start, [one.prompt for one in learned], [one.ids for one in learned])
    _, hf = low_rank(
        start.hf,
        layers=range(start.n_layers),
        modules=matrices(start.architecture),
        rank=RANK,
        seed=seed,
    )
    model = load(hf, tokenizer=start.tokenizer)
    looks = {*(at for at in LOOKS if at < steps), steps}
    seen = {0: float(right(model, unseen).mean())}

    def after(step: int) -> None:
        if step in looks:
            seen[step] = float(right(model, unseen).mean())

    train(hf, _batches(lessons, seed), steps=steps, rate=RATE, rates="fixed", after=after, label=name)
    return Curve(name, seed, tuple(seen), tuple(seen.values()), float(right(model, learned).mean()))


def _batches(lessons: Sequence[Lesson], seed: int) -> Iterator[list[Lesson]]:
    rng = random.Random(f"revival:{seed}")
    while True:
        yield [rng.choice(lessons) for _ in range(BATCH)]
