"""Capture by many workers, as one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from interp.errors import ConfigError, counted
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.scaling.engines import ENGINES
from interp.scaling.jobs import CaptureJob, cache_keys
from interp.store import SHARD, ActivationStore

__all__ = ["capture", "fill"]


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


def fill(
    store: ActivationStore, job: CaptureJob, tokens: Tokens, *, workers: int, engine: str, size: int = SHARD
) -> Iterator[int]:
    """Make the shards that a store lacks, and count each one.

    Args:
        store: open for writing, in the job's folder.
        job: what to make.
        tokens: all prompts.
        workers: how many processes make shards.
        engine: a key of ``ENGINES``.
        size: prompts per shard.

    Yields:
        How many prompts the store holds, after each shard.

    Raises:
        ConfigError: no such engine, or fewer than one worker.
        ModelError: a shard ended several processes.
    """
    if engine not in ENGINES:
        raise ConfigError(f"no engine {engine!r}. Engines: {', '.join(ENGINES)}.")
    if workers < 1:
        raise ConfigError(f"{counted(workers, 'worker')} cannot work. Take at least one.")
    handed = [(part, tokens.select(part.rows)) for part in store.to_do(len(tokens), size=size)]
    if handed:
        for _ in ENGINES[engine](job, handed, min(workers, len(handed))):
            store.adopt()
            yield len(store)
    store.tidy()
