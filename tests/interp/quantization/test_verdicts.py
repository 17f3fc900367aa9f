"""The rule of the verdict: every word can be reached, none by noise alone, whichever way a finding points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import DataError
from interp.quantization.comparison.verdicts import judge
from interp.results.findings import Finding

N = 120
GROUPS = tuple(f"g{at // 2}" for at in range(N))


def finding(values: np.ndarray, **more: Any) -> Finding:
    groups = more.pop("groups", GROUPS)
    return Finding("x", np.asarray(values, dtype=np.float64), groups, **more)


def drawn(mean: float, spread: float = 0.1, seed: int = 0, n: int = N) -> np.ndarray:
    return mean + spread * np.random.default_rng(seed).normal(size=n)


BASE = drawn(1.0)
CASES = {
    "survives": BASE + drawn(0.0, 0.01, 1),
    "weakened": BASE - 0.5 + drawn(0.0, 0.01, 1),
    "strengthened": BASE + 0.5 + drawn(0.0, 0.01, 1),
    "lost": drawn(0.0, 0.1, 2),
    "inconclusive": BASE - 0.1 + drawn(0.0, 0.4, 3),
}


@pytest.mark.parametrize("verdict", CASES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_verdict_is_reached_whichever_way_the_finding_points(verdict: str, sign: float) -> None:
    found = judge(finding(sign * BASE), finding(sign * CASES[verdict]))
    assert found.verdict == verdict
    assert found.shown
    assert found.low <= found.difference <= found.high
    assert found.delta == pytest.approx(0.1 * abs(BASE.mean()))


@pytest.mark.parametrize("verdict", CASES)
def test_a_control_moves_the_origin_and_nothing_else(verdict: str) -> None:
    shifted = judge(finding(BASE + 7, control=7.0), finding(CASES[verdict] + 7, control=7.0))
    paired = judge(
        finding(BASE + 7, control=np.full(N, 7.0)), finding(CASES[verdict] + 7, control=np.full(N, 7.0))
    )
    assert shifted.verdict == paired.verdict == verdict
    assert shifted.excess == pytest.approx(float(CASES[verdict].mean()))


def test_three_noise_floors_outweigh_a_tenth_and_hide_a_change() -> None:
    changed = finding(BASE - 0.3 + drawn(0.0, 0.01, 1))
    assert judge(finding(BASE), changed, noise=0.05).verdict == "weakened"
    found = judge(finding(BASE), changed, noise=0.12)
    assert found.delta == pytest.approx(0.36)
    assert found.shown
    assert found.verdict == "survives"


def test_a_delta_as_large_as_the_finding_lets_nothing_survive_but_noise() -> None:
    gone, shaken = finding(BASE - 0.8), finding(BASE - 0.1)
    for other, verdict in ((gone, "inconclusive"), (shaken, "survives")):
        found = judge(finding(BASE), other, noise=0.3)
        assert not found.shown
        assert found.verdict == verdict


def test_a_control_that_rises_to_the_value_takes_the_finding_away() -> None:
    noise = drawn(0.0, 0.2, 9)
    full = finding(BASE, control=np.zeros(N))
    other = finding(BASE + 0.001, control=BASE + noise)
    found = judge(full, other)
    assert found.difference == pytest.approx(0.001), "value less reference, whatever the controls do"
    assert found.low == pytest.approx(0.001) == found.high
    assert found.change == pytest.approx(other.excess - full.excess)
    assert found.change_low < found.change < found.change_high
    assert (found.reference_control, found.control) == pytest.approx((0.0, float((BASE + noise).mean())))
    assert (found.reference_excess, found.excess) == pytest.approx((full.excess, other.excess))
    assert found.verdict == "lost"
    together = judge(full, finding(BASE - 7, control=np.full(N, -7.0)))
    assert together.verdict == "survives", "value and control moved by the same"


def test_what_the_reference_does_not_show_cannot_be_lost() -> None:
    nothing = finding(drawn(0.0, 1.0, 4))
    found = judge(nothing, finding(drawn(0.0, 1.0, 5)))
    assert not found.shown
    assert found.verdict != "lost"
    buried = judge(finding(BASE), finding(CASES["lost"]), noise=0.5)
    assert not buried.shown
    assert buried.verdict != "lost"


def test_what_falls_below_its_control_is_lost_not_weakened() -> None:
    found = judge(finding(BASE), finding(BASE - 3))
    assert found.excess_high < 0
    assert found.verdict == "lost"
    divergence = judge(finding(0 * BASE, control=2.0), finding(drawn(9.0, 0.1, 8), control=2.0))
    assert divergence.verdict == "lost"


def test_a_finding_that_points_the_wrong_way_is_none_where_only_one_way_counts() -> None:
    worse = finding(BASE + 4, control=4.0, direction=-1)  # a surprise above that of no model at all
    found = judge(worse, finding(BASE + 7, control=4.0, direction=-1))
    assert not found.shown
    assert found.verdict == "inconclusive", "there is nothing that could be weakened"
    free = judge(finding(BASE + 4, control=4.0), finding(BASE + 7, control=4.0))
    assert free.shown
    assert free.verdict == "strengthened"
    better = judge(finding(BASE, control=4.0, direction=-1), finding(BASE + 1, control=4.0, direction=-1))
    assert better.shown
    assert better.verdict == "weakened"


def test_a_number_that_is_the_same_for_every_item_is_known_from_six_groups_on() -> None:
    for n, clear in ((12, True), (4, False)):
        groups = tuple(map(str, range(n)))
        counted = finding(np.full(n, 300.0), groups=groups)
        assert judge(counted, counted).shown is clear


def test_not_significant_is_not_survival() -> None:
    few = finding(drawn(1.0, 0.5, 6, n=8), groups=tuple("abcdefgh"))
    other = finding(drawn(1.0, 0.5, 7, n=8), groups=tuple("abcdefgh"))
    found = judge(few, other)
    assert found.low < 0 < found.high
    assert found.verdict == "inconclusive"


def test_equal_answers_prove_equality_of_the_same_weights_only() -> None:
    right = finding((np.arange(24) % 8 > 0).astype(float), groups=tuple(map(str, range(24))))
    assert judge(right, right, same=True).verdict == "survives"
    assert judge(right, right).verdict == "inconclusive"
    many = finding((np.arange(400) % 8 > 0).astype(float), groups=tuple(map(str, range(400))))
    assert judge(many, many).verdict == "survives"


def test_identical_answers_say_how_many_groups_would_tell() -> None:
    right = finding((np.arange(24) % 8 > 0).astype(float), groups=tuple(map(str, range(24))))
    note = judge(right, right).note
    enough = int(note.split("about ")[1].split(" ")[0].replace(",", ""))
    for n, verdict in ((enough // 8 * 8 - 8, "inconclusive"), (enough // 8 * 8 + 8, "survives")):
        answers = (np.arange(n) % 8 > 0).astype(float)
        groups = tuple(map(str, range(n)))
        found = judge(finding(answers, groups=groups), finding(answers, groups=groups))
        assert found.verdict == verdict, f"{n} groups, of about {enough}"
    assert not judge(right, right, same=True).note


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 12),
    spread=st.floats(0.05, 3.0),
    share=st.booleans(),
)
def test_a_few_noisy_items_of_the_same_model_lose_nothing(
    seed: int, n: int, spread: float, share: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(1.0, spread, n)
    values = (values > 0.5).astype(float) if share else values
    groups = tuple(map(str, range(n)))
    jitter = rng.normal(0, 1e-4, n)
    found = judge(finding(values, groups=groups), finding(values + (0 if share else jitter), groups=groups))
    assert found.verdict in ("survives", "inconclusive")


def test_a_statistic_is_judged_over_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(20, 1)) + 0.1 * rng.normal(size=(20, N))
    noisy, unrelated = effects + 0.05 * rng.normal(size=(20, N)), rng.normal(size=(20, N))

    def agreement(values: np.ndarray) -> Finding:
        def correlation(weights: np.ndarray) -> float:
            return float(np.corrcoef(values @ weights, effects @ weights)[0, 1])

        return finding(np.zeros(N), statistic=correlation)

    assert judge(agreement(effects), agreement(effects)).verdict == "survives"
    assert judge(agreement(effects), agreement(noisy)).verdict == "survives"
    gone = judge(agreement(effects), agreement(unrelated))
    assert gone.verdict in ("lost", "weakened")
    assert gone.low <= gone.difference <= gone.high
    assert gone.value == pytest.approx(np.corrcoef(effects.mean(axis=1), unrelated.mean(axis=1))[0, 1])


def test_the_interval_of_a_statistic_covers_what_it_estimates() -> None:
    rng, covered = np.random.default_rng(1), 0
    for at in range(60):
        change = rng.normal(0.3, 1.0, 12)
        groups = tuple(map(str, range(12)))
        one = finding(np.zeros(12), groups=groups, statistic=lambda w: 0.0)
        two = finding(
            np.zeros(12), groups=groups, statistic=lambda w, c=change: float(np.average(c, weights=w))
        )
        found = judge(one, two, seed=at)
        covered += found.low <= 0.3 <= found.high
    assert covered >= 52


@pytest.mark.parametrize("few", [1, 2, 3, 4])
def test_a_share_that_moves_in_a_few_items_has_a_finite_interval(few: int) -> None:
    moved = np.ones(N)
    moved[: 2 * few : 2] = 0.9
    found = judge(finding(np.ones(N), control=0.1, unit="share"), finding(moved, control=0.1, unit="share"))
    assert np.isfinite([found.low, found.high]).all()
    assert found.verdict == "survives"


def test_few_groups_tell_nothing_about_a_statistic() -> None:
    groups = tuple("aabbccddee")
    one = finding(np.zeros(10), groups=groups, statistic=lambda w: 1.0)
    two = finding(np.zeros(10), groups=groups, statistic=lambda w: float(w[0] + 2))
    assert judge(one, two).verdict == "inconclusive"


def test_a_statistic_does_not_pass_what_it_cannot_pass() -> None:
    rng = np.random.default_rng(3)
    table, other = rng.normal(size=(12, N)), rng.normal(size=(12, N))

    def overlap(values: np.ndarray) -> Finding:
        def shared(weights: np.ndarray) -> float:
            tops = [set(np.argsort(one @ weights)[-4:].tolist()) for one in (table, values)]
            return len(tops[0] & tops[1]) / len(tops[0] | tops[1])

        return finding(np.zeros(N), statistic=shared)

    assert judge(overlap(table), overlap(table + 0.5 * other)).high <= 0


def test_other_items_are_refused() -> None:
    with pytest.raises(DataError, match="measured on other items"):
        judge(finding(BASE), finding(BASE[:10], groups=GROUPS[:10]))


def test_a_statistic_of_equal_items_is_no_share_of_right_answers() -> None:
    """Its items say nothing of how many more would tell: the number may be far above 1."""
    groups = tuple(f"g{at}" for at in range(12))
    one = finding(np.zeros(12), groups=groups, statistic=lambda w: 8.5)
    two = finding(np.zeros(12), groups=groups, statistic=lambda w: float(8.5 + 5 * (w[0] - 1)))
    found = judge(one, two)
    assert found.shown and found.verdict == "inconclusive" and found.note == ""
