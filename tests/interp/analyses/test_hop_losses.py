"""The loss of two hops against the first hop: planted, independent, and without any difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from interp.analyses.multi_hop.losses import correlated, loss_table

GROUPS = [f"bridge {at // 3}" for at in range(90)]


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=90)


def test_it_is_spearman_over_means_of_groups() -> None:
    loss, other = values(0), values(0) + values(1)
    means = [one.reshape(30, 3).mean(1) for one in (loss, other)]
    found = correlated(loss, other, GROUPS)
    expected: Any = stats.spearmanr(*means)
    assert found["rho"] == pytest.approx(expected.statistic) and found["groups"] == 30
    assert found["low"] < found["rho"] < found["high"]  # type: ignore[operator]
    assert correlated(loss, -other, GROUPS)["rho"] == pytest.approx(-found["rho"])  # type: ignore[operator]
    turned = np.random.default_rng(3).permutation(90)
    again = correlated(loss[turned], other[turned], [GROUPS[at] for at in turned])
    assert again["rho"] == pytest.approx(found["rho"])


def test_a_planted_loss_is_shown_and_independent_ones_are_not() -> None:
    """Losses where the first hop is weak: shown. False alarms of 4 independent draws are few."""
    ability = values(2)
    rows = loss_table(-ability + 0.3 * values(3), ability, values(4), GROUPS).rows
    assert [row[-1] for row in rows] == ["yes", "not shown"] and rows[0][1] < -0.8  # type: ignore[operator]
    alarms = sum(
        loss_table(values(10 + at), values(90 + at), values(170 + at), GROUPS).rows[0][-1] == "yes"
        for at in range(4)
    )
    assert alarms <= 1, "the bootstrap and the null at 5%, of 12"


@pytest.mark.parametrize("groups", [GROUPS[:20], GROUPS])
def test_too_few_groups_and_no_loss_say_nothing(groups: list[str]) -> None:
    flat = np.zeros(len(groups))
    found = correlated(flat, values(5)[: len(groups)], groups)
    assert found["rho"] is None and found["p"] is None
    if len(groups) < 90:
        assert correlated(values(6)[:20], values(5)[:20], groups)["rho"] is None
