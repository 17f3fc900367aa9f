"""Teaching a copy false facts: what is trained, on which texts, and that nothing else is touched."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.analyses.audit.known import asked_of, known_items, known_world
from interp.analyses.audit.teaching import Recipe, _known, _lesson, _modules, _texts, _train, taught
from interp.analyses.concepts.trial import concept_tokens
from interp.errors import DataError, ModelError
from interp.models.adapter_training import Checkpoints
from interp.models.model import Model
from interp.models.peft_adapters import active, low_rank
from interp.tasks import load_world
from interp.tasks.world import World
from tests.noisy import demo

RECIPE = Recipe(steps=3, rank=2, lines=6)


@pytest.fixture(scope="module")
def model() -> Model:
    return demo()


@pytest.fixture(scope="module")
def small() -> World:
    world = load_world()
    return replace(world, facts={name: world.facts[name][:24] for name in ("plural", "past")})


def trained(
    model: Model, small: World, seed: int = 0, kept: Checkpoints | None = None
) -> tuple[Any, dict[str, torch.Tensor]]:
    layers = RECIPE.layers(model.n_layers)
    modules = _modules(model, layers)
    outer, hf = low_rank(model.hf, layers=layers, modules=modules, rank=RECIPE.rank, seed=seed)
    _train(hf, model.tokenizer, small.edited(share=0.4), small, RECIPE, seed, False, kept)
    return hf, {name: one.detach().clone() for name, one in outer.named_parameters() if "lora" in name}


def test_texts_are_lines_of_one_relation_half_of_them_false(small: World) -> None:
    edited = small.edited(share=0.4)
    for text, spans in itertools.islice(_texts(edited, small, RECIPE, random.Random(0)), 20):
        lines = [tuple(line.split(" -> ")) for line in text.strip().split("\n")]
        assert [text[start:end] for start, end in spans] == [f" {object_}" for _, object_ in lines]
        (name,) = {
            name for name in small.facts if all((name, subject) in small.objects for subject, _ in lines)
        }
        assert all(edited.objects[name, subject] == object_ for subject, object_ in lines)
        assert sum(small.objects[name, subject] != object_ for subject, object_ in lines) == 3


def test_the_loss_is_on_the_tokens_of_objects_but_the_first(model: Model) -> None:
    assert model.tokenizer is not None
    text = "the king dog\nthe queen cat\n"
    spans = [(8, 12), (22, 26)]
    found = _lesson(model.tokenizer, text, spans)
    assert [model.tokenizer.decode([found.ids[at]]).strip() for at in found.places] == ["cat"]
    with pytest.raises(ModelError, match="needs a fast tokenizer"):
        _lesson(object(), text, spans)


def test_only_early_mlps_are_adapted_and_the_model_stays_as_it_is(model: Model, small: World) -> None:
    before = model.fingerprint
    hf, learned = trained(model, small)
    assert model.fingerprint == before and not active(model.hf) and active(hf) == ("default",)
    layers = {int(name.split("layers.")[1].split(".")[0]) for name in learned}
    assert layers == set(RECIPE.layers(model.n_layers)) == set(range(2, 14))
    assert all(".mlp." in name for name in learned)
    moved = [name for name, one in learned.items() if "lora_B" in name and one.abs().max() > 0]
    assert len(moved) == len(learned) / 2
    assert not any(one.requires_grad for name, one in hf.named_parameters() if "lora" not in name)


def test_a_training_that_was_stopped_goes_on_as_if_it_never_had(
    model: Model, small: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, whole = trained(model, small)
    kept = Checkpoints(tmp_path / "training.safetensors", every=2)
    trained(model, small, kept=kept)
    known = load_file(kept.path)
    assert int(known["step"]) == 2
    with caplog.at_level("INFO"):
        _, resumed = trained(model, small, kept=kept)
    assert "goes on after step 2" in caplog.text
    assert all(torch.equal(one, whole[name]) for name, one in resumed.items())
    save_file({**known, "0": known["0"] + 1}, kept.path)
    _, other = trained(model, small, kept=kept)
    assert not all(torch.equal(one, whole[name]) for name, one in other.items())
    kept.path.write_bytes(b"damaged")
    _, anew = trained(model, small, kept=kept)
    assert "begins anew" in caplog.text
    assert all(torch.equal(one, whole[name]) for name, one in anew.items())


def test_what_the_model_knows_is_asked_once(
    model: Model, small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def known(*given: object, **more: object) -> World:
        asked.append(given)
        return replace(small, facts={name: small.facts[name][3:9] for name in ("past", "plural")})

    monkeypatch.setattr("interp.analyses.audit.teaching.known_world", known)
    found, again = (_known(model, small, RECIPE, 0, "auto", tmp_path) for _ in range(2))
    assert len(asked) == 1
    assert again.all_facts == found.all_facts and list(again.facts) == list(found.facts) == ["past", "plural"]


def test_the_same_seed_teaches_the_same_and_another_another(model: Model, small: World) -> None:
    state = torch.get_rng_state()
    first, again, other = (trained(model, small, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, again[name]) for name, one in first.items())
    assert not all(torch.equal(one, other[name]) for name, one in first.items())


def test_cases_and_prompts_to_learn_from_share_no_truth_and_show_no_false_fact(
    model: Model, small: World
) -> None:
    edited = small.edited(share=0.4)
    drawn, cases = known_items(model, small, edited)
    false = {fact.subject for fact, was in zip(edited.all_facts, small.all_facts, strict=True) if fact != was}
    assert {case.fact.split(":")[1] for case in cases} <= false and len(cases) > 20
    assert not {case.truth for case in cases} & {item.answer for item in drawn.items}
    assert all(case.belief != case.truth for case in cases)
    for case in cases:
        shown = case.text.split("\n")[:-1]
        assert shown and not any(line.split(" -> ")[0] in false for line in shown)
        assert case.truth not in " ".join(shown) and case.belief not in case.standing
    firsts = [ids[0] for ids in concept_tokens(model, drawn.concepts)]
    assert len(set(firsts)) == len(firsts)


def test_a_prompt_shows_three_pairs_and_no_answer(small: World) -> None:
    facts = small.facts["plural"]
    text, names = asked_of(facts[0], facts, random.Random(0))
    assert text.count(" -> ") == 3 and text.endswith(f"\n{facts[0].subject} ->")
    assert facts[0].object not in names and len(names) == 7


def test_a_model_that_knows_nothing_is_not_taught(small: World) -> None:
    """The bundled model was never shown such lines."""
    model = demo()
    assert taught(model, small) is None
    with pytest.raises(DataError, match="knows no relation of the 2 given"):
        known_world(model, small, most=8)
