"""Growing, checkpoints, scores and the edited twin, on models small enough to train here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from interp.demo import train as training
from interp.demo.architecture import build_model, grow
from interp.demo.bars import evaluate, score
from interp.demo.corpus import Mix, build_tokenizer
from interp.demo.edit import differences, edited_world
from interp.demo.optimisation import Stage, make_optimizers, set_rate
from interp.tasks import Example, load_world

TOKENIZER = build_tokenizer(load_world())
SHORT = (
    Stage("one", 1, 4, 256, 1e-3, Mix({"key-value": 1.0}, words=8, sizes=(2, 3))),
    Stage("two", 2, 6, 256, 1e-3, Mix({"one-hop": 1.0}), decay=0.5),
)


def logits(model):
    ids = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_growing_keeps_the_logits_and_fresh_blocks_learn():
    shallow = build_model(TOKENIZER, 2, seed=0, depth=2)
    deep = grow(shallow, 6, seed=1)
    assert deep.config.num_hidden_layers == 6
    assert torch.allclose(logits(deep), logits(shallow), atol=1e-6)
    fresh = deep.model.layers[1]
    torch.nn.init.normal_(fresh.mlp.down_proj.weight, std=0.1)
    assert not torch.allclose(logits(deep), logits(shallow), atol=1e-3)


def test_the_same_seed_builds_the_same_model_without_touching_the_global_generator():
    state = torch.get_rng_state()
    assert torch.equal(logits(build_model(TOKENIZER, 1, seed=0)), logits(build_model(TOKENIZER, 1, seed=0)))
    assert not torch.equal(
        logits(build_model(TOKENIZER, 1, seed=0)), logits(build_model(TOKENIZER, 1, seed=1))
    )
    assert torch.equal(state, torch.get_rng_state())


def test_the_rate_warms_up_and_falls_to_zero():
    stage = Stage("s", 1, 400, 256, 1e-2, Mix({"one-hop": 1.0}), decay=0.5)
    rates = [training.learning_rate(stage, index) for index in range(400)]
    assert rates[0] == pytest.approx(1e-2 / 50)
    assert rates[100] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-2 / 200)
    optimizers = make_optimizers(build_model(TOKENIZER, 1, seed=0))
    set_rate(optimizers, 1e-3)
    assert [group["lr"] for o in optimizers for group in o.param_groups] == pytest.approx([3e-3, 1e-3])


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    whole = training.train(tmp_path / "whole", schedule=SHORT, save_every=0.0)
    steps = iter(range(7))
    take = training.step

    def stopping(*arguments):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return take(*arguments)

    monkeypatch.setattr(training, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        training.train(tmp_path / "parts", schedule=SHORT, save_every=0.0)
    monkeypatch.setattr(training, "step", take)
    resumed = training.train(tmp_path / "parts", schedule=SHORT, save_every=0.0)
    assert torch.equal(logits(resumed), logits(whole))
    assert not torch.equal(logits(resumed), logits(training.train(tmp_path / "other", schedule=SHORT[:1])))


def test_scores_against_hand_made_logits():
    vocabulary = len(TOKENIZER)
    examples = [
        Example("p", "Paris", "t", "0", "g", correct=("Paris", "Rome"), wrong=("Oslo",)),
        Example("p", "Paris", "t", "0", "g", correct=("Paris", "Rome"), wrong=("Oslo",)),
    ]
    ids = TOKENIZER.convert_tokens_to_ids(["Paris", "Rome", "Oslo"])
    table = torch.full((2, vocabulary), -30.0)
    table[0, ids] = torch.tensor([0.6, 0.3, 0.1]).log()
    table[1, ids] = torch.tensor([0.1, 0.3, 0.6]).log()
    assert score(table, examples, TOKENIZER, "accuracy").tolist() == [1.0, 0.0]
    assert score(table, examples, TOKENIZER, "preference").tolist() == [1.0, 0.0]
    assert score(table, examples, TOKENIZER, "probability difference").tolist() == pytest.approx(
        [0.8, -0.2], abs=1e-4
    )


def test_an_untrained_model_meets_no_bar():
    rows = evaluate(build_model(TOKENIZER, 1, seed=0).eval(), TOKENIZER, n=60)
    missed = [row for row in rows if row.template == "all" and row.minimum is not None and not row.passed]
    assert len(missed) == 7


def test_differences_restore_the_changed_model(tmp_path: Path):
    base, changed = build_model(TOKENIZER, 1, seed=0), build_model(TOKENIZER, 1, seed=0)
    changed.model.layers[0].mlp.up_proj.weight.data.add_(0.01)
    found = differences(changed, base)
    assert list(found) == ["model.layers.0.mlp.up_proj.weight"]
    assert torch.allclose(found["model.layers.0.mlp.up_proj.weight"].float(), torch.tensor(0.01), atol=1e-5)


def test_the_edited_world_is_fixed():
    assert edited_world().all_facts == edited_world().all_facts
    assert dataclasses.asdict(edited_world().all_facts[0])["relation"] == "capital"
