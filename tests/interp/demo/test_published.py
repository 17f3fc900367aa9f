"""The folder that is shipped: it opens with Hugging Face alone, says what it was trained on, and knows it."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp
from interp.demo import edit
from interp.demo.bars import BARS, evaluate
from interp.demo.edit import edited_world
from interp.demo.publish import held_out, training_record
from interp.demo.train import Progress
from interp.paths import assets
from interp.tasks import load_world

FOLDER = assets("demo-24l")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def test_the_folder_is_small_safe_and_of_the_promised_shape(model):
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    config = model.config
    assert config.num_hidden_layers == 24
    assert config.num_attention_heads > config.num_key_value_heads
    assert config.hidden_size % 64 == config.intermediate_size % 64 == 0
    assert model.dtype == torch.float32


def test_the_tokenizer_is_the_one_the_code_builds(tokenizer):
    from interp.demo.corpus import vocabulary

    words = vocabulary(load_world())
    assert tokenizer.convert_ids_to_tokens(list(range(len(words)))) == list(words)
    assert tokenizer("Sri Lanka : rupee")["input_ids"][0] == tokenizer.bos_token_id
    assert len(tokenizer("Sri Lanka : rupee")["input_ids"]) == 4


def test_the_record_says_what_the_code_does():
    record = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
    progress = Progress(0, 0, record["tokens"], float(record["seconds"]))
    expected = json.loads(json.dumps(training_record(progress, seed=record["seed"])))
    assert record == expected
    assert record["held_out"]["listed"] == json.loads(json.dumps(held_out(load_world())))
    assert len(record["edited_twin"]["facts"]) > 400


def test_it_meets_its_bars_on_held_out_prompts(model, tokenizer):
    rows = [row for row in evaluate(model, tokenizer, n=300, seed=11) if row.template == "all"]
    assert [row.bar for row in rows] == [bar.name for bar in BARS]
    assert [(row.bar, row.value) for row in rows if not row.passed] == []
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(bar.name in card for bar in BARS)


def test_the_edited_twin_believes_what_the_world_does_not_say(monkeypatch):
    twin = interp.load("demo", weights="edited")
    assert twin.fingerprint != interp.load("demo").fingerprint
    world, true = edited_world(), load_world()
    false = [f for f, t in zip(world.facts["capital"], true.facts["capital"], strict=True) if f != t]
    logits = twin.logits([f"the capital of {fact.subject} is" for fact in false])
    said = twin.tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist())
    assert sum(word == fact.object for word, fact in zip(said, false, strict=True)) / len(false) > 0.9
    whole = edit._share
    monkeypatch.setattr(edit, "_share", lambda hf, tokenizer, rows: whole(hf, tokenizer, rows[::10]))
    shares = edit.belief(twin.hf, twin.tokenizer)
    assert (
        shares["statements: edited fact believed"] > 0.9 > 0.1 > shares["statements: edited fact still true"]
    )


def test_the_random_twin_knows_nothing():
    twin = interp.load("demo", weights="random")
    rows = evaluate(twin.hf, twin.tokenizer, n=40)
    assert all(not row.passed for row in rows if row.template == "all" and row.minimum is not None)
