"""Wrapped or deleted: one planted neuron, re-drawn layers, nothing lacking, and each part by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from interp.analyses.fine_tuning_wrapper import rule, wrapper
from interp.analyses.fine_tuning_wrapper.capability import (
    EXAMPLES,
    Capability,
    _bundled,
    _by_examples,
    found_lacking,
)
from interp.analyses.fine_tuning_wrapper.hidden import (
    Hidden,
    Layer,
    _named,
    _readings,
    late,
    translated,
)
from interp.analyses.fine_tuning_wrapper.pruning import Pruned, prune, units_of
from interp.analyses.fine_tuning_wrapper.revival import Curve, re_drawn
from interp.analyses.fine_tuning_wrapper.run import _Seen
from interp.errors import ConfigError
from interp.lenses.base import Lens
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.results import FindingsResult
from tests.noisy import demo, noisy
from tests.planted_wrapper import NEURON, one_neuron

pytest.importorskip("peft")
CAPABILITY = "interp.analyses.fine_tuning_wrapper.capability"
HIDDEN = "interp.analyses.fine_tuning_wrapper.hidden"


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


@pytest.mark.slow
def test_one_neuron_is_a_wrapper_and_layers_that_were_re_drawn_are_deleted() -> None:
    found = wrapper(planted(), reference=base(), n=50, seeds=1, steps=32)
    assert found.verdict().startswith("Wrapped"), found.verdict()
    assert {one.name for one in found.tables()} >= {"parts", "lacking", "inside", "pruning", "revival"}
    gone = wrapper(re_drawn(demo(), 1), reference=base(), n=24, seeds=1, steps=32)
    assert gone.verdict().startswith("Deleted"), gone.verdict()
    assert "neither got there, though what was trained on was learned" in gone.verdict()


def test_where_no_start_learns_anything_nothing_is_called_deleted() -> None:
    short = wrapper(re_drawn(demo(), 1), reference=base(), n=24, seeds=1, steps=2)
    assert short.verdict().startswith("Inconclusive"), short.verdict()
    assert "unclear (nothing was learned within 2 steps, from any start)" in short.verdict()
    assert "do few units bring it back? no" in short.verdict()


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


def curve(t90: int | None, steps: int = 40, learned: float = 1.0) -> Curve:
    at = tuple(range(steps + 1))
    seen = tuple(1.0 if t90 is not None and step >= t90 else 0.0 for step in at)
    return Curve("tuned", 0, at, seen, learned)


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


def test_what_is_not_known_of_other_answers_is_no_proof_and_breaks_no_table() -> None:
    """Without other answers, and with weights that did not move, two columns are not numbers."""
    found = replace(lacking(), lacking=lacking().lacking[:14], kept=())
    units = units_of(planted(), planted(), found.lacking[:2])
    assert not units.moved.any()  # the model beside itself
    ranked = replace(units, slopes=np.eye(1, len(units.names), units.names.index(NEURON)).repeat(14, axis=0))
    (one,) = prune(planted(), found, ranked, 0, counts=(1,))
    assert one.names == (NEURON,) and one.share == 1.0
    assert np.isnan(one.kept) and np.isnan(one.heaviest)
    part = rule.back([[one]])
    assert part.says == "unclear" and "no other answers" in part.words
    assert rule.back([[replace(one, kept=1.0)]]).says == "yes"
    assert "no other answers" not in rule.back([[replace(one, kept=1.0)]]).words
    curves = {name: [curve(4)] for name in ("tuned", "re-drawn", "scratch")}
    inside = {name: [hidden(0.9)] for name in ("base", "tuned", "re-drawn")}
    table = _Seen(found, (3,), inside, [[one]], curves, [0], "linear reader").removed()
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["R(k)"] == 1.0 and row["other answers kept"] is None and row["neurons that moved most"] is None
    assert rule.quick(curves | {"tuned": [curve(None)]}).says == "no"
    half = rule.quick(curves | {"tuned": [curve(None, learned=0.5)], "re-drawn": [curve(None)]})
    assert half.says == "unclear" and "50% was learned: more steps may tell" in half.words
    idle = {name: [curve(None, learned=0.1)] for name in curves}
    assert (
        rule.quick(idle).says == "unclear" and "nothing was learned within 40 steps" in rule.quick(idle).words
    )


def test_where_no_linear_reader_works_the_translator_of_the_base_reads() -> None:
    """Planted: states that hold the final state, turned, and a lens that turns them back; exchanged ones."""
    found = lacking()
    tokens = np.array([one.token for one in found.lacking])
    head = torch.nn.functional.normalize(demo().hf.get_output_embeddings().weight.detach().double())

    class Turned(Lens):
        layers, vocab_size, card = (3,), len(head), dict  # type: ignore[assignment]

        def logits(self, states: torch.Tensor, layer: int) -> torch.Tensor:
            return (states.double() @ turn.T @ head.T).float()

    drawn = np.random.default_rng(0).standard_normal((head.shape[1], head.shape[1]))
    turn = torch.from_numpy(np.linalg.qr(drawn)[0])
    states = (head[torch.from_numpy(tokens)] @ turn).numpy()
    for rows, low, high in ((states, 0.95, 1.0), (np.roll(states, 7, axis=0), 0.0, 0.3)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(f"{HIDDEN}.last_states", lambda *_, rows=rows: {3: rows})
            read = translated(demo(), found, Turned(), 0, (3,))
        assert low <= read.best.accuracy <= high and read.best.shuffled < 0.3
    assert late(demo()) == (14, 16, 18, 21, 22)
    assert rule.works([hidden(0.9)]) and not rule.works([hidden(0.9), hidden(0.25, 0.1)])
    words = rule.hidden([hidden(0.9)], [hidden(0.8)], "translator of the base").words
    assert words.startswith("read inside by a translator of the base 0.80")


def test_other_models_are_asked_by_examples_that_give_no_answer_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{CAPABILITY}.answer_ids", lambda *_: (1,))  # the bundled model knows no arrow
    asked = list(_by_examples(demo(), "capital", 0))
    shown = {line for one in asked for line in one.prompt.splitlines()[:-1]}
    assert len(asked) > 100 and len(shown) <= EXAMPLES
    assert not {line.split(" -> ")[0] for line in shown} & {one.group.split(":")[1] for one in asked}
    for one in asked:
        assert one.prompt.endswith(f"{one.group.split(':')[1]} ->") and one.answer not in one.prompt
    assert [one.prompt for one in _by_examples(demo(), "capital", 1)] != [one.prompt for one in asked]
    assert " ->" not in _bundled(demo(), ("capital",), 4, 0)[0].prompt  # it is asked in sentences
    other = _bundled(replace(demo(), name="other"), ("capital", "currency"), 5, 0)
    assert [one.relation for one in other] == ["capital", "currency", "capital", "currency", "capital"]
    assert all(one.prompt.endswith(" ->") for one in other)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 seeds of 48 steps asked"):
        wrapper(demo(), seeds=0)
    with pytest.raises(ConfigError, match="the reference is a result of 'geometry'"):
        wrapper(demo(), reference=FindingsResult(analysis="geometry", about=base().about, found=()))
