"""Time alternatives against each other: CPU time, interleaved in random order, ratio of medians with an interval."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

__all__ = ["interleave", "ratio"]


def interleave(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, seed: int = 0, warmup: int = 2
) -> dict[str, list[float]]:
    """Time every call once per round, in a new random order each round.

    Args:
        calls: what to time, by name.
        rounds: how often.
        seed: of the orders.
        warmup: calls of each that are not timed.

    Returns:
        Per name its CPU seconds of this process, one per round: calls of one round share the state of the machine.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    names, generator = list(calls), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            generator.shuffle(names)
            for name in names:
                start = time.process_time()
                calls[name]()
                seconds[name].append(time.process_time() - start)
            gc.collect(0)
    finally:
        gc.enable()
    return seconds


def ratio(
    values: Sequence[float], floor: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the ratio of medians and its 95% interval, by resampling rounds (both from the same rounds)."""
    generator, count = random.Random(seed), len(values)
    drawn = []
    for _ in range(resamples):
        rows = generator.choices(range(count), k=count)
        drawn.append(statistics.median([values[r] for r in rows]) / statistics.median([floor[r] for r in rows]))
    drawn.sort()
    low, high = drawn[int(0.025 * resamples)], drawn[int(0.975 * resamples) - 1]
    return statistics.median(values) / statistics.median(floor), low, high
