"""How often intervals hold the truth, and how wide they are: by simulation, with known truth.

    python -m pytest tests/simulations -m slow -s

Nothing here is the project's own arithmetic but the intervals themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from probes.evaluation import auroc
from probes.statistics import bootstrap, mean_tests, paired_difference

pytestmark = pytest.mark.slow

COUNTS = (6, 10, 30, 100)
SHAPES = ("equal", "unequal")
LEAST = 0.93


def sizes(count: int, shape: str, rng: np.random.Generator) -> np.ndarray:
    """Examples per group: four each; or from one to twenty, the first with a quarter of everything."""
    if shape == "equal":
        return np.full(count, 4)
    drawn = np.minimum(rng.geometric(0.3, count), 20)
    drawn[0] = max(drawn[0], drawn[1:].sum() // 3)
    return drawn


def mean_case(rng: np.random.Generator, groups: np.ndarray) -> tuple[float, float, float]:
    values = 1 + rng.normal(size=groups.max() + 1)[groups] + rng.normal(size=len(groups))
    found = bootstrap(values, groups=groups).interval
    return found.low, found.high, 1.0


def skewed_case(rng: np.random.Generator, groups: np.ndarray) -> tuple[float, float, float]:
    values = rng.exponential(size=groups.max() + 1)[groups] + 0.3 * rng.normal(size=len(groups))
    found = bootstrap(values, groups=groups).interval
    return found.low, found.high, 1.0


def share_case(rng: np.random.Generator, groups: np.ndarray, p: float = 0.85) -> tuple[float, float, float]:
    ability = rng.beta(4 * p, 4 * (1 - p), groups.max() + 1)
    found = bootstrap((rng.random(len(groups)) < ability[groups]).astype(int), groups=groups).interval
    return found.low, found.high, p


def auroc_case(rng: np.random.Generator, groups: np.ndarray) -> tuple[float, float, float]:
    labels = rng.permutation(np.arange(groups.max() + 1) % 2)[groups]
    shift = 1.0
    own = 0.6 * rng.normal(size=groups.max() + 1)[groups] + 0.8 * rng.normal(size=len(groups))
    scores = shift * labels + own
    found = auroc(labels, scores, groups=groups).interval
    # Two normals of variance 1, one apart: the chance that one exceeds the other.
    return found.low, found.high, 0.7602499389065233


def difference_case(rng: np.random.Generator, groups: np.ndarray) -> tuple[float, float, float]:
    hard = rng.beta(2, 2, groups.max() + 1)[groups]
    first, second = rng.random(len(groups)) < 0.6 + 0.4 * hard, rng.random(len(groups)) < 0.5 + 0.4 * hard
    found = paired_difference(first.astype(int), second.astype(int), groups=groups).interval
    return found.low, found.high, 0.1


CASES: dict[str, tuple[Callable[..., tuple[float, float, float]], int]] = {
    "mean": (mean_case, 1000),
    "skewed mean": (skewed_case, 1000),
    "share": (share_case, 1000),
    "AUROC": (auroc_case, 300),
    "difference of shares": (difference_case, 1000),
}


@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth(name: str) -> None:
    case, repeats = CASES[name]
    short = []
    for shape in SHAPES:
        for count in COUNTS:
            rng = np.random.default_rng(count)
            found = []
            for _ in range(repeats):
                groups = np.repeat(np.arange(count), sizes(count, shape, rng))
                found.append(case(rng, groups))
            low, high, truth = np.array(found).T
            covered = float(np.mean((low <= truth) & (truth <= high)))
            error = np.sqrt(covered * (1 - covered) / repeats)
            print(
                f"{name:22} {shape:8} {count:4} groups: covers {covered:6.1%} +- {1.96 * error:.1%}, "
                f"median width {np.median(high - low):.3f}"
            )
            if covered + 1.96 * error < LEAST:
                short.append(f"{shape}, {count} groups: {covered:.1%}")
    assert not short, short


NULLS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "log-normal less its mean": lambda rng, shape: rng.lognormal(size=shape) - np.exp(0.5),
    "one of ten carries all": lambda rng, shape: (
        np.where(rng.random(shape) < 0.1, 9.0, -1.0) + 0.1 * rng.normal(size=shape)
    ),
    "heavy tails": lambda rng, shape: rng.standard_t(3, size=shape),
}


@pytest.mark.parametrize("name", NULLS)
def test_q_under_no_effect(name: str) -> None:
    """Data sets of 100 mediators without any effect in which some q is at most 0.05."""
    from probes.statistics import benjamini_hochberg

    for pairs in (12, 24, 32):
        false = 0
        rng = np.random.default_rng(pairs)
        for seed in range(200):
            found = mean_tests(NULLS[name](rng, (100, pairs)), seed=seed)
            false += bool((benjamini_hochberg(found.p) <= 0.05).any())
        print(f"{name:26} {pairs:3} pairs: some q <= 0.05 in {false / 200:.1%} of data sets")
        assert false / 200 - 1.96 * np.sqrt(0.06 * 0.94 / 200) <= 0.06
