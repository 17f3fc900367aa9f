"""Do the intervals cover the truth as often as they say? A simulation with known truth."""

from __future__ import annotations

import numpy as np
import pytest

from probes.statistics import bootstrap, paired_difference

GROUPS = 30
SHARES = (0.5, 0.7, 0.95)


def draw(rng: np.random.Generator, share: float, size: int, clustering: float) -> np.ndarray:
    """Draw right/wrong answers ``[group, example]`` whose groups share a beta-distributed ability."""
    concentration = 1 / clustering - 1
    ability = rng.beta(share * concentration, (1 - share) * concentration, GROUPS)
    return (rng.random((GROUPS, size)) < ability[:, None]).astype(np.int64)


def coverage(share: float, size: int, clustering: float, repeats: int) -> float:
    rng = np.random.default_rng(int(1000 * share) + size)
    groups = np.repeat(np.arange(GROUPS), size)
    hits = 0
    for _ in range(repeats):
        values = draw(rng, share, size, clustering).ravel()
        found = bootstrap(values, groups=groups)
        hits += found.interval.contains(share)
    return hits / repeats


def percentile_coverage(share: float, size: int, clustering: float, repeats: int) -> float:
    """The plain percentile bootstrap over groups: the negative control."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(repeats):
        means = draw(rng, share, size, clustering).mean(axis=1)
        resampled = means[rng.integers(0, GROUPS, (400, GROUPS))].mean(axis=1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        hits += low <= share <= high
    return hits / repeats


@pytest.mark.parametrize("share", SHARES)
def test_coverage_is_near_nominal(share: float) -> None:
    # 400 repeats have a standard error of 1.1 points; the slow test below is the sharp one.
    assert 0.92 <= coverage(share, 8, 0.1, repeats=400) <= 0.985


def test_the_percentile_bootstrap_would_fail_the_same_simulation() -> None:
    assert percentile_coverage(0.95, 8, 0.3, repeats=400) < 0.91


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(("size", "clustering"), [(8, 0.1), (8, 0.3), (10, 0.2)])
def test_coverage_is_93_to_97_percent(share: float, size: int, clustering: float) -> None:
    assert 0.93 <= coverage(share, size, clustering, repeats=3000) <= 0.97


def test_the_paired_difference_covers_too() -> None:
    rng, hits, groups = np.random.default_rng(1), 0, np.repeat(np.arange(GROUPS), 4)
    for _ in range(300):
        first, second = draw(rng, 0.9, 4, 0.3).ravel(), draw(rng, 0.7, 4, 0.3).ravel()
        found = paired_difference(first, second, groups=groups)
        hits += found.interval.contains(0.2)
    assert 0.915 <= hits / 300 <= 0.99
