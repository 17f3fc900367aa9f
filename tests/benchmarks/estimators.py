"""Benchmark of estimators: every search beside exact effects, on the stress models and on SmolLM2.

    python tests/benchmarks/estimators.py               the stress models; writes results/estimators-cpu.json
    python tests/benchmarks/estimators.py --reference   exact effects of SmolLM2's heads and MLPs, once
    python tests/benchmarks/estimators.py --real        SmolLM2 against it; goes on where a run stopped
    python tests/benchmarks/estimators.py --quick       one stress model; writes only where --json says

Every row of mediation.SEARCHES is run without verification over what it takes: heads and MLPs, and on stress
models whose circuit is known edge by edge all edges. On SmolLM2 one that would cost more than --limit passes
per pair is left out and says so (trained masks need 155 and 204). A cell is a mediator in
one direction (denoising, noising), all positions together (of parts of an edge the largest), mean over pairs.
Effects below 1% of the total effect count as none.

rank       Spearman correlation with the exact effects, signed, over all cells
precision  of as many cells as truly have 5% of the total effect, the largest estimates that claim as much
recall     of the cells that truly have it; a hit has the right sign
cost       forward passes per pair, a backward pass counted as one
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import worker
from capture import machine

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
RESULTS, REAL = HERE / "results" / "estimators-cpu.json", HERE / "results" / "estimators-smollm2-cpu.json"
REFERENCE = HERE / "results" / "smollm2-effects.json"
REAL_TASKS, REAL_NODES, REAL_PAIRS, SEED = ("indirect-object", "capitals"), ("head.*", "mlp_out.*"), 16, 0
NONE, PART, LIMIT = 0.01, 0.05, 10_000.0
EDGE_PAIRS = 4
BOTH = ("denoising", "noising")


def main() -> None:
    """Run what is asked, print the table, write the JSON and the text."""
    options = _options()
    os.environ.update(worker.ENVIRONMENT)
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    if options.reference:
        _write(REFERENCE, {"schema": "interp.benchmarks.effects/1", "tasks": reference()})
        return
    target = options.json or (None if options.quick else REAL if options.real else RESULTS)
    stored = options.real and target is not None and target.is_file()
    before = json.loads(target.read_text())["rows"] if stored else []
    known = {(row["case"], row["search"]): row for row in before if "cost" in row}
    cases = real_rows(options.limit, known) if options.real else stress_rows(quick=options.quick)
    new: dict[tuple[str, str], dict[str, Any]] = {}
    for row in cases:
        new[row["case"], row["search"]] = row
        found = list({**new, **known, **new}.values())  # what was measured before stays if this is stopped
        minutes = round((time.perf_counter() - started) / 60, 1)
        result = {"schema": "interp.benchmarks.estimators/1", "machine": machine()}
        if target is not None:  # after every row: a run that is stopped goes on
            timed = {} if known else {"minutes": minutes}
            _write(target, {**result, **timed, "rows": found})
            target.with_suffix(".txt").write_text(shown(found) + "\n")
    print(shown(list(new.values())))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hold every estimator to exact effects.")
    parser.add_argument("--reference", action="store_true", help="make the exact effects of SmolLM2")
    parser.add_argument("--real", action="store_true", help="SmolLM2 instead of the stress models")
    parser.add_argument("--quick", action="store_true", help="one stress model: shows that it works")
    parser.add_argument("--limit", type=float, default=140.0, help="of passes per pair on SmolLM2")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the result")
    return parser.parse_args()


def _write(target: Path, result: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")


def reference() -> dict[str, Any]:
    """Replace every head and MLP of SmolLM2 exactly, in both tasks and directions."""
    import interp
    from interp import mediation, tasks

    model, found = interp.load("smollm2"), {}
    for task in REAL_TASKS:
        print(f"{task} ...", file=sys.stderr, flush=True)
        pairs = tasks.sample(model, task, REAL_PAIRS, seed=SEED)
        told = mediation.exhaustive(model, pairs, list(REAL_NODES), positions="all")
        found[task] = {
            "pairs": len(pairs),
            "seed": SEED,
            "data": pairs.described["fingerprint"],
            "total": float(told.total.mean()),
            "noise": told.noise,
            "forwards": sum(told.cost[way]["forwards"] for way in BOTH) / len(pairs),
            "mediators": [str(one) for one in told.mediators],
            **{way: [round(float(one), 5) for one in told.mean(way)] for way in BOTH},
        }
    return found


Exact = dict[str, Any]


Rows = Iterator[dict[str, Any]]
Known = Mapping[tuple[str, str], dict[str, Any]]


def stress_rows(*, quick: bool) -> Rows:
    """The rows of every stress model; its exact effects are computed at once."""
    from interp import mediation
    from tests.stress.table import STRESS, stress

    for name in list(STRESS)[:1] if quick else STRESS:
        truth = stress(name)
        asked = {name: (truth.nodes, truth.pairs)}
        if truth.edges and not quick:
            asked |= {f"{name}, edges": (("edge.*",), truth.pairs[list(range(EDGE_PAIRS))])}
        for case, (nodes, pairs) in asked.items():
            print(f"{case} ...", file=sys.stderr, flush=True)
            told = mediation.exhaustive(truth.model, pairs, list(nodes), positions="all")
            exact = {
                "total": float(told.total.mean()),
                "forwards": sum(told.cost[way]["forwards"] for way in BOTH) / len(pairs),
                "mediators": [str(one) for one in told.mediators],
                **{way: told.mean(way) for way in BOTH},
            }
            yield from estimators(case, truth.model, pairs, nodes, exact, LIMIT, {})


def real_rows(limit: float, known: Known) -> Rows:
    """The rows of SmolLM2 against the stored reference; those that were measured before as they are.

    Raises:
        SystemExit: there is none, or it is of other pairs.
    """
    import interp
    from interp import tasks

    if not REFERENCE.is_file():
        raise SystemExit(f"{REFERENCE.name} is not there: run with --reference first.")
    stored, model = json.loads(REFERENCE.read_text())["tasks"], interp.load("smollm2")
    for task in REAL_TASKS:
        pairs = tasks.sample(model, task, REAL_PAIRS, seed=SEED)
        if stored[task]["data"] != pairs.described["fingerprint"]:
            raise SystemExit(f"{REFERENCE.name} is of other pairs of {task}: run with --reference again.")
        yield from estimators(f"smollm2 {task}", model, pairs, REAL_NODES, stored[task], limit, known)


def estimators(
    name: str,
    model: Any,
    pairs: Any,
    nodes: Sequence[str],
    exact: Exact,
    limit: float,
    known: Known,
) -> Rows:
    """One row per search that takes these mediators, without verification and within a limit of cost."""
    from interp import mediation
    from interp.errors import InterpError
    from interp.mediation.searches import effects

    asked = {"positions": "all", "metric": "logit-diff", "seed": SEED}
    for key, search in mediation.SEARCHES.items():
        if ("edges" if nodes[0].startswith("edge.") else "sites") not in search.over:
            continue
        if (name, key) in known:
            yield known[name, key]
            continue
        bare: Any = replace(search, verify=0) if hasattr(search, "verify") else search
        row: dict[str, Any] = {"case": name, "search": key}
        try:
            cost = mediation.plan(model, pairs, list(nodes), search=bare, **asked).forwards / len(pairs)
            if search.exact and key == "exhaustive":
                row |= scored(exact, exact) | {"cost": exact["forwards"]}
            elif cost > limit:
                row |= {"left_out": f"costs {cost:,.0f} forwards per pair, exact {exact['forwards']:,.0f}"}
            else:
                print(f"  {key} ...", file=sys.stderr, flush=True)
                told = effects(model, pairs, list(nodes), search=bare, **asked)
                row |= scored(exact, _whole(told, exact["mediators"])) | {"cost": cost}
        except InterpError as error:
            row |= {"left_out": str(error)}
        yield row


def _whole(told: Any, names: Sequence[str]) -> Exact:
    """Estimates of both directions by mediator; of the parts of an edge the largest."""
    found: Exact = {}
    for way in BOTH:
        best: dict[str, float] = {}
        for one, value in zip(told.mediators, told.mean(way), strict=True):
            name = str(one).partition("@")[0]
            best[name] = max(best.get(name, 0.0), float(value), key=abs)
        found[way] = [best[name] for name in names]
    return found


def scored(exact: Exact, told: Exact) -> dict[str, Any]:
    """Rank correlation, precision and recall of estimates beside exact effects."""
    from scipy import stats

    truth, guess = (_cells(one, exact["total"]) for one in (exact, told))
    there = np.abs(truth) >= PART
    order = np.argsort(-np.abs(guess), kind="stable")[: int(there.sum())]
    picked = order[np.abs(guess[order]) >= PART]
    hits = int((there & (np.sign(guess) == np.sign(truth)))[picked].sum())
    rank: Any = stats.spearmanr(truth, guess) if np.ptp(guess) and np.ptp(truth) else None
    return {
        "rank": None if rank is None else float(rank.statistic),
        "precision": hits / len(picked) if len(picked) else None,
        "recall": hits / int(there.sum()),
        "true_size": int(there.sum()),
        "cells": len(truth),
    }


def _cells(values: Exact, total: float) -> np.ndarray:
    """Both directions, in shares of the total effect; what is below a hundredth is none."""
    shares = np.concatenate([np.asarray(values[way], dtype=float) for way in BOTH]) / abs(total)
    return np.where(np.abs(shares) < NONE, 0.0, shares)


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as text."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "case": lambda row: row["case"],
        "search": lambda row: row["search"],
        "rank": lambda row: _number(row.get("rank")),
        "precision": lambda row: _number(row.get("precision")),
        "recall": lambda row: _number(row.get("recall")),
        "true size": lambda row: str(row.get("true_size", "")),
        "cost": lambda row: f"{row['cost']:.1f}" if "cost" in row else row["left_out"],
    }
    cells = [list(columns), *([show(row) for show in columns.values()] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns) - 1)] + [0]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    best = [winner(rows, case) for case in dict.fromkeys(row["case"] for row in rows)]
    return "\n".join(line.rstrip() for line in [*lines, "", *best])


def winner(rows: Sequence[dict[str, Any]], case: str) -> str:
    """The estimate with the best recall; of those within 0.05 of its best rank correlation the cheapest."""
    known = [row for row in rows if row["case"] == case and "cost" in row and row["search"] != "exhaustive"]
    if not known:
        return f"{case}: nothing but exact effects was run"
    recall = max(row["recall"] for row in known)
    first = [row for row in known if row["recall"] >= recall - 1e-9]
    rank = max(row["rank"] if row["rank"] is not None else -1.0 for row in first)
    near = [row for row in first if (-1.0 if row["rank"] is None else row["rank"]) >= rank - 0.05]
    best = min(near, key=lambda row: row["cost"])
    told = f"recall {_number(best['recall'])}, rank {_number(best['rank'])}, {best['cost']:.1f} passes a pair"
    return f"{case}: {best['search']} ({told})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
