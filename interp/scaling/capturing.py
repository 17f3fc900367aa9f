"""Capture by many workers, as one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from interp.addresses import Place
from interp.errors import ConfigError, DataError, counted
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.scaling.engines import ENGINES
from interp.scaling.jobs import CaptureJob, Handed, cache_keys
from interp.store import SHARD, ActivationStore, Part

__all__ = ["capture", "fill", "stream"]


def capture(
    make: Callable[[], Model],
    prompts: Sequence[Any],
    sites: Sequence[str],
    folder: str | Place,
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
        folder: of the store, or an address of fsspec (``s3://...``) that all processes see.
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
    job = CaptureJob(make, model.fingerprint, folder, names, positions, keys, batch_size)
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
    _check(workers, engine)
    handed = [(part, tokens.select(part.rows)) for part in store.to_do(len(tokens), size=size)]
    if handed:
        for _ in ENGINES[engine](job, handed, min(workers, len(handed))):
            store.adopt()
            yield len(store)
        _refuse_lost(store, len(tokens))
    store.tidy()


def stream(
    make: Callable[[], Model],
    rows: Iterable[Mapping[str, Any]],
    sites: Sequence[str],
    folder: str | Place,
    *,
    column: str = "text",
    positions: str | int = "last",
    workers: int = 1,
    engine: str = "processes",
    batch_size: str | int = "auto",
    size: int = SHARD,
) -> ActivationStore:
    """Capture rows that come one after the other, such as a data set of Hugging Face in streaming mode.

    Of rows, as of states, no more than a shard for each worker is held. A call that was stopped goes on when
    it is made again with the same rows: those that are there are read, compared and passed over.

    Args:
        make: as for :func:`capture`.
        rows: mappings, in the same order every time.
        sites: names or globs.
        folder: as for :func:`capture`.
        column: of each row what the model is given: a text, or a list of messages.
        positions: as for ``model.capture``.
        workers: processes that make shards; 1: this one.
        engine: as for :func:`capture`; Ray takes all rows into memory first.
        batch_size: prompts per pass.
        size: prompts per shard.

    Raises:
        ConfigError: no such engine, or a folder that was begun for another request.
        DataError: a row without the column, or other rows than those that are there.
        ModelError: a process got another model, or a shard ended several processes.
    """
    _check(workers, engine)
    model = make()
    names = tuple(str(site) for site in model.expand(list(sites)))
    keys = cache_keys(model, Tokens((), ()), names, positions)
    job = CaptureJob(make, model.fingerprint, folder, names, positions, keys, batch_size)
    with ActivationStore(folder, cache_keys=keys) as store:
        handed = _unmade(store, model, rows, column, size)
        if workers == 1 and engine == "processes":
            for _, tokens in handed:
                store.append(job.states(model, tokens))
        else:
            last = 0
            for part in ENGINES[engine](job, handed, workers):
                last = max(last, part.stop)
                store.adopt()
            _refuse_lost(store, last)
        store.tidy()
    return ActivationStore(folder)


def _unmade(
    store: ActivationStore, model: Model, rows: Iterable[Mapping[str, Any]], column: str, size: int
) -> Iterator[Handed]:
    """The shards of the rows, those left out that are there.

    Raises:
        DataError: a row without the column, or a shard of other prompts.
    """
    source, number, start = iter(rows), 0, 0
    while some := list(islice(source, size)):
        for place, row in enumerate(some, start):
            if column not in row:
                raise DataError(f"row {place} has no column {column!r}; its columns are: {', '.join(row)}.")
        tokens = model.tokenize([row[column] for row in some])
        there = store.prompts(number)
        if there is None:
            yield Part(number, start, start + len(some)), tokens
        elif there != [list(ids) for ids in tokens.token_ids]:
            raise DataError(
                f"shard {number} of {store.folder} holds other prompts than rows {start} to "
                f"{start + len(some) - 1}. Give the rows, and the size of shards, that it was begun with."
            )
        number, start = number + 1, start + len(some)
    if number < store.n_shards:
        raise DataError(
            f"{store.folder} holds {counted(len(store), 'prompt')}, the rows given are {start:,}."
        )


def _refuse_lost(store: ActivationStore, expected: int) -> None:
    """Refuse to call a store whole whose shards were written somewhere else."""
    if len(store) < expected:
        raise ConfigError(
            f"{store.folder} holds {len(store):,} of {expected:,} prompts, though all were read: the workers "
            "do not see the same files. Give a disk or an address that all of them share."
        )


def _check(workers: int, engine: str) -> None:
    if engine not in ENGINES:
        raise ConfigError(f"no engine {engine!r}. Engines: {', '.join(ENGINES)}.")
    if workers < 1:
        raise ConfigError(f"{counted(workers, 'worker')} cannot work. Take at least one.")
