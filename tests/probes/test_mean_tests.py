"""Tests of means against zero: enumeration by itertools, scipy, and simulations with known truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from probes.statistics import benjamini_hochberg, mean_tests
from probes.statistics.groups import Groups, Moments, codes_of
from probes.statistics.significance import moment_p


def flips_by_hand(sums: np.ndarray) -> float:
    """Go through every pattern of signs, one after the other."""
    seen = abs(sums.sum())
    larger = [
        abs(np.dot(signs, sums)) >= seen - 1e-9 for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    return float(np.mean(larger))


def test_sign_flips_of_ten_groups_are_enumerated() -> None:
    found = mean_tests(np.array([[26.0 + at for at in range(10)]]))
    assert found.exact
    assert found.p[0] == found.smallest == 2 / 1024
    # Cells of a map that carry everything: 4 of 56 are found by ten groups, with any seed.
    table = np.random.default_rng(0).normal(size=(56, 10))
    table[:4] += 26
    for seed in range(3):
        q = benjamini_hochberg(mean_tests(table, seed=seed).p)
        assert (q[:4] < 0.05).all()


@pytest.mark.parametrize("count", [6, 8, 11])
def test_p_is_that_of_every_pattern_by_hand_where_that_is_the_largest(count: int) -> None:
    rng = np.random.default_rng(count)
    rows = rng.normal(0.5, 1, size=(20, count))
    found = mean_tests(rows).p
    by_hand = np.array([flips_by_hand(row) for row in rows])
    student = stats.ttest_1samp(rows, 0, axis=1).pvalue
    assert (found >= np.maximum(by_hand, student) - 1e-9).all()
    assert (np.isclose(found, by_hand, atol=1e-9) | (found > by_hand)).all()
    assert np.isclose(found, by_hand, atol=1e-9).any()


def test_whole_groups_are_flipped() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(1.0, 1, size=(5, 8))
    repeated = np.repeat(values, 10, axis=1)
    groups = np.repeat(np.arange(8), 10)
    assert mean_tests(repeated, groups=groups).p == pytest.approx(mean_tests(values).p)
    assert (mean_tests(repeated).p < mean_tests(values).p).all()  # the careless reading


@pytest.mark.parametrize("count", [9, 12, 16, 20])
def test_p_is_never_below_what_the_groups_allow(count: int) -> None:
    found = mean_tests(np.full((40, count), 2.0))
    assert found.p.min() >= 2.0 ** (1 - count) == found.smallest
    assert found.p.max() < 10 * max(found.smallest, 1 / 50_000)
    assert not found.exact or found.p == pytest.approx(found.smallest)


def test_few_groups_are_too_few_to_tell() -> None:
    found = mean_tests(np.array([[3.1, 3.3, 3.2, 3.4]]))
    assert found.p[0] >= found.smallest == 0.125
    assert found.notice.startswith("too few groups to tell: with 4 no p is below 0.12")


def test_no_effect_at_all_has_p_one() -> None:
    assert mean_tests(np.zeros((3, 12))).p == pytest.approx(1.0)
    assert mean_tests(np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5])).p.shape == (1,)


def test_the_moment_p_of_symmetric_values_is_students() -> None:
    half = np.random.default_rng(2).uniform(0.5, 2, size=(6, 10))
    rows = np.concatenate([half, -half], axis=1) + 0.3
    wanted = stats.ttest_1samp(rows, 0, axis=1).pvalue
    found = moment_p(Moments.of(rows, Groups(codes_of(None, 20))))
    assert found == pytest.approx(wanted, rel=1e-6)


def log_normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.exp(rng.normal(size=shape)) - np.exp(0.5)


def rare(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One of ten groups carries it all; the mean is zero."""
    return np.where(rng.random(shape) < 0.1, 9.0, -1.0) + 0.2 * rng.normal(size=shape)


def symmetric(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_t(3, size=shape)


NULLS = {"log-normal": log_normal, "rare": rare, "symmetric": symmetric}


@pytest.mark.parametrize("count", [8, 16, 32])
@pytest.mark.parametrize("null", NULLS)
def test_effects_of_mean_zero_are_called_significant_in_at_most_six_percent(null: str, count: int) -> None:
    rng = np.random.default_rng(count)
    p = np.concatenate([mean_tests(NULLS[null](rng, (120, count))).p for _ in range(25)])
    assert (p <= 0.05).mean() <= 0.06


@pytest.mark.parametrize("count", [16, 24])
def test_rare_large_effects_are_refused_with_a_notice(count: int) -> None:
    rng, careless = np.random.default_rng(3), 0
    for _ in range(20):
        table = rare(rng, (120, count))
        found = mean_tests(table)
        assert not (benjamini_hochberg(found.p) <= 0.05).any()
        assert "not told from zero although their groups agree" in found.notice
        careless += bool((benjamini_hochberg(stats.ttest_1samp(table, 0, axis=1).pvalue) <= 0.05).any())
    assert careless >= 18  # without the refusal nearly every table claims something


def test_a_plain_table_of_true_and_no_effects_keeps_its_power() -> None:
    rng, power, false = np.random.default_rng(4), [], []
    for _ in range(20):
        table = 0.1 * np.exp(1.5 * rng.normal(size=(120, 1))) * rng.standard_t(3, size=(120, 24))
        sign = rng.choice([-1, 1], size=(20, 1))
        table[:20] += sign * np.exp(rng.normal(size=(20, 1))) * rng.normal(1, 0.5, size=(20, 24))
        found = mean_tests(table)
        hits = benjamini_hochberg(found.p) <= 0.05
        power.append(hits[:20].mean())
        false.append(hits[20:].sum() / max(hits.sum(), 1))
    assert np.mean(power) > 0.85
    assert np.mean(false) < 0.05


def test_one_large_group_among_many_small_is_little_evidence() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), [300] + [1] * 29)
    hits = 0
    for _ in range(200):
        effect = rng.normal(size=30)
        values = effect[groups] + 0.1 * rng.normal(size=len(groups))
        hits += int(mean_tests(values, groups=groups).p[0] <= 0.05)
    assert hits <= 12
