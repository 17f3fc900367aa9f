"""Benchmark of probes: clean-up beside torchhd, decoding beside bare matrix products, encoders beside each
other.

    python tests/benchmarks/probes.py           all rows; writes results/probes-cpu.json
    python tests/benchmarks/probes.py --quick   few rounds; writes nothing

Figure of merit: CPU time of the process on one thread, contenders interleaved in random order, ratio of
medians
with a 95% bootstrap interval over rounds. Every answer is compared before anything is timed.
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
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from timing import Contender, ratio_of_medians, time_rounds, verified

from probes import sweeps
from probes.evaluation import Split, group_split
from probes.hyperdimensional import HyperdimensionalProbe, decode
from probes.vsa import MAP, Codebook

RESULTS = Path(__file__).resolve().parent / "results" / "probes-cpu.json"
PACKAGES = ("torch", "torch-hd", "scikit-learn", "numpy")
D = 4096


def main() -> None:
    """Run every section, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Time probes against their peers.")
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows = [row for section in SECTIONS for row in section(3 if quick else 20)]
    for row in rows:
        goal = "" if row["goal"] is None else f"   goal {row['goal']}"
        print(f"{row['job']:<58}{row['seconds'] * 1e3:>10.2f} ms  {row['ratio']}{goal}")
    if not quick:
        machine = {
            "cpu": platform.processor() or platform.machine(),
            "threads": 1,
            "python": platform.python_version(),
        }
        content = {
            "schema": "interp.benchmarks.probes/1",
            "machine": machine,
            "versions": {name: version(name) for name in PACKAGES},
            "rows": rows,
        }
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def cleanup(rounds: int) -> list[dict[str, Any]]:
    """One query among 10,000 concepts, against torchhd; 256 queries, against the bare product."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchhd
    names = [str(i) for i in range(10_000)]
    codebook = Codebook.random(MAP(D), names)
    memory = torchhd.ensure_vsa_tensor(codebook.vectors, "MAP")
    noisy = codebook.vectors[77] * torch.where(torch.rand(D, generator=generator(1)) < 0.3, -1.0, 1.0)
    theirs = torchhd.ensure_vsa_tensor(noisy, "MAP")
    expected = codebook.vectors[77]

    def differs(found: Any) -> float:
        vector = (
            codebook[found.names[0][0]]
            if hasattr(found, "names")
            else torch.Tensor.as_subclass(found, torch.Tensor)
        )
        return float((vector - expected).abs().max())

    one = [
        Contender("torchhd.cleanup", lambda: torchhd.cleanup(theirs, memory), check=differs),
        Contender(
            "Codebook.top, one query",
            lambda: codebook.top(noisy[None], k=1),
            "torchhd.cleanup",
            1 / 50,
            differs,
        ),
    ]
    queries = torch.randn(256, D, generator=generator(2))
    matrix = codebook.matrix
    many = [
        Contender("bare product, 256 queries", lambda: queries @ matrix.T),
        Contender(
            "Codebook.top, 256 queries", lambda: codebook.top(queries, k=5), "bare product, 256 queries", 1.3
        ),
    ]
    return timed(one, max(3, rounds // 2)) + timed(many, max(3, rounds // 2))


def decoding(rounds: int) -> list[dict[str, Any]]:
    """2,000 predicted hypervectors among 1,000 concepts, with a role, against the bare product."""
    codebook = Codebook.random(MAP(D), [str(i) for i in range(1000)])
    vectors = torch.randn(2000, D, generator=generator(3))
    matrix = codebook.matrix
    rows = timed(
        [
            Contender("bare product, 2,000 x 1,000", lambda: vectors @ matrix.T),
            Contender(
                "decode, bare concepts", lambda: decode(codebook, vectors), "bare product, 2,000 x 1,000", 1.5
            ),
            Contender(
                "decode, with a role",
                lambda: decode(codebook, vectors, role="r"),
                "bare product, 2,000 x 1,000",
                1.5,
            ),
        ],
        rounds,
    )
    for row in rows[1:]:
        row["job"] += f" ({2000 / row['seconds']:,.0f} vectors/s)"
    return rows


def training(rounds: int) -> list[dict[str, Any]]:
    """4,000 states of width 64, 500 concepts: the encoders, beside scikit-learn's Ridge."""
    embeddings = torch.randn(500, 64, generator=generator(4))
    names = [str(i) for i in range(500)]
    codebook = Codebook.from_embeddings(MAP(D), names, embeddings)
    codes = torch.randint(0, 400, (4000,), generator=generator(5))
    held = torch.randint(400, 500, (500,), generator=generator(6))
    X = embeddings[codes] + 0.5 * torch.randn(4000, 64, generator=generator(7))
    later = (
        embeddings[held] + 0.5 * torch.randn(500, 64, generator=generator(8)),
        [names[i] for i in held.tolist()],
    )
    y = [names[i] for i in codes.tolist()]

    def fit(encoder: str) -> Any:
        return HyperdimensionalProbe(codebook, encoder=encoder).fit(X, y, validation=later)

    targets = codebook.vectors[codes].numpy()

    def sklearn_ridge() -> Any:
        penalties = np.array([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0]) * 4000
        return [Ridge(alpha=penalty).fit(X.numpy(), targets) for penalty in penalties]

    fast = [
        Contender("scikit-learn Ridge, 8 penalties, not chosen", sklearn_ridge),
        Contender("fit, ridge encoder", lambda: fit("ridge"), "scikit-learn Ridge, 8 penalties, not chosen"),
        Contender(
            "fit, linear encoder", lambda: fit("linear"), "scikit-learn Ridge, 8 penalties, not chosen"
        ),
    ]
    slow = [Contender("fit, mlp encoder (512 wide)", lambda: fit("mlp"))]
    return timed(fast, 3) + timed(slow, 1, warm_up=0)


