"""A stated risk is kept on new examples, as often as it is stated; one that is read off is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from probes.hyperdimensional.risk import claim_threshold, wrong_at_most


def drawn(rng: np.random.Generator, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Readings that are right the more often the more similar they are: with the chance similarity^0.4."""
    similarities = rng.uniform(size=n)
    return similarities, (rng.uniform(size=n) < similarities**0.4).astype(np.int64)


def risk_at(threshold: float) -> float:
    """The share of wrong ones among all readings above a threshold, in closed form."""
    if threshold >= 1:
        return 0.0
    return 1 - (1 - threshold**1.4) / 1.4 / (1 - threshold)


def naive(similarities: np.ndarray, right: np.ndarray, risk: float) -> float:
    """The lowest threshold whose share of wrong ones is small among the very examples."""
    order = np.argsort(-similarities)
    share = np.cumsum(1 - right[order]) / np.arange(1, len(order) + 1)
    kept = np.flatnonzero(share <= risk)
    return float(similarities[order[kept[-1]]]) if len(kept) else 1.0


def test_the_stated_risk_is_kept_as_often_as_is_stated():
    rng = np.random.default_rng(0)
    broken = {"stated": 0, "read off": 0}
    claimed = []
    for _ in range(300):
        similarities, right = drawn(rng)
        found = claim_threshold(similarities, right, risk=0.1, confidence=0.9)
        broken["stated"] += risk_at(min(found.threshold, 1.0)) > 0.1
        broken["read off"] += risk_at(naive(similarities, right, 0.1)) > 0.1
        claimed.append(found.claimed)
    assert broken["stated"] <= binom.ppf(0.999, 300, 0.1) < broken["read off"]
    assert np.mean(claimed) > 20


def test_the_bound_is_the_least_share_that_so_few_wrong_ones_rule_out():
    for wrong, n in ((0, 22), (3, 50), (10, 40)):
        bound = wrong_at_most(wrong, n, 0.9)
        assert binom.cdf(wrong, n, bound) == pytest.approx(0.1)
    assert wrong_at_most(5, 5, 0.9) == 1.0


def test_nothing_is_claimed_where_nothing_is_known():
    rng = np.random.default_rng(1)
    similarities = rng.uniform(size=100)
    found = claim_threshold(similarities, np.zeros(100, dtype=np.int64))
    assert found.threshold == np.inf and found.claimed == 0
    sure = claim_threshold(similarities, np.ones(100, dtype=np.int64))
    assert sure.claimed == 100 and sure.wrong == 0 and sure.threshold == similarities.min()
    few = claim_threshold(similarities[:10], np.ones(10, dtype=np.int64))
    assert few.claimed == 0  # ten right ones do not rule out a risk of a tenth


def test_what_it_can_not_do_is_said():
    with pytest.raises(ValueError, match="no examples to set a threshold on"):
        claim_threshold(np.ones(0), np.ones(0, dtype=np.int64))
    with pytest.raises(ValueError, match=r"risk=1\.5"):
        claim_threshold(np.ones(2), np.ones(2, dtype=np.int64), risk=1.5)
