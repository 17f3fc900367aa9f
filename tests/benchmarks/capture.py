"""Benchmark of capture: what reading the residual stream costs, here and in the libraries people use today.

    python tests/benchmarks/capture.py           all rows; writes results/capture-cpu.json
    python tests/benchmarks/capture.py --quick   few rounds, one shape; writes only where --json says

Figure of merit: CPU time of the process on one thread, contenders interleaved in random order, ratio of
medians over at least 20 rounds with a 95% bootstrap interval. Every contender's numbers are compared with
Hugging Face's hidden states before it is timed: this toolkit's must be equal, the others' within 1e-5 of the
layer's largest entry. Layers read alone are compared with a whole forward pass as people call it (default
arguments), everything else like for like (no cache, one row of logits).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import worker
from subjects import SUBJECTS, prepare
from timing import ratio_of_medians

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "capture-cpu.json"
JOBS = ("interp", "transformer_lens", "nnsight")
PACKAGES = ("torch", "transformers", "transformer-lens", "nnsight", "numpy")
SECONDS = 0.3


def main() -> None:
    """Run every process, print the table, write the JSON."""
    options = _options()
    os.environ.update(worker.ENVIRONMENT)
    if options.worker:
        worker.main(*options.worker[:2], Path(options.worker[2]), quick=options.quick)
        return
    started = time.perf_counter()
    result: dict[str, Any] = {"schema": "interp.benchmarks.capture/1", "machine": machine()}
    with tempfile.TemporaryDirectory() as scratch:
        result |= {"settings": settings(options.quick)} | measure(Path(scratch), quick=options.quick)
    result["help"] = help_row(2 if options.quick else 5)
    result["minutes"] = round((time.perf_counter() - started) / 60, 1)
    show(result)
    target = options.json or (None if options.quick else RESULTS)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time capture against raw Hugging Face and other libraries.")
    parser.add_argument("--quick", action="store_true", help="few rounds and one shape: shows that it works")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the result")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Describe the machine and the libraries, without naming either host or user."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def settings(quick: bool) -> dict[str, Any]:
    """Say how things are measured."""
    return {
        "quick": quick,
        "threads": 1,
        "time": "CPU seconds of the process",
        "ratio": "of medians over interleaved rounds; interval: 95% bootstrap over rounds",
        "like_for_like": "use_cache=False, logits_to_keep=1 for both",
    }


def measure(scratch: Path, *, quick: bool) -> dict[str, Any]:
    """Run one process per model and library, and one per model for loading."""
    rows: list[dict[str, Any]] = []
    loads: list[dict[str, Any]] = []
    weights = {}
    for subject in SUBJECTS.values():
        name = subject.name
        folder, weights[name] = prepare(subject, scratch)
        for job in JOBS:
            rows += [
                {"model": name, "process": job, **row} for row in summarise(run(job, name, folder, quick))
            ]
        loads += [load_row(name, line) for line in run("load", name, folder, quick)]
    return {"models": weights, "rows": rows, "loads": loads}


def run(job: str, name: str, folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Run one job in a process of its own and return its JSON lines.

    Raises:
        RuntimeError: the process failed; its last words are in the message.
    """
    print(f"{name}: {job} ...", file=sys.stderr, flush=True)
    command = [sys.executable, str(HERE / "capture.py"), *(["--quick"] if quick else [])]
    done = subprocess.run([*command, "--worker", job, name, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{job} on {name} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
    return [json.loads(line) for line in done.stdout.splitlines()]


def summarise(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn the rounds of one process into medians and ratios to its own floors."""
    seconds = {(line["tokens"], line["row"]): line["seconds"] for line in lines}
    rows = []
    for line in lines:
        times = line.pop("seconds")
        row = {**line, "rounds": len(times), "median_ms": round(1000 * median(times), 3)}
        if line["floor"]:
            ratio = ratio_of_medians(times, seconds[line["tokens"], line["floor"]])
            row |= {"ratio": round(ratio.value, 3), "interval": [round(ratio.low, 3), round(ratio.high, 3)]}
        if line["goal"] is not None:
            row |= {"goal": round(line["goal"], 3), "met": ratio.value <= line["goal"]}
        rows.append(row)
    return rows


def load_row(name: str, line: dict[str, Any]) -> dict[str, Any]:
    """Subtract Hugging Face's own loading of the same model and tokenizer."""
    parts = {part: {key: round(value, 3) for key, value in costs.items()} for part, costs in line.items()}
    ours, model, tokenizer = line["interp.load"], line["model"], line["tokenizer"]
    added = {key: round(ours[key] - model[key] - tokenizer[key], 3) for key in ours}
    return {
        "model": name,
        "seconds": parts,
        "added": added,
        "goal_s": SECONDS,
        "met": added["cpu_s"] < SECONDS,
    }


def help_row(times: int) -> dict[str, Any]:
    """Time ``interp --help`` in fresh processes and look for torch among what it imports."""
    command = [sys.executable, "-m", "interp", "--help"]
    walls = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        walls.append(time.perf_counter() - started)
    traced = subprocess.run([command[0], "-X", "importtime", *command[1:]], capture_output=True, text=True)
    lines = [line for line in traced.stderr.splitlines() if line.startswith("import time")]
    torch_loaded = "torch" in {line.rpartition("|")[2].strip() for line in lines}
    best = round(min(walls), 3)
    met = best < SECONDS and not torch_loaded
    return {"best_wall_s": best, "of": times, "torch_loaded": torch_loaded, "goal_s": SECONDS, "met": met}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print("models: " + ", ".join(f"{name} ({weights})" for name, weights in result["models"].items()))
    print("machine: " + ", ".join(f"{key} {value}" for key, value in result["machine"].items()) + "\n")
    form = "{:<11}{:<7}{:<17}{:<38}{:>8}{:>7}  {:<12}{:>5} {:<7}{:>7}"
    print(form.format("model", "tokens", "process", "row", "ms", "ratio", "95%", "goal", "", "differs"))
    for row in result["rows"]:
        print(form.format(*_cells(row)))
    print()
    for row in result["loads"]:
        print(_load_line(row))
    found = result["help"]
    torch = "loaded" if found["torch_loaded"] else "not loaded"
    print(f"interp --help: {found['best_wall_s']:.2f} s wall, best of {found['of']}, torch {torch}", end="")
    print(f"; goal < {found['goal_s']} s: {verdict(found)}\ntook {result['minutes']} minutes")


def _load_line(row: dict[str, Any]) -> str:
    model, tokenizer, first = (row["seconds"][key]["cpu_s"] for key in ("model", "tokenizer", "fingerprint"))
    return (
        f"interp.load, {row['model']}: adds {row['added']['cpu_s']:.2f} s CPU "
        f"({row['added']['wall_s']:.2f} s wall) to "
        f"{model:.2f} s for the model and {tokenizer:.2f} s for the tokenizer; goal < {row['goal_s']} s: "
        f"{verdict(row)}; the first capture pays {first:.2f} s once for the fingerprint"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    timed = "interval" in row
    return [
        *(row[key] for key in ("model", "tokens", "process", "row")),
        f"{row['median_ms']:.2f}",
        f"{row['ratio']:.2f}" if timed else "",
        "{:.2f}..{:.2f}".format(*row["interval"]) if timed else "",
        "" if row["goal"] is None else f"{row['goal']:.2f}",
        verdict(row),
        "" if row["max_difference"] is None else f"{row['max_difference']:.0e}",
    ]


def verdict(row: dict[str, Any]) -> str:
    """Return the word for a goal met or missed."""
    return {True: "met", False: "MISSED"}.get(row.get("met"), "")


if __name__ == "__main__":
    main()
