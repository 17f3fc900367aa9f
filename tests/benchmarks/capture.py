"""Time capture of the residual stream: this library, its peers and plain Hugging Face, on one CPU thread.

    python tests/benchmarks/capture.py                 all of it, a few minutes; writes results/capture-cpu.json
    python tests/benchmarks/capture.py --rounds 5      quicker and noisier

Each peer has a process of its own, with its own raw floor. Within a process, calls are interleaved in random order and
CPU time is taken. A ratio is of medians, with a 95% interval over rounds. Numbers are compared with a reference in the
same run: a peer that reads something else is an error (exit code 1). Goals that are missed are said to be missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from timing import interleave, ratio

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "capture-cpu.json"
PEERS = ("native", "transformer-lens", "nnsight")
TOLERANCE = 1e-5
HEAVY = ("torch", "transformers", "numpy", "pandas", "pydantic")


@dataclass(frozen=True)
class Line:
    """Hold one line of the table.

    Attributes:
        model: which model.
        shape: prompts x tokens.
        what: what was timed.
        floor: what it is compared with; "" where ``value`` is in seconds.
        value: ratio of medians, or seconds.
        low: of the 95% interval.
        high: of the 95% interval.
        milliseconds: median CPU time of the call itself.
        goal: the largest value aimed at.
        difference: largest absolute difference from the reference, in units of its largest value.
    """

    model: str
    shape: str
    what: str
    floor: str
    value: float
    low: float
    high: float
    milliseconds: float
    goal: float | None = None
    difference: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached, if there is one."""
        return None if self.goal is None else self.value <= self.goal


def peer_lines(peer: str, model: str, folder: Path, shape: str, rounds: int) -> list[Line]:
    """Run one peer in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out.json"
        _run([sys.executable, str(HERE / "peers.py"), peer, str(folder), shape, str(rounds), str(out)])
        found = json.loads(out.read_text())
    return [_line(row, found, peer, model, shape) for row in found["rows"] if row["name"] != row["floor"]]


def _line(row: dict[str, Any], found: dict[str, Any], peer: str, model: str, shape: str) -> Line:
    name, seconds, difference = row["name"], found["seconds"], found["differences"][row["name"]]
    value, low, high = ratio(seconds[name], seconds[row["floor"]])
    relative = None if difference is None else difference / found["scale"]
    what = f"{name} [in the process of {peer}]" if name.startswith("Hugging") else name
    return Line(model, shape, what, row["floor"], value, low, high, _ms(seconds[name]), row["goal"], relative)


def _ms(seconds: list[float]) -> float:
    return 1e3 * statistics.median(seconds)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[1:4])} failed:\n{done.stderr[-3000:]}")


def environment() -> dict[str, str]:
    """Return the environment of every measurement: one thread, offline."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def load_line(model: str, folder: Path, rounds: int) -> Line:
    """Measure what ``interp.load`` adds to Hugging Face's own loading of model and tokenizer, in CPU seconds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import interp

    torch.set_num_threads(1)

    def plain() -> object:
        return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    seconds = interleave({"plain": plain, "interp": lambda: interp.load(folder)}, rounds=rounds, warmup=1)
    added = sorted(ours - theirs for ours, theirs in zip(seconds["interp"], seconds["plain"], strict=True))
    value = statistics.median(added)
    what = "interp.load, seconds added to from_pretrained"
    return Line(model, "", what, "", value, added[0], added[-1], _ms(seconds["interp"]), 0.3)


def help_line(rounds: int) -> Line:
    """Measure ``interp --help`` in fresh processes, in CPU seconds, and check that nothing heavy is loaded."""
    code = f"import sys; from interp.cli import main; main(['--help']); sys.exit(any(m in sys.modules for m in {HEAVY}))"
    _run([sys.executable, "-c", code])
    seconds = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _run([sys.executable, "-m", "interp", "--help"])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    value = statistics.median(seconds)
    return Line("", "", f"interp --help, seconds ({', '.join(HEAVY)} not loaded)", "", value, min(seconds), max(seconds), 1e3 * value, 0.3)  # fmt: skip


def show(lines: list[Line]) -> str:
    """Write the lines as a table."""
    head = f"{'model':6}{'shape':7}{'what':50}{'floor':37}{'value':>7} {'95% interval':15}{'goal':>6}         difference"
    rows = [head, "-" * len(head)]
    for line in lines:
        goal = f"{line.goal:6.2f} {'reached' if line.reached else 'MISSED '}" if line.goal else " " * 14
        gap = "" if line.difference is None else f"{line.difference:.0e}"
        spread = f"[{line.low:.2f}, {line.high:.2f}]"
        rows.append(
            f"{line.model:6}{line.shape:7}{line.what:50}{line.floor:37}{line.value:7.2f} {spread:15}{goal} {gap}"
        )
    return "\n".join(rows)


def machine() -> dict[str, Any]:
    """Describe what the numbers were taken on."""
    packages = ("torch", "transformers", "transformer-lens", "nnsight")
    info = Path("/proc/cpuinfo")
    names = [row for row in (info.read_text() if info.exists() else "").splitlines() if row.startswith("model name")]
    cpu = names[0].partition(":")[2].strip() if names else platform.machine()
    versions = {name: version(name) for name in packages}
    return {"cpu": cpu, "threads": 1, "python": platform.python_version(), "versions": versions}


def main() -> int:
    """Measure everything, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--models", default="demo,gpt2")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    os.environ.update(environment())
    from models import SHAPES, folder_of  # torch reads the number of threads when it is imported

    start, lines, kinds = time.monotonic(), [], {}
    with tempfile.TemporaryDirectory() as work:
        for model in asked.models.split(","):
            folder, kinds[model] = folder_of(model, Path(work))
            for shape in SHAPES[model]:
                for peer in PEERS:
                    lines += peer_lines(peer, model, folder, shape, asked.rounds)
            lines.append(load_line(model, folder, 5))
    lines.append(help_line(5))
    wrong = [line for line in lines if line.difference is not None and line.difference > TOLERANCE]
    facts = {"schema": "interp.benchmark/1", "models": kinds, "rounds": asked.rounds, "machine": machine()}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(facts | {"lines": [asdict(line) for line in lines]}, indent=1) + "\n")
    missed = sum(line.reached is False for line in lines)
    print(show(lines))
    print(f"\n{len(lines)} lines in {time.monotonic() - start:.0f} s; goals missed: {missed}; numbers that differ: {len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
