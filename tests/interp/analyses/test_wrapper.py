"""Wrapped or deleted: one planted neuron, re-drawn layers, nothing lacking, and each part by itself."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from interp.analyses.fine_tuning_wrapper import rule, wrapper
from interp.analyses.fine_tuning_wrapper.capability import Capability, found_lacking
from interp.analyses.fine_tuning_wrapper.hidden import Hidden, Layer, _named, _readings
from interp.analyses.fine_tuning_wrapper.pruning import Pruned, prune, units_of
from interp.analyses.fine_tuning_wrapper.revival import Curve, re_drawn
from interp.errors import ConfigError
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.results import FindingsResult
from tests.noisy import demo, noisy
from tests.planted_wrapper import NEURON, one_neuron

pytest.importorskip("peft")


@cache
def planted() -> Model:
    return one_neuron()


@cache
def lacking() -> Capability:
    return found_lacking(demo(), planted(), n=40, seed=0)


@cache
def base() -> FindingsResult:
    return wrapper(demo())


def test_the_planted_neuron_alone_brings_every_answer_back() -> None:
    found = lacking()
    assert found.enough and {one.relation for one in found.lacking} >= {"plural"}
    units = units_of(demo(), planted(), found.lacking)
    assert units.names[int(np.argmax(units.slopes.mean(axis=0)))] == NEURON
    assert units.names[int(np.argmax(units.moved))] == NEURON
    for seed in (0, 1):
        (one,) = prune(planted(), found, units, seed, counts=(1,))
        assert one.names == (NEURON,) and one.share == 1.0 and one.random < 0.2 and one.kept == 1.0


def test_a_score_is_the_slope_of_the_loss_when_the_unit_shrinks() -> None:
    question = lacking().lacking[:1]
    units = units_of(demo(), planted(), question)
    for name in ("neuron.12.3", "head.16.1"):
        at, site = units.names.index(name), name
        value = planted().capture([question[0].prompt], [site], "all")[site][0]
        loss = []
        for kept in (1.01, 0.99):
            write = Intervention(site, kept * value[None])
            logits = planted().run([question[0].prompt], interventions=[write]).logits
            assert logits is not None
            loss.append(-float(logits.double().log_softmax(-1)[0, question[0].token]))
        assert units.slopes[0, at] == pytest.approx((loss[0] - loss[1]) / 0.02, rel=0.05, abs=1e-3)


def test_one_neuron_is_a_wrapper_and_layers_that_were_re_drawn_are_deleted() -> None:
    found = wrapper(planted(), reference=base(), n=50, seeds=1, steps=32)
    assert found.verdict().startswith("Wrapped"), found.verdict()
    assert {one.name for one in found.tables()} >= {"parts", "lacking", "inside", "pruning", "revival"}
    gone = wrapper(re_drawn(demo(), 1), reference=base(), n=30, seeds=1, steps=6)
    assert gone.verdict().startswith("Deleted"), gone.verdict()
    assert "neither got there, so more steps may tell" in gone.verdict()


def test_noise_that_takes_little_away_is_never_explained() -> None:
    """50 copies with a little noise on every matrix."""
    data = [(one.prompt, one.answer) for one in lacking().kept[:24]]
    said = [
        wrapper(noisy(demo(), 0.05, seed=seed), reference=base(), data=data).verdict() for seed in range(50)
    ]
    assert sum(not text.startswith("Nothing to explain") for text in said) <= 2


def test_a_reader_names_what_is_in_the_states_and_leaves_each_out_as_a_refit_does() -> None:
    rng = np.random.default_rng(0)
    head, turn = rng.standard_normal((30, 12)), rng.standard_normal((12, 20))
    tokens = rng.integers(0, 30, 80)
    states = head[tokens] @ turn + 0.05 * rng.standard_normal((80, 20))
    left, unseen = _readings(states[:60], tokens[:60], states[60:], head, np.arange(30))
    assert (unseen == tokens[60:]).mean() > 0.95 and (left == tokens[:60]).mean() > 0.95
    _, luck = _readings(states[:60], rng.permutation(tokens[:60]), states[60:], head, np.arange(30))
    assert (luck == tokens[60:]).mean() < 0.3
    few, answers = rng.standard_normal((14, 5)), rng.integers(0, 30, 14)
    again = []
    for out in range(14):
        rows = np.arange(14) != out
        again.append(_single(few[rows], head[answers[rows]], few[out], few))
    left, _ = _readings(few, answers, few[:1], head, np.arange(30), penalties=[0.5])
    assert left.tolist() == _named(np.array(again), head, np.arange(30)).tolist()


def _single(x: np.ndarray, y: np.ndarray, new: np.ndarray, everything: np.ndarray) -> np.ndarray:
    """One ridge regression by its normal equations, in the units that all states have together."""
    scale = np.sqrt(((everything - everything.mean(axis=0)) ** 2).mean())
    mean, middle = x.mean(axis=0), y.mean(axis=0)
    rows = (x - mean) / scale
    gram = rows.T @ rows + 0.5 * len(everything) * np.eye(rows.shape[1])
    return (new - mean) / scale @ np.linalg.solve(gram, rows.T @ (y - middle)) + middle


def hidden(accuracy: float, shuffled: float = 0.0) -> Hidden:
    right = round(100 * accuracy)
    return Hidden((Layer(3, accuracy, (1.0,) * right + (0.0,) * (100 - right), shuffled),))


def pruned(share: float, fitted: float, random: float = 0.0, kept: float = 1.0, count: int = 4) -> Pruned:
    right = round(100 * share)
    back = (1.0,) * right + (0.0,) * (100 - right)
    return Pruned(count, back, fitted, random, 0.0, kept, ("neuron.0.0",))


def curve(t90: int | None, steps: int = 40) -> Curve:
    at = tuple(range(steps + 1))
    return Curve("tuned", 0, at, tuple(1.0 if t90 is not None and step >= t90 else 0.0 for step in at))


def test_the_verdict_needs_every_part_in_every_seed() -> None:
    there, back = rule.hidden([hidden(0.9)] * 2, [hidden(0.8)] * 2), rule.back([[pruned(0.9, 0.9)]] * 2)
    quick = rule.quick({"tuned": [curve(4)] * 2, "re-drawn": [curve(None)] * 2})
    assert [one.says for one in (there, back, quick)] == ["yes"] * 3
    assert rule.verdict((there, back, quick)).startswith("wrapped")
    gone = rule.hidden([hidden(0.9)] * 2, [hidden(0.1)] * 2)
    none = rule.back([[pruned(0.1, 0.1)]] * 2)
    slow = rule.quick({"tuned": [curve(None)] * 2, "re-drawn": [curve(30)] * 2})
    assert rule.verdict((gone, none, slow)).startswith("deleted")
    assert rule.verdict((there, none, quick)).startswith("inconclusive")
    assert rule.hidden([hidden(0.9)] * 2, [hidden(0.8), hidden(0.5)]).says == "unclear"
    assert rule.hidden([hidden(0.05)] * 2, [hidden(0.05)] * 2).says == "unclear"
    assert rule.hidden([hidden(0.9)] * 2, [hidden(0.8, 0.85)] * 2).says == "unclear"
    assert rule.back([[pruned(0.9, 0.9, random=0.8)]]).says == "unclear"
    assert rule.back([[pruned(0.9, 0.9, kept=0.1)]]).says == "unclear"
    both = [pruned(0.2, 0.9, count=1), pruned(0.9, 0.5, count=2)]
    assert rule.chosen(both).count == 1  # seen facts choose, never unseen ones
    assert rule.quick({"tuned": [curve(39)], "re-drawn": [curve(None)]}).says == "no"
    assert rule.quick({"tuned": [curve(30)], "re-drawn": [curve(None)]}).says == "unclear"  # it learns more


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 seeds of 48 steps asked"):
        wrapper(demo(), seeds=0)
    with pytest.raises(ConfigError, match="the reference is a result of 'geometry'"):
        wrapper(demo(), reference=FindingsResult(analysis="geometry", about=base().about, found=()))
