"""Benchmark of patching: grids, heads and attribution, here and with the libraries people use today.

    python tests/benchmarks/patching.py           all rows; writes results/patching-cpu.json
    python tests/benchmarks/patching.py --quick   few rounds; writes only where --json says
    python tests/benchmarks/patching.py --real    heads of SmolLM2; writes results/patching-smollm2-cpu.json

Figure of merit: CPU time of the process on one thread; contenders of one process are interleaved in random
order; ratio of medians over the rounds with a 95% bootstrap interval (with so few rounds about their range).
Peers run a random sample of the cells, all of which cost them the same, and their time is multiplied up, the
pass of the clean prompts that they begin with counted as one more cell; this
toolkit runs everything, its checks included. Every peer's numbers are compared with this toolkit's before
anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import worker
from capture import machine, verdict
from subjects import REAL, SUBJECTS, prepare
from timing import Contender, ratio_of_medians, time_rounds

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # the package probes, before the script of that name beside this one
RESULTS = HERE / "results" / "patching-cpu.json"
REAL_RESULTS = HERE / "results" / "patching-smollm2-cpu.json"
JOBS = ("transformer_lens", "nnsight")
PAIRS = {"demo": (8,), "gpt2-small": (1, 4), "smollm2": (8,)}
ROUNDS, QUICK = 3, 1
NOTES = (
    "Attribution on demo: 24 thin layers, where a backward pass costs 1.7 forward passes or more.",
    "The same passes with the shortest hooks there are take what the row 'by hand' says, which is",
    "above the goal by itself; the rest is the Python of reading and writing 48 sites. On gpt2-small",
    "the two differ by a few percent.",
    "Heads on gpt2-small: the helper runs whole passes of all pairs, one per head. With more pairs it",
    "reads the weights less often per prompt, and the ratio falls towards that of the work alone: this",
    "toolkit runs 0.37 of a pass per head and pair (from the head's own layer, from the first token",
    "that differs). With one pair the goal is met.",
)


def main() -> None:
    """Run every process, print the table, write the JSON."""
    options = _options()
    os.environ.update(worker.ENVIRONMENT)
    if options.worker:
        job, name, folder, pairs, target = options.worker
        Path(target).write_text(json.dumps(work(job, name, Path(folder), int(pairs), quick=options.quick)))
        return
    started = time.perf_counter()
    result: dict[str, Any] = {"schema": "interp.benchmarks.patching/1", "machine": machine()}
    with tempfile.TemporaryDirectory() as scratch:
        result |= measure(Path(scratch), real=options.real, quick=options.quick)
    result["minutes"] = round((time.perf_counter() - started) / 60, 1)
    result["notes"] = [] if options.real else list(NOTES)
    show(result)
    target = options.json or (None if options.quick else REAL_RESULTS if options.real else RESULTS)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time patching against other libraries.")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    parser.add_argument("--real", action="store_true", help="the heads of SmolLM2 alone")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the result")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(scratch: Path, *, real: bool, quick: bool) -> dict[str, Any]:
    """Run one process per model and library."""
    found: list[dict[str, Any]] = []
    weights = {}
    for subject in (REAL if real else SUBJECTS).values():
        folder, weights[subject.name] = prepare(subject, scratch)
        for pairs, job in product(PAIRS[subject.name], JOBS):
            print(f"{subject.name}, {pairs} pairs: {job} ...", file=sys.stderr, flush=True)
            given = [job, subject.name, str(folder), str(pairs)]
            found.append(run(given, scratch / "found.json", quick=quick))
    rows = [row for process in found for row in summarise(process)]
    return {"models": weights, "cases": found, "rows": rows, "rounds": QUICK if quick else ROUNDS}


def run(given: list[str], target: Path, *, quick: bool) -> dict[str, Any]:
    """Run one job in a process of its own and return what it wrote.

    Raises:
        RuntimeError: the process failed; its last words are in the message.
    """
    command = [sys.executable, str(HERE / "patching.py"), *(["--quick"] if quick else [])]
    command += ["--worker", *given, str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{given[0]} on {given[1]} failed:\n" + "\n".join(done.stderr.splitlines()[-25:]))
    return json.loads(target.read_text())


def work(job: str, name: str, folder: Path, pairs: int, *, quick: bool) -> dict[str, Any]:
    """Check all contenders of a process against each other, then time them."""
    import torch
    from patchers import LIBRARIES, TOLERANCE, case

    torch.set_num_threads(1)
    one = case({**SUBJECTS, **REAL}[name], folder, pairs, quick=quick)
    methods = LIBRARIES[job](one)
    off: dict[str, float | None] = {}
    for method in methods:
        found = method.call()
        off[_key(method)] = None if method.check is None else method.check(found)
        assert (off[_key(method)] or 0.0) <= TOLERANCE, f"{method.name}: differs by {off[_key(method)]:.1e}"
    contenders = [Contender(_key(method), method.call) for method in methods]
    seconds = time_rounds(contenders, QUICK if quick else ROUNDS, warm_up=0)
    rows = [
        {
            "row": method.name,
            "job": method.job,
            "cells": method.cells,
            "of": method.of,
            "goal": method.goal,
            "max_difference": off[_key(method)],
            "seconds": [s * (method.of + 1) / (method.cells + 1) for s in seconds[_key(method)]],
        }
        for method in methods
    ]
    since = one.pairs.first_difference
    return {
        "model": name,
        "process": job,
        "pairs": len(one.pairs),
        "tokens": one.width,
        "differ_from": [min(since), max(since)],
        "forwards_per_cell": {job: round(bill, 3) for job, bill in one.forwards.items()},
        "largest_effect": {key: float(abs(values).max()) for key, values in one.found.items()},
        "tolerance": TOLERANCE,
        "rows": rows,
    }


def _key(method: Any) -> str:
    return f"{method.job}: {method.name}"


def summarise(process: dict[str, Any]) -> list[dict[str, Any]]:
    """Divide: peers by this toolkit, attribution by one pass of the corrupt prompts."""
    ours = {row["job"]: row["seconds"] for row in process["rows"] if row["row"].startswith("interp")}
    floor = next(row["seconds"] for row in process["rows"] if not row["job"])
    rows = []
    for row in process["rows"]:
        own = row["row"].startswith("interp")
        passes = ratio_of_medians(row["seconds"], floor)
        found = {key: value for key, value in row.items() if key != "seconds"}
        found |= {key: process[key] for key in ("model", "pairs", "process")}
        found |= {"median_ms": round(1000 * median(row["seconds"]), 1), "passes": round(passes.value, 2)}
        if row["job"] and not own:
            ratio = ratio_of_medians(row["seconds"], ours[row["job"]])
            found |= {"ratio": round(ratio.value, 2), "interval": [round(ratio.low, 2), round(ratio.high, 2)]}
        if row["goal"] is not None:
            found["met"] = passes.value <= row["goal"] if own else found["ratio"] >= row["goal"]
        rows.append(found)
    return rows


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print("models: " + ", ".join(f"{name} ({weights})" for name, weights in result["models"].items()))
    print("machine: " + ", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    for one in result["cases"]:
        print(_case_line(one))
    form = "{:<11}{:<6}{:<14}{:<49}{:>9}{:>11}{:>9}{:>8}  {:<13}{:>7} {:<7}{:>8}"
    print(
        f"\nCPU time, one thread, medians of {result['rounds']} interleaved rounds; *passes*: of one batched"
    )
    print("forward pass of the corrupt prompts; *times*: this toolkit's time in the same process; *cells*:")
    print("those that were timed, where the time of a sample is multiplied up to the whole job")
    print(
        form.format(
            "model", "pairs", "job", "row", "cells", "ms", "passes", "times", "95%", "goal", "", "differs"
        )
    )
    for row in result["rows"]:
        print(form.format(*_cells(row)))
    print()
    for note in result["notes"]:
        print(note)
    print(f"took {result['minutes']} minutes")


def _case_line(one: dict[str, Any]) -> str:
    first, last = one["differ_from"]
    largest = ", ".join(f"{job} {value:.2g}" for job, value in one["largest_effect"].items())
    bill = ", ".join(f"{job} {value:.3f}" for job, value in one["forwards_per_cell"].items())
    return (
        f"{one['model']}, process of {one['process']}: {one['pairs']} pairs of {one['tokens']} tokens that "
        f"differ from token {first}{'' if first == last else f'..{last}'} on; numbers equal to "
        f"{one['tolerance']:.0e} of the largest logit or of 1; largest effects: {largest}; "
        f"forward-equivalents of this toolkit per cell and pair: {bill}"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    timed = "interval" in row
    own = row["row"].startswith("interp")
    goal = "" if row["goal"] is None else f"{'<=' if own else '>='} {row['goal']:g}"
    return [
        *(row[key] for key in ("model", "pairs", "job", "row")),
        f"{row['cells']}/{row['of']}" if row["of"] > 1 else "",
        f"{row['median_ms']:,.1f}",
        f"{row['passes']:.2f}",
        f"{row['ratio']:.2f}" if timed else "",
        "{:.2f}..{:.2f}".format(*row["interval"]) if timed else "",
        goal,
        verdict(row),
        "" if row["max_difference"] is None else f"{row['max_difference']:.0e}",
    ]


if __name__ == "__main__":
    main()
