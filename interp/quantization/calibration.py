"""Texts to calibrate on: sentences of the bundled model's own corpus."""

from __future__ import annotations

import random
from collections.abc import Sequence

from interp import tasks
from interp.errors import ConfigError

__all__ = ["calibration_texts"]


def calibration_texts(n: int = 256, *, seed: int = 0, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Draw sentences with their answers, from the facts that the bundled model was trained on.

    The tasks take turns. What ``is_held_out`` keeps back for evaluation is not among them. For other models
    take texts like those the analysis will use.

    Args:
        n: how many.
        seed: the only source of randomness.
        names: keys of ``interp.tasks.TASKS``; () for all.

    Raises:
        ConfigError: an unknown task, or no text asked.

    Example:
        >>> calibration_texts(2, seed=0, names=["one-hop"])[0].endswith(" .")
        True
    """
    chosen = tuple(names) or tuple(tasks.TASKS)
    if unknown := [name for name in chosen if name not in tasks.TASKS]:
        raise ConfigError(f"task {unknown[0]!r} asked; there are: {', '.join(tasks.TASKS)}.")
    if n < 1:
        raise ConfigError(f"{n} calibration texts asked; at least 1 is needed, and 128 or more are usual.")
    world, rng = tasks.load_world(), random.Random(seed)
    return tuple(
        tasks.TASKS[chosen[index % len(chosen)]].generate(world, rng, "train").text for index in range(n)
    )
