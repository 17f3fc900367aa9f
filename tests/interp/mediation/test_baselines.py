"""Baselines as a bandit: planted rewards, a model in which only the mean is right, and equal arms."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, DataError
from interp.mediation.bandits.bandit import FIRST, spread, thompson
from interp.mediation.bandits.result import BANDIT, UNIFORM, Baselines
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import PairSet
from probes.statistics import bootstrap
from tests.board import ANSWER, LOUD, START, TOKEN, WIDE, blank, head, letters, pair, reads, to_place, writes
from tests.planted_heads import PLANTED
from tests.tiny import tokenizer

ARMS = ("interchange", "zero", "mean")


@cache
def only_the_mean() -> tuple[Model, PairSet, PairSet]:
    """Two heads write the answer, and neither differs between the prompts of a pair.

    head.0.2 answers the second token: its mean over other prompts lacks the answer, its value in the corrupt
    prompt has it. head.0.1 writes the same into the answers' letters in every prompt: zero takes it for the
    larger part, but it tells nothing apart. Letters 0 to 7 are answers, 8 to 15 foils.
    """
    hf = blank(3, noise=0.02)
    head(hf, 0, 2, *to_place(1), reads(TOKEN), writes(ANSWER, LOUD))
    every, out = torch.zeros(WIDE, 16), torch.zeros(16, WIDE)
    every[TOKEN, 0] = 1.0  # any letter there
    out[0, ANSWER.start : ANSWER.start + 8] = 3 * LOUD
    head(hf, 0, 1, *to_place(2), every, out)
    rows = [
        (a % 8, 8 + b % 8, c, d) for a, b, c, d in letters(48, 4, 5) if len({a % 8, 8 + b % 8, c, d}) == 4
    ]
    made = [pair([START, a, c, a], [START, a, d, a], a, b, f"{at}") for at, (a, b, c, d) in enumerate(rows)]
    model = load(hf, tokenizer=tokenizer())
    half = len(made) // 2
    return model, PairSet.build(model, made[:half]), PairSet.build(model, made[half:])


@cache
def found() -> Baselines:
    model, pairs, held_out = only_the_mean()
    return mediation.baselines(model, pairs, held_out, arms=ARMS, ablation="mean", rounds=24)


# The bandit ---------------------------------------------------------------------------------------------


def test_the_best_arm_is_tried_most() -> None:
    means = np.array([0.0, 1.0, 0.2, -0.5])
    counts = np.zeros(4)
    for seed in range(20):
        draws = thompson(lambda arm, rng: float(rng.normal(means[arm], 0.5)), 4, 100, seed=seed)
        counts += [draws.count(arm) for arm in range(4)]
        assert draws.count(0) >= FIRST and len(draws.arms) == len(draws.rewards) == 100
    assert counts[1] / counts.sum() > 0.7


def test_equal_arms_are_tried_about_as_often() -> None:
    counts = np.zeros(4)
    for seed in range(60):
        draws = thompson(lambda arm, rng: float(rng.normal(0.0, 0.5)), 4, 40, seed=seed)
        counts += [draws.count(arm) for arm in range(4)]
    assert np.abs(counts / counts.sum() - 0.25).max() < 0.06


def test_the_spread_is_pooled_within_arms() -> None:
    draws = thompson(lambda arm, rng: float(rng.normal(10 * arm, 2.0)), 3, 300, seed=1)
    assert spread(draws) == pytest.approx(2.0, rel=0.15)


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 rounds of each"):
        thompson(lambda arm, rng: 0.0, 3, 5)


# The oracle ---------------------------------------------------------------------------------------------


def test_where_only_the_mean_is_right_it_is_named_and_tried_most() -> None:
    result = found()
    assert result.winner == "mean"
    assert result.first["mean"][0] == "head.0.2" and result.first["zero"][0] == "head.0.1"
    tried = [result.picks.count(at) for at in range(3)]
    assert tried[2] > sum(tried[:2])
    assert result.verdict().startswith("Baseline mean is better")
    assert result.area(BANDIT) <= result.area(UNIFORM) + 1e-9


def test_areas_are_those_of_curves_run_by_hand() -> None:
    """The oracle of CMD: ``mediation.curve`` where the rest is interchanged, for the bandit's own order."""
    planted = PLANTED["copy"]()
    pairs, held_out = planted.pairs[:6], planted.pairs[6:]
    result = mediation.baselines(planted.model, pairs, held_out, arms=ARMS, rounds=8, batch=4)
    for name in ("interchange", "zero"):
        search = mediation.IntegratedGradients(path="activations", steps=4, verify=0)
        nodes = ["head.*", "mlp_out.*"]
        given = {"search": search, "replacement": name, "directions": "noising", "positions": "all"}
        values = mediation.searches.effects(planted.model, pairs, nodes, **given)
        order = np.argsort(-np.abs(values.mean("noising")), kind="stable")
        curve = mediation.curve(planted.model, held_out, [values.mediators[at] for at in order])
        assert curve.sizes == result.sizes
        assert result.area(name) == pytest.approx(curve.cmd, abs=1e-5)


