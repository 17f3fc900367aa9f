"""Times contenders against each other: interleaved rounds, CPU time of the process, ratios of medians."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Contender", "Ratio", "ratio_of_medians", "time_rounds", "verified"]


@dataclass(frozen=True)
class Contender:
    """Hold one way to do a job.

    Attributes:
        name: of its row.
        call: does the job once and returns what it found.
        floor: name of the contender its time is divided by; "" for a floor itself.
        goal: the ratio to stay below, or None.
        check: takes what ``call`` returned, gives its largest difference from the reference.
        limit: the largest difference allowed.
    """

    name: str
    call: Callable[[], Any]
    floor: str = ""
    goal: float | None = None
    check: Callable[[Any], float] | None = None
    limit: float = 0.0


def verified(contender: Contender) -> float | None:
    """Run once and compare with the reference; return the largest difference.

    Raises:
        AssertionError: the numbers differ by more than the contender's limit.
    """
    if contender.check is None:
        return None
    difference = contender.check(contender.call())
    allowed = difference <= contender.limit
    assert allowed, f"{contender.name}: differs by {difference:.1e}, allowed {contender.limit:.0e}"
    return difference


def time_rounds(
    contenders: Sequence[Contender], rounds: int, *, warm_up: int = 2, seed: int = 0
) -> dict[str, list[float]]:
    """Return the CPU seconds of every contender in every round; the order is drawn anew in each."""
    generator = random.Random(seed)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(-warm_up, rounds):
        if number == 0:
            gc.collect()
            gc.freeze()
        for contender in generator.sample(list(contenders), len(contenders)):
            started = time.process_time()
            contender.call()
            ended = time.process_time()
            if number >= 0:
                seconds[contender.name].append(ended - started)
    gc.unfreeze()
    return seconds


@dataclass(frozen=True)
class Ratio:
    """Hold a ratio of medians with its 95% bootstrap interval over rounds."""

    value: float
    low: float
    high: float


def ratio_of_medians(times: Sequence[float], floor: Sequence[float], *, resamples: int = 2000) -> Ratio:
    """Divide medians; rounds are resampled jointly, since both contenders ran in each."""
    both = np.array([times, floor])
    value = float(np.median(both[0]) / np.median(both[1]))
    picks = np.random.default_rng(0).integers(0, both.shape[1], (resamples, both.shape[1]))
    medians = np.median(both[:, picks], axis=-1)
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return Ratio(value, float(low), float(high))
