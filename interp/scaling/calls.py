"""One call of exact patching by several processes, which share its walks."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from interp.errors import ConfigError, counted
from interp.mediation.sharing import sharing
from interp.scaling.engines import begin

__all__ = ["together"]

T = TypeVar("T")


def together(call: Callable[[], T], same: Callable[[], object], folder: str | Path, *, workers: int) -> T:
    """Make a call in this process, while others make the same call and so its walks.

    What is patched exactly is run in walks, batches of copies that begin at one token. They are shared by
    files (:mod:`interp.mediation.sharing`), so that the result is that of one process, byte for byte. A
    process that is killed costs the walk it was at, and a call that was stopped goes on from the walks there.

    Args:
        call: gives the result.
        same: makes the same call with a model of its own; a function of a module, or a ``functools.partial``
            of one.
        folder: for the walks of this call alone; removed when it ends well.
        workers: processes, this one among them.

    Raises:
        ConfigError: fewer than one worker.
    """
    if workers < 1:
        raise ConfigError(f"{counted(workers, 'worker')} cannot work. Take at least one.")
    import torch

    context, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    helpers = [
        context.Process(target=_help, args=(same, str(folder), number, workers), daemon=True)
        for number in range(1, workers)
    ]
    try:
        for helper in helpers:
            helper.start()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, threads // workers))
        with sharing(folder):
            found = call()
        _warn_of_failures(helpers)
    finally:
        torch.set_num_threads(threads)
        for helper in helpers:
            if helper.pid is not None:
                helper.kill()
                helper.join()
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _warn_of_failures(helpers: Sequence[BaseProcess]) -> None:
    ended = sum(helper.exitcode not in (None, 0) for helper in helpers)
    if ended:
        logging.getLogger(__name__).warning(
            "%s of %s ended early; the others made what was left, and the numbers are the same",
            ended,
            counted(len(helpers), "helping process", "helping processes"),
        )


def _help(same: Callable[[], object], folder: str, number: int, workers: int) -> None:
    """Make the call as a helper, and say nothing."""
    begin(number, workers)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    with sharing(folder, seed=number):
        same()
