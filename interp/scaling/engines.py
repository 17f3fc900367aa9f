"""Who makes the shards: processes of this machine, or the actors of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from types import MappingProxyType
from typing import Any

from interp.errors import ConfigError, ModelError
from interp.scaling.jobs import CaptureJob, Handed
from interp.store import Part

__all__ = ["ENGINES", "Engine", "begin", "gpu_of"]

Engine = Callable[[CaptureJob, Iterable[Handed], int], Iterator[Part]]
"""From a job, its shards and a number of workers to the shards that are written, in any order. Shards are
asked for when they are handed out."""
ENDED = 3
"""Processes that one shard may end before it is given up."""


def processes(job: CaptureJob, handed: Iterable[Handed], workers: int) -> Iterator[Part]:
    """Make shards in processes of this machine, each with a model and a share of the cores of its own.

    A process that dies is replaced, and its shard is handed out again.

    Raises:
        ModelError: a shard that ended several processes.
    """
    rest, again, ended = iter(handed), deque[Handed](), Counter[int]()
    pools = [_process(job, number, workers) for number in range(workers)]
    running: dict[Future[Part], tuple[int, Handed]] = {}
    try:
        while True:
            for number in sorted(set(range(workers)) - {place for place, _ in running.values()}):
                one = again.popleft() if again else next(rest, None)
                if one is not None:
                    running[pools[number].submit(_write, one)] = (number, one)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, one = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    _refuse_deadly(one[0], ended)
                    pools[number].shutdown(wait=False)
                    pools[number] = _process(job, number, workers)
                    again.appendleft(one)
    finally:
        for pool in pools:
            _stop(pool)


def _refuse_deadly(part: Part, ended: Counter[int]) -> None:
    ended[part.number] += 1
    if ended[part.number] == ENDED:
        raise ModelError(
            f"shard {part.number} (prompts {part.start} to {part.stop - 1}) ended {ENDED} processes; "
            "the machine may be out of memory. Take fewer workers or a smaller --batch-size; what is done is "
            "kept."
        )


def _process(job: CaptureJob, number: int, workers: int) -> ProcessPoolExecutor:
    """A pool of one process: when it dies, the others do not notice."""
    return ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would inherit locks of torch's threads
        initializer=_begin,
        initargs=(job, number, workers),
    )


_HERE: dict[str, Any] = {}
"""The job and the model of this process, where it is a worker."""


def _begin(job: CaptureJob, number: int, workers: int) -> None:
    begin(number, workers)
    _HERE["job"] = job


def begin(number: int, workers: int) -> None:
    """Set up a worker: it leaves interrupts to its parent, ends with it, and takes a share of the cores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    visible = gpu_of(number, os.environ)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write(handed: Handed) -> Part:
    job: CaptureJob = _HERE["job"]
    if "model" not in _HERE:  # not in the initializer: its errors would be lost
        _HERE["model"] = job.model()
    return job.write(_HERE["model"], handed)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End a pool's process, whatever it is doing: its shard does not count."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


def gpu_of(number: int, environment: Mapping[str, str]) -> str | None:
    """The one GPU a worker sees, where ``CUDA_VISIBLE_DEVICES`` lists several; None leaves it as it is."""
    listed = [one for one in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    return listed[number % len(listed)] if len(listed) > 1 else None


class _Actor:
    """A model that stays loaded in a process of a Ray cluster."""

    def __init__(self, job: CaptureJob) -> None:
        self.job, self.model = job, job.model()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        parts = [self.job.write(self.model, one) for one in batch["handed"]]
        return {"number": [part.number for part in parts]}


def ray(job: CaptureJob, handed: Iterable[Handed], workers: int) -> Iterator[Part]:
    """Make shards by Ray Data (``map_batches``), in actors that each hold a model.

    The store's folder has to be on a disk that all machines see. Ray starts dead actors again.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        cluster: Any = import_module("ray")  # an extra, whose types are not here
        data: Any = import_module("ray.data")
    except ImportError as error:
        raise ConfigError(
            "--engine ray needs Ray, which is not installed: pip install 'interp-toolkit[ray]'."
        ) from error
    if not cluster.is_initialized():
        cluster.init(log_to_driver=False, include_dashboard=False)
    whole = list(handed)
    places = {one[0].number: one[0] for one in whole}
    rows = data.from_items([{"handed": one} for one in whole], override_num_blocks=max(1, len(whole)))
    made = rows.map_batches(_Actor, fn_constructor_args=(job,), batch_size=1, concurrency=workers)
    for row in made.iter_rows():
        yield places[int(row["number"])]


ENGINES: Mapping[str, Engine] = MappingProxyType({"processes": processes, "ray": ray})
"""Name -> engine."""
