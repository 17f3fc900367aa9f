"""Fine-tuning on pairs: what is learned, beside the same pairs shuffled; stopped, it ends the same."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from interp.demo.finetune import (
    ADAPTER,
    FineTuning,
    divided,
    exchanged,
    finetune,
    read_training_groups,
    read_training_pairs,
    read_training_relations,
    refuse_unlike,
)
from interp.errors import ConfigError, DataError, ModelError
from interp.models.adapter_training import Lesson, _loss, lessons_of
from interp.models.answers import score
from interp.models.loading import load
from interp.models.model import Model
from interp.models.peft_adapters import merged, with_adapters
from tests.tiny import tiny

pytest.importorskip("peft")
PAIRS = [(f"w{at:02d} w{at % 7:02d}", f"w{50 + at % 5:02d}") for at in range(30)]
SMALL = FineTuning(rank=2, steps=12, rate=1e-2)


@pytest.fixture(scope="module")
def model() -> Model:
    hf, words = tiny("llama")
    return load(hf, tokenizer=words)


def test_it_learns_the_answers_and_a_shuffled_twin_does_not(model: Model, tmp_path: Path) -> None:
    before = model.fingerprint
    pairs = [(f"w{at:02d} w{at % 7:02d}", f"w{50 + at % 2:02d}") for at in range(40)]
    how = FineTuning(rank=4, steps=60, rate=2e-2)
    real, twin = (
        finetune(model, pairs, tmp_path / str(shuffle), how=replace(how, shuffle=shuffle))
        for shuffle in (False, True)
    )
    assert model.fingerprint == before
    said = {one.name: one for one in real.found}["answers said: trained"]
    other = {one.name: one for one in twin.found}["answers said: trained"]
    assert said.value > 0.9 and said.floor < 0.5 and other.value < 0.3
    assert any("control of what training as such does" in text for text in twin.warnings)
    own, not_own = (
        next(one for one in found.found if one.name == "log-probability of the own answer: trained")
        for found in (real, twin)
    )
    assert own.excess > 1 and not_own.excess < 0, "the twin learned which words are answers, no more"
    asked = [prompt for prompt, _ in pairs if prompt in set(own.groups)]
    tuned = load(
        with_adapters(copy.deepcopy(model.hf), [tmp_path / "False" / ADAPTER]), tokenizer=model.tokenizer
    )
    swapped = {"w50": "w51", "w51": "w50"}  # of two answers another is the other one
    other_words = [swapped[dict(pairs)[prompt]] for prompt in own.groups]
    control = score(tuned, list(own.groups), other_words).log_probability.mean()
    assert asked and own.floor == pytest.approx(float(control), rel=0.05)


def test_a_step_is_the_gradient_of_the_answers_alone(model: Model) -> None:
    """Oracle: each text alone, the loss by hand."""
    lessons = [Lesson([1, 5, 9, 3], [2, 3]), Lesson([1, 7], [1])]
    found = _loss(model.hf, lessons)
    each = []
    for one in lessons:
        logits = model.hf(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)
        each += [-logits[at - 1, one.ids[at]] for at in one.places]
    assert torch.allclose(found, torch.stack(each).mean(), atol=1e-5)


def test_the_lesson_of_a_pair_is_what_is_scored(model: Model) -> None:
    (lesson,) = lessons_of(model, ["w01 w02"], ["w03 w04"])
    scored = score(model, ["w01 w02"], ["w03 w04"])
    assert tuple(lesson.ids[at] for at in lesson.places) == scored.token_ids[0]
    loss = float(_loss(model.hf, [lesson]).detach()) * len(lesson.places)
    assert loss == pytest.approx(-float(scored.log_probability[0]), abs=1e-4)


@pytest.mark.parametrize("stop", [3, 10, 11])
def test_a_stopped_training_goes_on_to_the_same_adapter(
    model: Model, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    finetune(model, PAIRS, whole, how=SMALL)
    calls = iter(range(1000))

    def dying(hf: object, given: object) -> torch.Tensor:
        if next(calls) == stop:
            raise KeyboardInterrupt
        return _loss(hf, given)  # type: ignore[arg-type]

    monkeypatch.setattr("interp.models.adapter_training._loss", dying)
    with pytest.raises(KeyboardInterrupt):
        finetune(model, PAIRS, tmp_path / "stopped", how=SMALL)
    ran = next(calls) - 1
    finetune(model, PAIRS, tmp_path / "stopped", how=SMALL)
    assert next(calls) - ran - 2 == SMALL.steps - 10 * (stop // 10)  # steps that were kept are not run again
    one, two = (
        load_file(place / ADAPTER / "adapter_model.safetensors") for place in (whole, tmp_path / "stopped")
    )
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not (tmp_path / "stopped" / "unfinished").exists()


def test_another_seed_or_setting_is_trained_anew_and_the_same_is_not(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(model, PAIRS, tmp_path, how=SMALL)
    first = load_file(tmp_path / ADAPTER / "adapter_model.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr("interp.demo.finetune.train", lambda *_, **__: pytest.fail("trained again"))
        finetune(model, PAIRS, tmp_path, how=SMALL)
    finetune(model, PAIRS, tmp_path, how=SMALL, seed=1)
    again = load_file(tmp_path / ADAPTER / "adapter_model.safetensors")
    assert not all(torch.equal(first[name], again[name]) for name in first)


def test_parts_share_no_prompt_and_shuffling_moves_every_answer() -> None:
    learned, held = divided([*PAIRS, *PAIRS], 0.2, 0)
    assert not {p for p, _ in learned} & {p for p, _ in held} and len(learned) + len(held) == 30
    for answers in ("aabbcc", "aaabbb", "abcdef"):
        pairs = [(f"p{at}", answer) for at, answer in enumerate(answers)]
        for seed in range(5):
            moved = exchanged(pairs, seed)
            assert [p for p, _ in moved] == [p for p, _ in pairs]
            assert sorted(a for _, a in moved) == sorted(answers)
            assert all(new != old for (_, new), (_, old) in zip(moved, pairs, strict=True))
    with pytest.raises(DataError, match="all answers are alike"):
        exchanged([("a", "x"), ("b", "x")], 0)


def test_answers_are_exchanged_within_their_relation() -> None:
    facts = {"capital": ("Paris", "Rome", "Oslo", "Lima"), "colour": ("red", "blue", "red", "green", "blue")}
    pairs = [(f"{name} {at}", answer) for name, answers in facts.items() for at, answer in enumerate(answers)]
    kinds = {prompt: prompt.split()[0] for prompt, _ in pairs}
    crossed = 0
    for seed in range(20):
        moved = exchanged(pairs, seed, kinds)
        for name, answers in facts.items():
            given = [answer for prompt, answer in moved if kinds[prompt] == name]
            assert sorted(given) == sorted(answers)
        assert all(new != old for (_, new), (_, old) in zip(moved, pairs, strict=True))
        plain = exchanged(pairs, seed)
        crossed += any(answer not in facts[kinds[prompt]] for prompt, answer in plain)
    assert crossed == 20  # over all prompts answers change their kind
    assert len({tuple(exchanged(pairs, seed, kinds)) for seed in range(20)}) > 5
    alike = [*pairs, ("animal 0", "cat"), ("animal 1", "cat")]
    told = exchanged(alike, 0, kinds | {"animal 0": "animal", "animal 1": "animal"})
    assert all(new != old for (_, new), (_, old) in zip(told, alike, strict=True))


def test_too_few_are_refused() -> None:
    with pytest.raises(DataError, match="2 different prompts given; 8 are the fewest"):
        divided([("a", "x"), ("b", "y"), ("a", "y")], 0.2, 0)


@pytest.mark.parametrize("name", ["groups", "relations"])
def test_what_is_said_of_other_pairs_is_refused(model: Model, tmp_path: Path, name: str) -> None:
    short: dict[str, Any] = {name: ["a"] * 7}
    with pytest.raises(DataError, match=f"7 {name} given for 8 pairs; give one each"):
        finetune(model, [(f"w{at:02d}", "w01") for at in range(10, 18)], tmp_path, **short)


def test_merged_weights_say_what_the_adapter_says_and_it_refuses_a_second(
    model: Model, tmp_path: Path
) -> None:
    finetune(model, PAIRS, tmp_path, how=SMALL)
    hf = with_adapters(copy.deepcopy(model.hf), [tmp_path / ADAPTER])
    ids = torch.tensor([[1, 4, 6, 2]])
    plain, one = hf(input_ids=ids).logits, merged(hf)
    assert not any("lora" in name for name, _ in one.named_parameters())
    assert torch.allclose(one(input_ids=ids).logits, plain, atol=1e-5)
    assert not torch.allclose(model.hf(input_ids=ids).logits, plain, atol=1e-3)
    assert torch.equal(hf(input_ids=ids).logits, plain)
    with pytest.raises(ModelError, match="is on the model already"):
        finetune(load(hf, tokenizer=model.tokenizer), PAIRS, tmp_path / "second", how=SMALL)


def test_groups_stay_together_and_intervals_are_over_them(model: Model, tmp_path: Path) -> None:
    pairs = [(f"w{at:02d} w{turn}", f"w{50 + at % 3}") for at in range(12) for turn in (20, 21)]
    groups = [f"fact {at}" for at in range(12) for _ in range(2)]
    of = dict(zip((prompt for prompt, _ in pairs), groups, strict=True))
    for seed in range(6):
        learned, held = divided(pairs, 0.25, seed, groups)
        assert not {of[prompt] for prompt, _ in learned} & {of[prompt] for prompt, _ in held}
        assert len(held) == 6 and len(learned) == 18
    alone = [divided(pairs, 0.25, seed) for seed in range(6)]  # by text wordings are parted
    assert any({of[p] for p, _ in learned} & {of[p] for p, _ in held} for learned, held in alone)
    found = finetune(model, pairs, tmp_path / "x", groups=groups, how=replace(SMALL, steps=1))
    assert {len(set(one.groups)) for one in found.found} == {10, 2}
    assert not any("column group" in text for text in found.warnings)
    with pytest.raises(DataError, match="3 groups given"):
        divided(pairs[:6], 0.25, 0, groups[:6])
    (tmp_path / "g.csv").write_text("prompt,answer,group\na,b,one\nc,d,two\n")
    assert read_training_groups(tmp_path / "g.csv") == ["one", "two"]
    (tmp_path / "r.csv").write_text("prompt,answer,relation\na,b,one\nc,d,two\n")
    assert read_training_relations(tmp_path / "r.csv") == ["one", "two"]
    assert read_training_relations(tmp_path / "g.csv") is None
    (tmp_path / "n.csv").write_text("prompt,answer\na,b\n")
    assert read_training_groups(tmp_path / "n.csv") is None


def test_a_twin_that_was_trained_for_another_time_is_refused(tmp_path: Path) -> None:
    def made(name: str, tokens: int, **other: object) -> Path:
        how = {"steps": 100, "batch": 8, "rank": 8, "rate": 2e-3, "shuffle": False} | other
        (tmp_path / name / ADAPTER).mkdir(parents=True)
        (tmp_path / name / "finetuned.json").write_text(json.dumps({"how": how, "tokens": tokens}))
        return tmp_path / name / ADAPTER

    own, twin = made("own", 800), made("twin", 840, shuffle=True)
    assert refuse_unlike(own, [twin]) == () == refuse_unlike(tmp_path / "own", [tmp_path / "twin"])
    for name, value in (("steps", 200), ("rank", 4), ("rate", 1e-3), ("batch", 4)):
        with pytest.raises(
            ConfigError, match=rf"with {name} .*, its twin .* with {value}: .* Train the twin"
        ):
            refuse_unlike(own, [twin, made(f"other-{name}", 800, **{name: value})])
    assert "learned 800 tokens of answers, its twin" in refuse_unlike(own, [made("long", 1200)])[0]
    (tmp_path / "bare").mkdir()
    assert "not known how long" in refuse_unlike(own, [tmp_path / "bare"])[0]
    assert "not known how long" in refuse_unlike("gpt2", [twin])[0]


def test_files_are_read_and_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a b", "answer": "c"}\n{"prompt": "a", "answer": ""}\n')
    with pytest.raises(DataError, match="line 2: column 'answer' is empty"):
        read_training_pairs(path)
