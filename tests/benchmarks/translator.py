"""Benchmark of translators: 24 layers in one pass beside a loop of scikit-learn ridges, decoding, memory.

    python tests/benchmarks/translator.py           times; writes results/translator-cpu.json
    python tests/benchmarks/translator.py --quick   few rounds; writes nothing
    python tests/benchmarks/translator.py --memory  width 4,096, 100,000 states; results/...-memory-4096.json

Figure of merit: CPU time of the process on one thread, contenders interleaved in random order, ratio of
medians with a 95% bootstrap interval over rounds; memory is the largest resident size of a fresh process.
Every answer is compared with scikit-learn's before anything is timed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package of this file's name, not this file

import argparse
import json
import platform
import re
import subprocess
import time
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from timing import Contender, ratio_of_medians, time_rounds, verified

from probes.translation import PENALTIES, Moments, Translator, fit_translator

HERE = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "scikit-learn", "numpy")
LAYERS, WIDTH, STATES, HELD_OUT = 24, 256, 2048, 256
VOCABULARY = 16_384
WIDE, MANY, BLOCK = 4096, 100_000, 2048


def main() -> None:
    """Run what was asked for, print it, write it."""
    parser = argparse.ArgumentParser(description="Time translators against their peers.")
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    parser.add_argument("--memory", action="store_true", help="the large fit, in a process of its own")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--states", type=int, default=MANY, help="of the large fit")
    parser.add_argument("--width", type=int, default=WIDE, help="of the large fit")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.child:
        large(given.child, given.width)
    elif given.memory:
        memory(given.states, given.width)
    else:
        rows = [row for section in (fitting, decoding) for row in section(2 if given.quick else 4)]
        for row in rows:
            print(f"{row['job']:<72}{row['seconds'] * 1e3:>10.1f} ms  {row['ratio']}")
        if not given.quick:
            written("translator-cpu.json", "interp.benchmarks.translator/1", rows)


def written(name: str, schema: str, rows: list[dict[str, Any]]) -> None:
    """Write rows with the machine and the versions."""
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "threads": 1,
        "python": platform.python_version(),
    }
    versions = {name: version(name) for name in PACKAGES}
    content = {"schema": schema, "machine": machine, "versions": versions, "rows": rows}
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n")


def states(n: int, width: int, seed: int) -> torch.Tensor:
    """States with a spectrum that falls, and a large mean, as those of language models."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=draws) * torch.logspace(1, -1, width) + 5


def fitting(rounds: int) -> list[dict[str, Any]]:
    """All layers with one penalty, and with the one of 21 that is best on held-out states."""
    mixing = [states(WIDTH, WIDTH, 100 + layer) / WIDTH for layer in range(LAYERS)]
    finals, later = states(STATES, WIDTH, 1), states(HELD_OUT, WIDTH, 2)
    noise = [
        0.1 * torch.randn(len(part), WIDTH, generator=torch.Generator().manual_seed(3))
        for part in (finals, later)
    ]
    train = [finals @ turn + noise[0] for turn in mixing]
    held = [later @ turn + noise[1] for turn in mixing]

    def ours(penalties: tuple[float, ...]) -> list[Translator]:
        """One pass over blocks of states, every layer's moments at once; then a solution a layer."""
        gathered = [(Moments(WIDTH, WIDTH), Moments(WIDTH, WIDTH)) for _ in range(LAYERS)]
        for start in range(0, STATES, BLOCK):
            part = slice(start, start + BLOCK)
            for layer, (first, _) in enumerate(gathered):
                first.add(train[layer][part], finals[part])
        for layer, (_, second) in enumerate(gathered):
            second.add(held[layer], later)
        return [fit_translator(first, second, penalties) for first, second in gathered]

    def theirs(penalties: tuple[float, ...]) -> list[Ridge]:
        """A ridge a layer and penalty, in float64 as ours, the one with the least held-out error kept."""
        y, target = finals.double().numpy(), later.double().numpy()
        kept = []
        for one, other in zip(train, held, strict=True):
            x, test = one.double().numpy(), other.double().numpy()
            scale = len(x) * x.var(axis=0).mean()
            models = [Ridge(alpha=penalty * scale).fit(x, y) for penalty in penalties]
            errors = [np.square(model.predict(test) - target).sum() for model in models]
            kept.append(models[int(np.argmin(errors))])
        return kept

    found = []
    for penalties in ((1e-3,), PENALTIES):
        right = theirs(penalties)

        def differs(made: list[Translator], right: list[Ridge] = right) -> float:
            pairs = zip(made, right, strict=True)
            return max(float(np.abs(one.weight.numpy() - two.coef_.T).max()) for one, two in pairs)

        words = f"{LAYERS} layers, width {WIDTH}, {STATES:,} states, penalties: {len(penalties)}"
        floor = Contender(f"scikit-learn Ridge, {words}", lambda p=penalties: theirs(p))
        mine = Contender(f"one pass, {words}", lambda p=penalties: ours(p), floor.name, None, differs, 1e-6)
        found += timed([floor, mine], rounds)
    return found


