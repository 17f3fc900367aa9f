"""Benchmark of calibration: what GPTQ and AWQ change next to schemes that look at no text.

    python tests/benchmarks/calibrated.py           the table; writes results/calibrated-cpu.json and .txt
    python tests/benchmarks/calibrated.py --quick   one seed, few texts; writes where --json says

Needs gptqmodel, the extra [gptq]. Version 7.7 asks for a newer torch than constraints.txt has, but runs:
    pip install --no-deps gptqmodel==7.7.0 defuser device-smi logbar tokenicer pypcre

The bundled model, dense mode, every weight matrix of the blocks.
Calibration: sentences of its own corpus with answers, training split, drawn with each seed. Measured on
sentences of the held-out split: KL(full || scheme) in nats and top-1 agreement, the mean over all positions
of all prompts, with a 95% interval from resampling prompts. The error is |W - Wq| / |W|, mean over matrices.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import worker
from capture import machine

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
RESULTS = HERE / "results" / "calibrated-cpu.json"
SCHEMES = ("bf16", "rtn8", "int8", "bnb8", "gptq8", "rtn4", "int4", "nf4", "fp4", "gptq4", "awq4", "rtn2")
TEXTS, PROMPTS, SEEDS, DRAWS = 256, 64, (0, 1, 2), 2000


def main() -> None:
    """Measure every scheme, print the table, write the JSON and the text."""
    options = _options()
    os.environ.update(worker.ENVIRONMENT)
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    texts, seeds = (32, SEEDS[:1]) if options.quick else (TEXTS, SEEDS)
    result: dict[str, Any] = {"schema": "interp.benchmarks.calibrated/1", "machine": machine()}
    result |= {"texts": texts, "prompts": PROMPTS, "seeds": list(seeds), "rows": measured(texts, seeds)}
    result["minutes"] = round((time.perf_counter() - started) / 60, 1)
    table = shown(result)
    print(table)
    target = options.json or (None if options.quick else RESULTS)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")
        target.with_suffix(".txt").write_text(table + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what calibration is worth.")
    parser.add_argument("--quick", action="store_true", help="one seed, few texts: shows that it works")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the result")
    return parser.parse_args()


def measured(texts: int, seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """Give one row per scheme and, where texts matter, per seed they were drawn with."""
    import interp
    from interp.quantization import SCHEMES as TABLE
    from interp.quantization import calibration_texts

    model, rows = interp.load("demo"), []
    prompts = held_out(PROMPTS, seed=100)
    full = log_probabilities(model, prompts)
    for scheme in SCHEMES:
        for seed in seeds if TABLE[scheme].needs_calibration else (None,):
            print(f"{scheme} {'' if seed is None else seed} ...", file=sys.stderr, flush=True)
            calibration = None if seed is None else calibration_texts(texts, seed=seed)
            rows.append({"scheme": scheme, "seed": seed} | row(model, scheme, calibration, prompts, full))
    return rows


def held_out(n: int, *, seed: int) -> list[str]:
    """Draw sentences of which the bundled model has seen none, the tasks in turn."""
    from interp import tasks

    world, rng, names = tasks.load_world(), random.Random(seed), list(tasks.TASKS)
    return [tasks.TASKS[names[at % len(names)]].generate(world, rng, "held-out").text for at in range(n)]


def log_probabilities(model: Any, prompts: list[str]) -> list[Any]:
    """Give the log-probabilities after every token of every prompt, ``[pos vocab]`` each."""
    import torch

    lengths = [len(row) for row in model.tokenize(prompts).token_ids]
    logits = model.run(prompts, logits="all").logits
    return [
        torch.log_softmax(rows[:length].double(), -1) for rows, length in zip(logits, lengths, strict=True)
    ]


def row(model: Any, scheme: str, calibration: Any, prompts: list[str], full: list[Any]) -> dict[str, Any]:
    """Quantize and compare."""
    from interp.errors import InterpError
    from interp.quantization import quantize

    try:
        quantized = quantize(model, scheme, calibration=calibration)
    except InterpError as error:
        return {"missing": str(error)}
    report = quantized.quantization
    pairs = list(zip(full, log_probabilities(quantized, prompts), strict=True))
    kl = [(p.exp() * (p - q)).sum(-1).numpy() for p, q in pairs]
    same = [(p.argmax(-1) == q.argmax(-1)).double().numpy() for p, q in pairs]
    found = {"kl": interval(kl), "top1": interval(same), "error": report.weight_error}
    return found | {"seconds": report.seconds, "bytes": report.bytes_after, "tokens": _tokens(report)}


def _tokens(report: Any) -> int | None:
    return report.calibration.get("tokens")


def interval(values: list[Any]) -> list[float]:
    """Give the mean over all positions, and a 95% interval from resampling prompts."""
    sums, sizes = np.array([one.sum() for one in values]), np.array([len(one) for one in values])
    drawn = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return [float(sums.sum() / sizes.sum()), *map(float, np.quantile(means, (0.025, 0.975)))]


def shown(result: dict[str, Any]) -> str:
    """Write the table."""
    lines = [
        "machine: " + ", ".join(f"{key} {value}" for key, value in result["machine"].items()),
        "",
        f"bundled model, dense; {result['texts']} calibration sentences; measured on {result['prompts']}",
        "held-out sentences, all positions; KL(full || scheme) in nats; intervals from resampling sentences",
        "",
    ]
    form = "{:<7}{:>5}{:>8}{:>9}{:>8}{:>8}  {:<31}{:<24}"
    heads = ("scheme", "seed", "tokens", "seconds", "MB", "error", "KL [95%]", "top-1 [95%]")
    lines.append(form.format(*heads).rstrip())
    for one in result["rows"]:
        if "missing" in one:
            lines.append(f"{one['scheme']:<7}{one['missing']}")
            continue
        blank = ["" if one[key] is None else str(one[key]) for key in ("seed", "tokens")]
        cells = [f"{one['seconds']:.1f}", f"{one['bytes'] / 1e6:.2f}", f"{one['error']:.3f}"]
        kl = "{:.2e} [{:.2e}, {:.2e}]".format(*one["kl"])
        top = "{:.3f} [{:.3f}, {:.3f}]".format(*one["top1"])
        lines.append(form.format(one["scheme"], *blank, *cells, kl, top).rstrip())
    return "\n".join([*lines, "", f"took {result['minutes']} minutes"])


if __name__ == "__main__":
    main()
