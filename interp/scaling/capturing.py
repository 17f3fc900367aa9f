"""Capture by many workers, as one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interp.models.model import Model
from interp.scaling.jobs import CaptureJob, cache_keys, fill
from interp.store import SHARD, ActivationStore

__all__ = ["capture"]


def capture(
    make: Callable[[], Model],
    prompts: Sequence[Any],
    sites: Sequence[str],
    folder: str | Path,
    *,
    positions: str | int = "last",
    workers: int = 1,
    engine: str = "processes",
    batch_size: str | int = "auto",
    size: int = SHARD,
) -> ActivationStore:
    """Capture prompts into a store, by several processes; goes on where an earlier call was stopped.

    Args:
        make: gives the model in each process: a function of a module, or a ``functools.partial`` of one,
            such as ``partial(interp.load, "smollm2")``.
        prompts: as for ``model.capture``.
        sites: names or globs.
        folder: of the store.
        positions: as for ``model.capture``.
        workers: processes that make shards, each with a model of its own; this process holds one more.
        engine: ``processes`` of this machine, or ``ray``.
        batch_size: prompts per pass.
        size: prompts per shard, what a killed worker costs.

    Raises:
        ConfigError: no such engine, or a folder that was begun for another request.
        ModelError: a process got another model, or a shard ended several processes.
    """
    model = make()
    tokens = model.tokenize(list(prompts))
    names = tuple(str(site) for site in model.expand(list(sites)))
    keys = cache_keys(model, tokens, names, positions)
    job = CaptureJob(make, model.fingerprint, Path(folder), names, positions, keys, batch_size)
    with ActivationStore(folder, cache_keys=keys) as store:
        for _ in fill(store, job, tokens, workers=workers, engine=engine, size=size):
            pass
    return ActivationStore(folder)