def test_equal_baselines_have_no_winner() -> None:
    """The planted negative: rankings that are the same circuit, and rankings whose numbers are exchanged."""
    result = found()
    same = dict.fromkeys(result.runs, result.runs["mean"])
    equal = replace(result, runs=same)
    assert equal.winner is None
    assert equal.verdict().startswith("No baseline is told")
    assert "not told from as many uniform draws" in equal.verdict()
    assert "over pairs, of these draws" in equal.verdict()


def test_differences_are_bootstraps_of_areas_one_by_one() -> None:
    result = found()
    rows = np.arange(len(result.groups), dtype=float)[:, None]
    estimates = {UNIFORM: result.over[UNIFORM], "zero": result.over["zero"]}
    for name, estimate in estimates.items():

        def statistic(chosen: np.ndarray, name: str = name) -> float:
            weights = np.bincount(chosen[:, 0].astype(int), minlength=len(rows)).astype(float)
            return result.area(name, weights) - result.area(BANDIT, weights)

        alone = bootstrap(rows, groups=result.groups, statistic=statistic, seed=result.seed)
        ends = (estimate.value, estimate.interval.low, estimate.interval.high)
        assert ends == pytest.approx((alone.value, alone.interval.low, alone.interval.high), abs=1e-12)


@pytest.mark.slow
def test_a_winner_among_equals_is_named_in_at_most_five_percent() -> None:
    """Pairs whose numbers under each baseline are draws of one distribution: 100 replications."""
    result, rng, named = found(), np.random.default_rng(0), 0
    none, whole = (result.runs["mean"][at] for at in (0, -1))
    for _ in range(100):
        runs = {}
        for name in result.runs:
            inner = none + (whole - none) * rng.normal(0.6, 0.4, (len(result.sizes) - 2, len(none)))
            runs[name] = np.stack([none, *inner, whole])
        trained = {name: float(rng.random()) for name in result.arms}
        named += replace(result, runs=runs, trained=trained).winner is not None
    assert named <= 5


def test_what_does_not_suit_is_left_out_or_refused() -> None:
    model, pairs, held_out = only_the_mean()
    with pytest.raises(DataError, match="other groups"):
        mediation.baselines(model, pairs, pairs)
    with pytest.raises(ConfigError, match="there are: "):
        mediation.baselines(model, pairs, held_out, arms=("mean", "median"))
    alone = PairSet.build(model, [replace(one, group="one") for one in pairs])
    result = mediation.baselines(model, alone, held_out, arms=ARMS, rounds=8, ablation="zero")
    assert "mean" in result.left_out and result.arms == ("interchange", "zero")
    with pytest.raises(ConfigError, match=r"two are needed: .* no gradient"):
        mediation.baselines(model, pairs, held_out, metric="accuracy")
