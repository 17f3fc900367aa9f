"""Time and memory of one model's passes, taken in turns with another's so that both meet the same machine."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.memory import most_bytes
from interp.models.forward import cache_name, cache_of, forward, make_batch
from interp.models.hooks import evaluating
from interp.models.model import Model
from interp.models.positions import Batch

__all__ = ["Laps", "peak_memory", "ratio_of_medians", "run_in_turns"]

WARM_UP = 1
DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Laps:
    """Hold what each round took of one model, in milliseconds.

    Attributes:
        prefill: one pass over all prompts, the cache filled.
        decode: one token more for all prompts; empty where the model takes no cache.
    """

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


@torch.no_grad()
def run_in_turns(
    models: Sequence[Model], ids: Sequence[Sequence[int]], *, rounds: int, tokens: int, seed: int
) -> list[Laps]:
    """Time prefill and decoding of several models, every round in another order.

    On the CPU it is the CPU time of the process, which other processes change little; on an accelerator the
    time until it has finished.

    Args:
        models: what is timed.
        ids: prompts of one length.
        rounds: how often.
        tokens: how many new tokens are decoded per round.
        seed: of the orders.

    Returns:
        The rounds of each model, a first one for warming up left out.
    """
    laps, rng = [Laps() for _ in models], random.Random(seed)
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model.architecture.modules))
        batches = [_batch(model, ids) for model in models]
        for turn in range(rounds + WARM_UP):
            for at in rng.sample(range(len(models)), len(models)):
                _lap(models[at], batches[at], tokens, laps[at] if turn >= WARM_UP else Laps())
    return laps


def _batch(model: Model, ids: Sequence[Sequence[int]]) -> Batch:
    tokens = model.tokenize([list(row) for row in ids], padding_side="left")
    return make_batch(tokens, range(len(ids)), model.device)


def _lap(model: Model, batch: Batch, tokens: int, laps: Laps) -> None:
    architecture = model.architecture
    caches = cache_name(architecture)
    start = _now(model)
    found = forward(architecture, batch, "last", use_cache=bool(caches))
    laps.prefill.append(1000 * (_now(model) - start))
    if not caches:
        return
    newest = found.logits[:, -1].argmax(-1)[:, None]
    start = _now(model)
    for _ in range(tokens):
        found = architecture.hf(input_ids=newest, use_cache=True, **{caches: cache_of(found)})
        newest = found.logits[:, -1].argmax(-1)[:, None]
    laps.decode.append(1000 * (_now(model) - start) / tokens)


def _now(model: Model) -> float:
    """Give CPU seconds of this process, or seconds after the accelerator has caught up."""
    if model.device.type == "cpu":
        return time.process_time()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def ratio_of_medians(
    values: Float[np.ndarray, " round"], reference: Float[np.ndarray, " round"], *, seed: int
) -> tuple[float, float, float]:
    """Give the ratio of medians over rounds, and its 95% percentile interval over redrawn rounds.

    A round is one unit: both models meet the same machine in it.
    """
    rows = np.random.default_rng(seed).integers(len(values), size=(DRAWS, len(values)))
    drawn = np.median(values[rows], axis=1) / np.median(reference[rows], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return float(np.median(values) / np.median(reference)), float(low), float(high)


@torch.no_grad()
def peak_memory(model: Model, ids: Sequence[Sequence[int]]) -> int:
    """Measure the most bytes that one pass over all prompts holds at once, beyond the weights."""
    batch = _batch(model, ids)
    with evaluating(model.architecture.modules):
        forward(model.architecture, batch, "last", use_cache=False)
        return most_bytes(lambda: forward(model.architecture, batch, "last", use_cache=False), model.device)
