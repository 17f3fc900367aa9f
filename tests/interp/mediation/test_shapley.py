"""Shapley values against all subsets, the law that they add up, and gates where single effects mislead."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from interp import mediation
from interp.errors import ConfigError
from interp.mediation import Shapley, experiment_of, plan
from interp.mediation.order_draws import OrderDraw
from interp.mediation.searches import effects
from tests.interp.mediation.edges.models import made, pairs_of
from tests.planted_heads import gate, planted

ASKED: dict[str, Any] = {
    "heads": ["head.0.*", "mlp_out.1"],
    "edges": ["edge.embed->mlp.*", "edge.mlp_out.0->mlp.*"],
}


def by_all_orders(asked: Any, direction: str) -> np.ndarray:
    """Average the gain of every mediator over every order."""
    every = list(asked.mediators)
    places = range(len(every))
    sets = [frozenset(at for at in places if number >> at & 1) for number in range(2 ** len(every))]
    put = [[every[at] for at in places if (at in one) == (direction == "denoising")] for one in sets]
    known = dict(zip(sets, asked.replaced(put, direction).values, strict=True))
    gains = np.zeros((len(every), len(asked.pairs)))
    orders = list(permutations(range(len(every))))
    for order in orders:
        for size, at in enumerate(order):
            gains[at] += known[frozenset(order[: size + 1])] - known[frozenset(order[:size])]
    return gains / len(orders)


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_all_sets_give_the_average_over_all_orders(direction: str, what: str) -> None:
    model = made("gpt2")
    asked = experiment_of(model, pairs_of(model), ASKED[what], directions=direction)
    told = Shapley(orders=40)(asked)
    wanted = by_all_orders(asked, direction)
    assert "orders" not in told.cost[direction]  # 2^n sets are fewer than the orders would run
    assert np.allclose(told.values[direction], wanted, atol=1e-5)
    alone = mediation.exhaustive(model, asked.pairs, ASKED[what], directions=direction)
    assert not np.allclose(alone.values[direction], wanted, atol=1e-3)  # parts of this model interact


def test_drawn_orders_add_up_and_lie_within_what_they_say_of_all_orders() -> None:
    model = made("llama")
    asked = experiment_of(model, pairs_of(model), "head.1.*", directions="denoising")
    five = experiment_of(model, pairs_of(model), ["head.0.*", "head.1.*"], directions="denoising")
    for experiment, orders in ((asked, 2), (five, 20)):
        told = Shapley(orders=orders)(experiment)
        assert told.cost["denoising"]["orders"] == orders
        every = experiment.replaced([experiment.mediators], "denoising")
        assert np.allclose(told.values["denoising"].sum(axis=0), every.values[0] - every.plain, atol=1e-5)
    exact = Shapley(orders=200)(five)
    assert "orders" not in exact.cost["denoising"]
    off = np.abs(told.mean() - exact.mean()).max()
    assert 1e-6 < off < 1.5 * told.cost["denoising"]["order_error"]
    assert any("orders drawn of 8!" in text for text in told.warnings)
    truth = exact.mean()
    rows = {row["mediator"]: row for row in told.rows}
    names = list(map(str, told.mediators))
    assert all(rows[one]["low"] <= truth[at] <= rows[one]["high"] for at, one in enumerate(names))
    ends = told.estimate(names[0]).interval
    assert (ends.low, ends.high) == pytest.approx((rows[names[0]]["low"], rows[names[0]]["high"]))


def test_values_of_a_complete_cut_add_up_to_the_total_effect_within_its_interval() -> None:
    """Planted truth: all heads carry all of it."""
    truth = gate("backup")
    told = effects(truth.model, truth.pairs, "head.*", search="shapley", directions="noising")
    shared = told.values["noising"].sum(axis=0)
    ends = told._interval(told.total).interval
    assert ends.low - 0.05 <= shared.mean() <= ends.high + 0.05
    alone = mediation.exhaustive(truth.model, truth.pairs, "head.*", directions="noising")
    assert abs(alone.mean().sum()) < 0.1 * told.total.mean()  # single effects add up to nothing


@pytest.mark.parametrize("kind", ["or", "and"])
def test_a_gate_is_shared_by_what_feeds_it_where_single_effects_mislead(kind: str) -> None:
    """Planted truth: of an OR no input is needed, of an AND none is enough; each does half in both."""
    truth = gate(kind)
    told = effects(truth.model, truth.pairs, "head.0.*", search="shapley")
    alone = mediation.exhaustive(truth.model, truth.pairs, "head.0.*")
    total = told.total.mean()
    blind = "noising" if kind == "or" else "denoising"
    assert np.abs(alone.mean(blind)).max() < 0.02 * total
    for direction in told.directions:
        for name, share in zip(map(str, told.mediators), told.mean(direction) / total, strict=True):
            assert share == pytest.approx(0.5 if name in truth.heads else 0.0, abs=0.02)


def test_the_plan_is_what_is_run_and_odd_orders_are_refused() -> None:
    model = made("gpt2")
    pairs = pairs_of(model)
    search = Shapley(orders=4)
    told = effects(model, pairs, ["head.*"], search=search)
    planned = plan(model, pairs, ["head.*"], search=search)
    ran = sum(told.cost[way]["forwards"] for way in told.directions)
    assert planned.exact and planned.forwards == pytest.approx(ran, rel=0.01)
    assert planned.search == "shapley" and planned.mediators == 12
    with pytest.raises(ConfigError, match="orders=3 asked"):
        Shapley(orders=3)


def test_intervals_and_q_hold_the_draw_of_orders() -> None:
    """Against plain arithmetic: pairs of orders are the sample; two orders bound nothing."""
    truth = gate("or")
    exact = effects(truth.model, truth.pairs, "head.0.*", search=Shapley(orders=200))
    assert "(exact)" in exact.verdict() and exact.draw() is None
    few = effects(truth.model, truth.pairs, ["head.*", "mlp_out.*"], search=Shapley(orders=2))
    assert few.draw() is not None and not few.told and "2 drawn orders" in few.verdict()
    assert {(row["low"], row["high"], row["q"]) for row in few.rows} == {(-np.inf, np.inf, 1.0)}
    clear = planted("induction")
    sure = effects(clear.model, clear.pairs, ["head.*", "mlp_out.*"], search=Shapley(orders=8))
    assert "(sampled, 8 drawn orders)" in sure.verdict() and "(exact)" not in sure.verdict()
    several = effects(truth.model, truth.pairs, ["head.*", "mlp_out.*"], search=Shapley(orders=20))
    assert "20 drawn orders" in several.tables()[0].note
    plain = replace(several, cost={})
    narrow, wide = plain._intervals(), several._intervals()
    half = stats.t.ppf(0.975, 9) * several.draw("noising").errors
    one = several._intervals("noising")
    before = plain._intervals("noising")
    assert np.allclose((one.high - one.value) ** 2, (before.high - before.value) ** 2 + half**2)
    assert (wide.high >= narrow.high).all() and (wide.high > narrow.high).any()
    assert (several.tests.p >= plain.tests.p - 1e-12).all() and (several.tests.p > plain.tests.p).any()


def test_a_mean_of_zero_over_pairs_and_orders_is_told_apart_one_time_in_twenty() -> None:
    """Both spreads are as large: each alone would tell it far more often."""
    rng = np.random.default_rng(0)
    n, orders = 4000, 20
    gains = rng.normal(size=(n, orders // 2))
    errors = gains.std(axis=1, ddof=1) / np.sqrt(orders // 2)
    by_pair = rng.normal(size=n) / np.sqrt(orders // 2)
    means = gains.mean(axis=1) + by_pair
    p = 2 * stats.norm.sf(np.abs(means) * np.sqrt(orders // 2))
    assert (p < 0.05).mean() > 0.12
    assert 0.02 < (OrderDraw(errors, orders).tested(p, means) < 0.05).mean() < 0.055