def sweeping(rounds: int) -> list[dict[str, Any]]:
    """Every layer, seed and target: together, and one after the other through scikit-learn."""
    rows: list[dict[str, Any]] = []
    for layers, n, width, seeds, targets in ((24, 2000, 64, 5, 8), (6, 1000, 768, 2, 8)):
        states = torch.randn(layers, n, width, generator=generator(9), dtype=torch.float64)
        labels = (
            states[0] @ torch.randn(width, targets, generator=generator(10), dtype=torch.float64) > 0
        ).long()
        shape = f"{layers} layers x {seeds} seeds x {targets} targets, width {width}"
        for kind, goal in (("ridge", 1 / 10), ("mean-difference", 1 / 10), ("logistic", None)):
            job = SweepJob(kind, states, labels, range(seeds))
            theirs = f"scikit-learn loop, {kind}, {shape}"
            own = Contender(f"sweep, {kind}, {shape}", job.ours, theirs, goal, job.differs)
            rows += timed([Contender(theirs, job.loop, check=job.differs), own], max(1, min(rounds, 5) // 2))
    return rows


@dataclass(frozen=True, eq=False)
class SweepJob:
    """Fit the same probes both ways; both give ``[seed layer target dim]`` coefficients."""

    kind: str
    states: torch.Tensor
    labels: torch.Tensor
    seeds: range

    def ours(self) -> np.ndarray:
        """Fit all of them together."""
        return sweeps.sweep(
            self.states, self.labels, kind=self.kind, seeds=self.seeds, regularisation=0.01, solver="torch"
        ).coef

    def loop(self) -> np.ndarray:
        """Fit one after the other, each with its own scaling, as a careful user would."""
        coef = np.zeros((len(self.seeds), len(self.states), self.labels.shape[1], self.states.shape[2]))
        states, labels = self.states.numpy(), self.labels.numpy()
        for s, seed in enumerate(self.seeds):
            split = group_split(range(states.shape[1]), seed=seed)
            for at in range(len(states)):
                for t in range(labels.shape[1]):
                    coef[s, at, t] = self._one(states[at], labels[:, t], split)
        return coef

    def _one(self, values: np.ndarray, targets: np.ndarray, split: Split) -> np.ndarray:
        """Fit one probe and score it on validation and test, as a sweep does."""
        X, y = values[split.train], targets[split.train]
        if self.kind == "mean-difference":
            model = NearestCentroid().fit(X, y)
            coef, scaler = model.centroids_[1] - model.centroids_[0], None
        else:
            scaler, penalty = StandardScaler().fit(X), 0.01 * len(X)
            kind = Ridge(alpha=penalty) if self.kind == "ridge" else LogisticRegression(C=1 / penalty)
            model = kind.fit(scaler.transform(X), y)
            coef = np.ravel(model.coef_) / scaler.scale_
        for rows in (split.validation, split.test):
            seen = values[rows] if scaler is None else scaler.transform(values[rows])
            np.mean((model.predict(seen) > 0.5) == targets[rows])
        return coef

    def differs(self, found: np.ndarray) -> float:
        """Give one less the lowest cosine to the loop's coefficients, where it is above 0.001."""
        wanted = self.loop()
        norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
        least = float(((found * wanted).sum(axis=-1) / norms).min())
        return 0.0 if least >= 0.999 else 1 - least


SECTIONS = (cleanup, decoding, training, sweeping)


def timed(contenders: list[Contender], rounds: int, *, warm_up: int = 1) -> list[dict[str, Any]]:
    """Check, time, and give one row per contender."""
    for contender in contenders:
        verified(contender)
    seconds = time_rounds(contenders, rounds, warm_up=warm_up)
    rows: list[dict[str, Any]] = []
    for contender in contenders:
        ratio = ""
        if contender.floor:
            found = ratio_of_medians(seconds[contender.name], seconds[contender.floor])
            ratio = f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}] of {contender.floor}"
        rows.append(
            {
                "job": contender.name,
                "seconds": median(seconds[contender.name]),
                "rounds": rounds,
                "ratio": ratio,
                "goal": contender.goal,
            }
        )
    return rows


def generator(seed: int) -> torch.Generator:
    """Give a seeded generator."""
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
