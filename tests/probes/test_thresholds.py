"""Thresholds at a stated false positive rate: the interval holds on new data; thin data is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probes.evaluation import threshold_at
from probes.statistics import clopper_pearson


@pytest.mark.parametrize(("n", "rate"), [(60, 0.05), (300, 0.01), (99, 0.2)])
def test_the_rate_on_new_data_is_inside_its_interval(n: int, rate: float) -> None:
    inside, rates = 0, []
    for seed in range(200):
        scores = np.random.default_rng(seed).standard_t(3, size=n)
        found = threshold_at(scores, rate)
        true = float(stats.t.sf(found.value, 3))  # of infinitely many new negatives
        inside += found.low <= true <= found.high
        rates.append(true)
    assert inside >= 0.93 * 200 - 4  # 95% nominal: 190 +- 3
    assert np.mean(rates) == pytest.approx(found.expected, rel=0.25)
    assert found.expected <= rate


def test_all_simulations_together_cover_as_they_should() -> None:
    hits = []
    for seed in range(200):
        scores = np.random.default_rng(1000 + seed).exponential(size=200)
        found = threshold_at(scores, 0.02)
        hits.append(found.low <= np.exp(-found.value) <= found.high)
    assert sum(hits) >= 186  # 93% of 200


def test_a_threshold_that_saw_its_own_training_does_not_cover() -> None:
    """The negative control: scores of negatives that the probe was fitted on are lower than those to come."""
    hits = 0
    for seed in range(60):
        scores = np.random.default_rng(seed).normal(size=200)
        found = threshold_at(scores - 0.7, 0.05)
        hits += found.low <= stats.norm.sf(found.value) <= found.high
    assert hits < 20


def test_the_interval_is_that_of_the_order_statistic() -> None:
    found = threshold_at(range(99), 0.05)
    assert (found.value, found.above, found.expected) == (94.0, 4, 0.05)
    assert found.low == pytest.approx(stats.beta(5, 95).ppf(0.025))
    exact = clopper_pearson(4, 99)
    assert found.high == pytest.approx(exact.high)
    assert exact.low < found.low


def test_ties_and_groups() -> None:
    tied = threshold_at([0.0] * 50 + [1.0] * 50, 0.1)
    assert tied.tied
    assert (tied.value, tied.low, tied.above) == (1.0, 0.0, 0)
    scores, groups = np.arange(200.0), np.arange(200) // 2
    assert threshold_at(scores, 0.1, groups=groups).value == threshold_at(scores[1::2], 0.1).value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            (range(100), 0.001),
            "0.001 asked of 100 negatives: it takes at least 999, and the least .* 0.0099",
        ),
        (([], 0.1), "asked of 0 negatives: it takes at least 9, and there are none"),
        ((range(9), 1.0), "give a false positive rate above 0 and below 1, such as 0.01"),
        ((range(9), -0.1), "give a false positive rate above 0"),
        (([0.0, np.nan], 0.5), "not finite; drop those examples"),
    ],
)
def test_rates_that_the_data_cannot_support_are_refused(given: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        threshold_at(*given)


def test_a_group_for_each() -> None:
    with pytest.raises(ValueError, match="1 group for 2 scores; give one for each"):
        threshold_at([0.0, 1.0], 0.5, groups=["a"])
