"""One process of the benchmark: times one library, or loading, on one model, and prints JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from subjects import SUBJECTS, Shape, Subject, open_raw
from timing import time_rounds, verified

__all__ = ["ENVIRONMENT", "main"]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main(job: str, name: str, folder: Path, *, quick: bool) -> None:
    """Do a job; whatever the libraries print goes to the error stream."""
    lines = _own_stdout()
    import torch

    torch.set_num_threads(1)
    with torch.no_grad():
        found = (
            _loads(folder, 2 if quick else 5)
            if job == "load"
            else _library(job, SUBJECTS[name], folder, quick)
        )
        for line in found:
            print(json.dumps(line), file=lines, flush=True)


def _own_stdout() -> TextIO:
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return lines


def _library(job: str, subject: Subject, folder: Path, quick: bool) -> Iterator[dict[str, Any]]:
    from contenders import LIBRARIES

    shapes = [Shape(1, 16, 5)] if quick else subject.shapes
    for shape in shapes:
        contenders = LIBRARIES[job](subject, folder, shape)
        differences = {contender.name: verified(contender) for contender in contenders}
        seconds = time_rounds(contenders, shape.rounds)
        for contender in contenders:
            yield {
                "tokens": str(shape),
                "row": contender.name,
                "floor": contender.floor,
                "goal": contender.goal,
                "max_difference": differences[contender.name],
                "seconds": seconds[contender.name],
            }


def _loads(folder: Path, times: int) -> Iterator[dict[str, Any]]:
    """Load with and without the toolkit in turn, after one warm-up of each that pays for the imports.

    The fingerprint of the weights is not part of loading: the first capture of a model pays for it, once.
    """
    from transformers import AutoTokenizer

    import interp

    makers: dict[str, Callable[[], Any]] = {
        "model": lambda: open_raw(folder),
        "tokenizer": lambda: AutoTokenizer.from_pretrained(folder),
        "interp.load": lambda: interp.load(folder),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    for number in range(-1, times):
        for name, make in makers.items():
            cost = _cost(make)
            if number >= 0:
                found[name].append(cost)
    model = interp.load(folder)
    first = _cost(lambda: model.fingerprint)
    parts = {name: _medians(costs) for name, costs in found.items()}
    yield {**parts, "fingerprint": {"cpu_s": first[0], "wall_s": first[1]}}


def _cost(make: Callable[[], Any]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    make()
    return time.process_time() - cpu, time.perf_counter() - wall


def _medians(costs: list[tuple[float, float]]) -> dict[str, float]:
    return {"cpu_s": median(cpu for cpu, _ in costs), "wall_s": median(wall for _, wall in costs)}
