"""Intervals and exact tests against oracles that share no code with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from probes.statistics import (
    Estimate,
    Interval,
    benjamini_hochberg,
    bootstrap,
    clopper_pearson,
    holm,
    mcnemar_exact,
    paired_difference,
    permutation_p,
)


@pytest.mark.parametrize(("k", "n"), [(0, 30), (1, 30), (17, 40), (29, 30), (30, 30)])
def test_clopper_pearson_agrees_with_scipy(k: int, n: int) -> None:
    found = clopper_pearson(k, n)
    wanted = stats.binomtest(k, n).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_clopper_pearson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="31 successes in 30 trials"):
        clopper_pearson(31, 30)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("size", [1, 6])
def test_groups_that_all_agree_get_the_exact_interval_of_the_groups(value: int, size: int) -> None:
    found = bootstrap([value] * 30 * size, groups=np.repeat(np.arange(30), size))
    wanted = clopper_pearson(30 * value, 30)
    assert found.interval.method == "clopper-pearson on groups"
    assert (found.interval.low, found.interval.high) == pytest.approx((wanted.low, wanted.high))
    assert found.interval.low < found.interval.high
    assert (found.n, found.n_groups) == (30 * size, 30)


def test_unequal_groups_that_all_agree_count_for_less() -> None:
    sizes = [300] + [1] * 29
    found = bootstrap(np.ones(sum(sizes)), groups=np.repeat(np.arange(30), sizes))
    assert found.interval.low < 0.1 < bootstrap([1] * 30).interval.low


def test_one_group_says_almost_nothing() -> None:
    found = bootstrap([1, 1, 1, 0], groups=["a"] * 4)
    assert found.interval.high - found.interval.low > 0.7
    assert "only 1 group:" in found.note


def test_thirty_groups_carry_no_note_and_twenty_nine_do() -> None:
    assert bootstrap([0, 1] * 15).note == ""
    assert "only 29 groups" in bootstrap([0, 1] * 14 + [1]).note


def test_repeated_examples_do_not_narrow_the_interval_when_grouped() -> None:
    values = np.random.default_rng(0).integers(0, 2, 60)
    once = bootstrap(values)
    repeated = bootstrap(np.repeat(values, 20), groups=np.repeat(np.arange(60), 20))
    careless = bootstrap(np.repeat(values, 20))
    assert repeated.interval.low == pytest.approx(once.interval.low)
    assert repeated.interval.high == pytest.approx(once.interval.high)
    assert careless.interval.high - careless.interval.low < 0.5 * (once.interval.high - once.interval.low)


def test_large_samples_agree_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 4000)
    found = bootstrap(values)
    half = 1.96 * values.std() / math.sqrt(4000)
    assert found.value == pytest.approx(values.mean())
    assert found.interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_shares_of_large_samples_agree_with_wilson() -> None:
    values = np.arange(3000) % 10 < 7
    wanted = stats.binomtest(2100, 3000).proportion_ci(method="wilson")
    found = bootstrap(values).interval
    assert found.method == "score on groups"
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.002)


def test_shares_stay_between_zero_and_one() -> None:
    for failures in (1, 2, 5):
        found = bootstrap([0] * failures + [1] * (40 - failures)).interval
        assert 0 <= found.low < found.high <= 1
        assert found.contains(1 - failures / 40)
        assert found.method == "score on groups"
        assert found.high - found.low < 0.3


def test_means_need_no_draws_and_groups_only_their_partition() -> None:
    rng = np.random.default_rng(3)
    values, groups = rng.normal(size=90), rng.integers(0, 40, 90)
    assert bootstrap(values, groups=groups) == bootstrap(values, groups=groups)
    assert bootstrap(values, groups=groups, seed=1) == bootstrap(values, groups=groups)
    assert bootstrap(values, groups=rng.permutation(groups)) != bootstrap(values, groups=groups)
    named = bootstrap(values, groups=[f"g{g}" for g in groups])
    assert named == bootstrap(values, groups=groups)


@pytest.mark.parametrize(("n", "excludes"), [(24, True), (6, True), (5, False), (2, False)])
def test_values_that_are_all_the_same_say_what_so_many_groups_can(n: int, excludes: bool) -> None:
    found = bootstrap([2.0] * n, support="real").interval
    missed = 1 - 0.025 ** (1 / n)  # the largest share of others that n draws miss with 2.5%
    assert (found.low, found.high) == pytest.approx((2 - 4 * missed, 2 + 4 * missed))
    assert found.contains(0.0) is not excludes
    assert bootstrap([0.0] * n, support="real").interval.low == 0.0


def test_one_group_of_unbounded_values_is_undetermined() -> None:
    found = bootstrap([2.5, 3.0], groups=["a", "a"]).interval
    assert (found.low, found.high, found.method) == (-math.inf, math.inf, "undetermined")


def test_few_groups_give_no_interval_far_beyond_student() -> None:
    values = [0.9, 1.4, 2.0, 8.9]
    found = bootstrap(values).interval
    student = stats.ttest_1samp(values, 0).confidence_interval()
    assert found.low <= student.low
    assert found.high < np.mean(values) + 3 * (student.high - np.mean(values))
    limited = bootstrap(values, limits=(0.0, 10.0)).interval
    assert (limited.low, limited.high) == (max(found.low, 0.0), min(found.high, 10.0))


def test_unequal_and_skewed_groups_are_said() -> None:
    uneven = bootstrap(np.arange(60) % 7 / 3, groups=[0] * 40 + list(range(1, 21)))
    assert uneven.effective_groups == pytest.approx(60**2 / (40**2 + 20))
    assert "weigh as much as 2.2 equal ones" in uneven.note
    rare = bootstrap([0.0] * 39 + [10.0])
    assert rare.skewness > 5
    assert "a few groups carry much of the mean" in rare.note


def test_a_statistic_given_as_a_function_gets_a_bca_interval() -> None:
    values = np.random.default_rng(4).exponential(size=80)
    found = bootstrap(values, statistic=lambda v: float(np.mean(v)), n_resamples=4000)
    wanted = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=4000, rng=np.random.default_rng(0))
    assert found.interval.method == "bca bootstrap and jackknife"
    plain = bootstrap(values).interval
    wanted = wanted.confidence_interval
    assert found.interval.low == pytest.approx(min(wanted.low, plain.low), abs=0.02)
    assert found.interval.high == pytest.approx(max(wanted.high, plain.high), abs=0.02)


def test_a_function_sees_whole_groups() -> None:
    groups = np.repeat(np.arange(10), 3)
    seen: list[np.ndarray] = []
    bootstrap(groups, groups=groups, statistic=lambda v: seen.append(v) or float(v.mean()), n_resamples=5)
    counts = [np.unique(values, return_counts=True)[1] for values in seen]
    assert all((count % 3 == 0).all() for count in counts)


def test_paired_difference_is_the_mean_difference() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    found = paired_difference(a, b, groups=rng.integers(0, 50, 200))
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.interval.contains(found.value)


def test_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(6)
    easy = rng.normal(0, 5, 100)
    paired = paired_difference(easy + rng.normal(1, 0.1, 100), easy)
    assert paired.interval.low > 0.9
    apart = bootstrap(easy).interval
    assert apart.high - apart.low > 5 * (paired.interval.high - paired.interval.low)


@pytest.mark.parametrize(("a", "b", "value"), [(1, 1, 0.0), (0, 0, 0.0), (1, 0, 1.0), (0, 1, -1.0)])
def test_scores_that_never_vary_still_get_an_interval(a: int, b: int, value: float) -> None:
    found = paired_difference([a] * 30, [b] * 30)
    missed = clopper_pearson(0, 30).high
    assert found.value == value
    assert found.interval.method == "clopper-pearson on groups"
    assert found.interval.low == pytest.approx(max(-1, value - missed * (1 + abs(value))))
    assert found.interval.high == pytest.approx(min(1, value + missed * (1 + abs(value))))


def test_one_disagreement_in_thirty_is_no_difference() -> None:
    a = np.ones(30)
    b = a.copy()
    b[0] = 0
    found = paired_difference(a, b)
    assert found.interval.contains(0.0)
    assert found.interval.method == "score on groups"
    assert -0.2 < found.interval.low < found.interval.high < 0.25


def test_a_clear_difference_excludes_zero() -> None:
    found = paired_difference([1] * 28 + [0] * 2, [0] * 25 + [1] * 5)
    assert found.interval.low > 0.4


def test_paired_difference_refuses_different_examples() -> None:
    with pytest.raises(ValueError, match="3 in first, 2 in second"):
        paired_difference([1, 0, 1], [1, 0])


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "values is empty"), ([1.0, math.nan], "1 numbers that are not finite")],
)
def test_bad_values_are_named(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap(values)


def test_groups_must_be_one_per_example() -> None:
    with pytest.raises(ValueError, match="2 groups for 3 examples"):
        bootstrap([1, 0, 1], groups=["a", "b"])


def test_support_share_refuses_other_values() -> None:
    with pytest.raises(ValueError, match=r"needs values in \[0, 1\]; found -1 to 2"):
        bootstrap([-1.0, 2.0], support="share")


def test_mcnemar_agrees_with_the_binomial_test() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        a, b = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
        only = int(((a == 1) & (b == 0)).sum())
        apart = int((a != b).sum())
        assert mcnemar_exact(a, b) == pytest.approx(stats.binomtest(only, apart).pvalue)
    assert mcnemar_exact([1, 0], [1, 0]) == 1.0


def test_permutation_p_counts_by_hand() -> None:
    assert permutation_p(0.9, [0.1, 0.9, 0.95]) == pytest.approx(3 / 4)
    assert permutation_p(2.0, [0.0] * 99) == pytest.approx(1 / 100)
    assert permutation_p(0.0, [0.5, 0.7], alternative="less") == pytest.approx(1 / 3)


def test_benjamini_hochberg_agrees_with_scipy() -> None:
    p = np.random.default_rng(8).uniform(size=37) ** 3
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p, method="bh"))


def test_holm_rejects_as_the_step_down_rule_does() -> None:
    rng = np.random.default_rng(9)
    for _ in range(30):
        p = rng.uniform(size=8) ** 3
        rejected, left = set(), sorted(range(8), key=lambda i: p[i])
        for step, i in enumerate(left):
            if p[i] > 0.05 / (8 - step):
                break
            rejected.add(i)
        assert {i for i, q in enumerate(holm(p)) if q <= 0.05} == rejected


def test_p_values_outside_zero_and_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found 0.1 to 1.5"):
        holm([0.1, 1.5])


def test_estimates_print_and_become_dictionaries() -> None:
    found = Estimate(0.934, Interval(0.912, 0.951, 0.95, "score on groups"), 400, 80)
    assert str(found) == "0.93 [0.91, 0.95]"
    assert found.to_dict() == {
        "value": 0.934,
        "low": 0.912,
        "high": 0.951,
        "level": 0.95,
        "method": "score on groups",
        "n": 400,
        "n_groups": 80,
        "note": "",
    }


def test_groups_that_hardly_differ_still_bound_a_difference() -> None:
    groups = np.repeat(np.arange(14), 8)
    probe = np.ones(112)
    probe[:2] = 0.0  # one group in which two of eight are wrong
    guess = np.tile([0.0, 1.0], 56)  # right for half of every group
    found = paired_difference(probe, guess, groups=groups)
    assert found.interval.low > 0.2
    assert found.interval.high < 0.8
    same = paired_difference(guess, guess[::-1], groups=groups)
    assert same.interval.low < 0 < same.interval.high
