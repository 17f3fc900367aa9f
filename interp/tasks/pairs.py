"""Pairs of clean and corrupt prompts that line up for a model's tokenizer."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace

from interp.errors import ConfigError, DataError
from interp.models.loading import ModelLike, as_model
from interp.pairs import Pair, PairSet
from interp.tasks.sampling import distinct
from interp.tasks.table import PAIR_TASKS, find
from interp.tasks.world import World, load_world

__all__ = ["PAIR_TASKS", "draw", "lined_up", "sample"]

TRIES = 100
STALE = 5000  # draws in a row that bring nothing new: then all there is has been seen
MORE = 8  # so that enough are left where few line up


def sample(
    model: ModelLike,
    task: str,
    n: int = 64,
    *,
    seed: int = 0,
    counterfactual: str | None = None,
    world: World | None = None,
    only_correct: bool = True,
) -> PairSet:
    """Draw pairs of a task that line up for the model's tokenizer.

    Args:
        model: whose tokenizer decides what lines up.
        task: a key or alias of :data:`PAIR_TASKS`.
        n: how many, at most.
        seed: of the draw; the same pairs are drawn first whatever ``n``.
        counterfactual: one of the task's kinds; the first where left out.
        world: the facts; the bundled ones where left out.
        only_correct: keep only pairs whose clean prompt the model answers.

    Raises:
        ConfigError: no such task or counterfactual, or ``n`` below 1.
        DataError: too few pairs line up, or the model answers none.
    """
    model = as_model(model)
    found = PairSet.build(model, _texts(task, n, seed, counterfactual, world), misaligned="drop")
    row = find(task, PAIR_TASKS, "the tasks with pairs")
    found = replace(found, name=task, description=row.sentence or row.description)
    return (found[: 2 * n].right(model) if only_correct else found)[:n]


def draw(
    model: ModelLike,
    task: str,
    n: int = 64,
    *,
    seed: int = 0,
    counterfactual: str | None = None,
    world: World | None = None,
    right: bool = True,
) -> PairSet:
    """The old name of :func:`sample`; ``right`` is now ``only_correct``."""
    warnings.warn(
        "interp.tasks.draw is now interp.tasks.sample, and right= is only_correct=; the old name goes in the "
        "next release.",
        DeprecationWarning,
        stacklevel=2,
    )
    return sample(model, task, n, seed=seed, counterfactual=counterfactual, world=world, only_correct=right)


def lined_up(
    model: ModelLike, task: str, n: int = 64, *, seed: int = 0, counterfactual: str | None = None
) -> float:
    """The share of the pairs drawn for a task that line up for the model's tokenizer; it is not run.

    Args:
        model: whose tokenizer decides.
        task: as for :func:`sample`; likewise the others.
        n: how many pairs are wanted; eight times as many are drawn.
        seed: of the draw.
        counterfactual: one of the task's kinds.

    Raises:
        ConfigError: no such task or counterfactual, or ``n`` below 1.
    """
    drawn = _texts(task, n, seed, counterfactual, None)
    try:
        return len(PairSet.build(as_model(model), drawn, misaligned="drop")) / len(drawn)
    except DataError:
        return 0.0


def _texts(task: str, n: int, seed: int, counterfactual: str | None, world: World | None) -> list[Pair]:
    """Draw the texts of more pairs than are wanted, each once."""
    row = find(task, PAIR_TASKS, "the tasks with pairs")
    kind = next(iter(row.kinds)) if counterfactual is None else counterfactual
    if kind not in row.kinds:
        raise ConfigError(f"counterfactual {kind!r} asked; those of {row.name} are: {', '.join(row.kinds)}.")
    if n < 1:
        raise ConfigError(f"n={n} pairs asked; ask for at least 1.")
    assert row.pairs is not None
    rng = random.Random(f"pairs:{row.name}:{kind}:{seed}")
    stream = row.pairs(load_world() if world is None else world, rng, kind)
    drawn = distinct(stream, MORE * n, lambda texts: texts[:2], tries=TRIES * n, stale=STALE)
    if not drawn:
        raise DataError(f"{row.name} gives no pair of kind {kind!r}.")
    return [replace(Pair(*texts), kind="null" if texts.kind == "null" else kind) for texts in drawn]
