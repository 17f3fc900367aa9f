"""What watching an answer costs: CPU seconds of the same answer, written alone and with a monitor.

    python -m tests.benchmarks.monitoring [MODEL] [TOKENS] [REPEATS]

The two ways take turns, so that a machine that slows down slows both; the medians are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import interp
from interp.analyses.monitoring import Monitor, answer
from interp.models import Model
from probes.evaluation import threshold_at
from probes.pooling import Sequences
from probes.sequences import SequenceProbe

__all__ = ["main"]

PROMPT = [{"role": "user", "content": "Tell me a long story about a lighthouse and the people who keep it."}]


def monitor(model: Model, pooling: str) -> Monitor:
    """A monitor of random weights: what it costs does not depend on them."""
    rng = np.random.default_rng(0)
    states, labels = rng.normal(size=(40, 3, model.d_model)), np.arange(40) % 2
    states[labels == 1, 1] += 1
    probe = SequenceProbe(pooling=pooling).fit(Sequences.of(states), labels.astype(str))
    threshold = threshold_at(rng.normal(size=100), 0.05)
    site = f"resid_post.{model.n_layers // 2}"
    return Monitor(probe, site, "role:assistant & content", threshold, 1.0, 0.0, "none", model.described)


def main(name: str = "smollm2", tokens: int = 48, repeats: int = 5) -> None:
    """Print the medians and what the monitor adds."""
    model = interp.load(name)
    own = monitor(model, "max")
    ways: dict[str, Callable[[], object]] = {
        "alone": lambda: model.generate([PROMPT], max_new_tokens=tokens),
        "watched": lambda: answer(model, own, [PROMPT], max_new_tokens=tokens),
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way in ways if turn % 2 else reversed(ways):
            start = time.process_time()
            ways[way]()
            if turn:  # the first of each warms up
                spent[way].append(time.process_time() - start)
    medians = {way: statistics.median(times) for way, times in spent.items()}
    ratios = [b / a - 1 for a, b in zip(spent["alone"], spent["watched"], strict=True)]
    for way, seconds in medians.items():
        print(f"{way:8} {seconds:.3f} s CPU for {tokens} tokens")
    turns = ", ".join(f"{ratio:+.1%}" for ratio in ratios)
    print(f"watching adds {statistics.median(ratios):+.1%} (turn by turn: {turns})")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*given[:1], *map(int, given[1:]))
