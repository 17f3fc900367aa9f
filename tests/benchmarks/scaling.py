"""A capture of many prompts by one process, by several, and by Ray: seconds, memory, and the same bytes.

Run: ``python -m tests.benchmarks.scaling [--prompts 20000] [--workers 1,2,4] [--ray]``.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import interp
from interp import scaling, tasks


def digest(folder: Path) -> str:
    """One hash of all files."""
    found = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return found.hexdigest()


def prompts(n: int) -> list[str]:
    """So many prompts of the bundled task, with numbers before them."""
    texts = tasks.labelled("category", n=400, seed=0).texts
    return [f"{row // len(texts)} {texts[row % len(texts)]}" for row in range(n)]


def measured(n: int, workers: int, engine: str) -> tuple[str, float, float, float]:
    """The hash of a store, and the seconds, CPU-seconds and peak megabytes of a worker that it took."""
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        make, sites = partial(interp.load, "demo"), ["resid_post.8", "resid_post.20"]
        scaling.capture(make, prompts(n), sites, folder, workers=workers, engine=engine)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return digest(Path(folder)), time.perf_counter() - began, used, after.ru_maxrss / 1024


def main() -> None:
    """Print a row per engine and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--ray", action="store_true")
    asked = parser.parse_args()
    runs = [("processes", int(n)) for n in asked.workers.split(",")]
    runs += [("ray", 2)] if asked.ray else []
    first = ""
    print(f"{asked.prompts:,} prompts, bundled model, 2 sites")
    print("engine     workers  seconds  CPU-s of workers  peak MB of a worker  bytes")
    for engine, workers in runs:
        found, seconds, used, memory = measured(asked.prompts, workers, engine)
        first = first or found
        same = "the same" if found == first else "OTHER"
        print(f"{engine:10s} {workers:7d} {seconds:8.1f} {used:17.1f} {memory:20.0f}  {same}", flush=True)


if __name__ == "__main__":
    main()