def decoding(rounds: int) -> list[dict[str, Any]]:
    """States to logits of a vocabulary, beside two bare products; and the way back."""
    train = Moments(WIDTH, WIDTH).add(states(STATES, WIDTH, 1), states(STATES, WIDTH, 2))
    found = fit_translator(train, Moments(WIDTH, WIDTH).add(states(64, WIDTH, 3), states(64, WIDTH, 4)))
    head = torch.randn(WIDTH, VOCABULARY, generator=torch.Generator().manual_seed(5))
    given, change = states(1024, WIDTH, 6), states(1024, WIDTH, 7)
    weight, offset = found.weight.float(), found.offset.float()
    bare = Contender(
        f"two bare products, 1,024 states, width {WIDTH}, {VOCABULARY:,} tokens",
        lambda: (given @ weight + offset) @ head,
    )
    right = bare.call()
    ours = Contender(
        f"translator and head, 1,024 states, width {WIDTH}, {VOCABULARY:,} tokens",
        lambda: found(given) @ head,
        bare.name,
        None,
        lambda logits: float((logits - right).abs().max()),
        1e-3,
    )
    back = Contender(f"pull_back, 1,024 changes, width {WIDTH}", lambda: found.pull_back(change), bare.name)
    return timed([bare, ours, back], rounds)


def timed(contenders: list[Contender], rounds: int) -> list[dict[str, Any]]:
    """Verify, then time in turns."""
    differences = {one.name: verified(one) for one in contenders}
    seconds = time_rounds(contenders, rounds, warm_up=1)
    rows = []
    for one in contenders:
        ratio = ""
        if one.floor:
            found = ratio_of_medians(seconds[one.name], seconds[one.floor])
            ratio = f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}] of {one.floor}"
        row = {"job": one.name, "seconds": median(seconds[one.name]), "rounds": rounds, "ratio": ratio}
        rows.append({**row, "largest_difference": differences[one.name]})
    return rows


def memory(n: int, width: int) -> None:
    """The same fit of few and of many states, each in a fresh process: the peak does not grow with them."""
    rows = []
    for count in (2 * BLOCK, n):
        command = [sys.executable, __file__, "--child", str(count), "--width", str(width)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(told))
        print(rows[-1])
    written(f"translator-memory-{width}.json", "interp.benchmarks.translator-memory/1", rows)


def large(n: int, width: int) -> None:
    """Fit from states that come block by block, and print the resident peaks in megabytes."""
    start, before = time.process_time(), peak()
    train, held = Moments(width, width), Moments(width, width)
    for number, at in enumerate(range(0, n, BLOCK)):
        block = states(min(BLOCK, n - at), width, number)
        train.add(block, block.flip(1))
    gathered, moments = time.process_time(), peak()
    held.add(states(512, width, 10**6), states(512, width, 10**6).flip(1))
    found = fit_translator(train, held)
    row = {
        "states": n,
        "width": width,
        "megabytes_of_the_states_in_float64": round(2 * n * width * 8 / 2**20),
        "peak_before": before,
        "peak_after_moments": moments,
        "peak_after_fit": peak(),
        "seconds_of_moments": round(gathered - start, 1),
        "seconds_of_fit": round(time.process_time() - gathered, 1),
        "explained": found.score,
    }
    print(json.dumps(row))


def peak() -> int:
    """The largest resident size of this process so far, in megabytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


if __name__ == "__main__":
    main()
