"""The certificate against brute force; a dictionary of another layer, model or nothing is noticed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp import Intervention, features, mediation
from interp.features.certificate import FeatureCertificate, certified, named_otherwise, notes_of
from interp.features.measuring import moved_to
from interp.features.training import Plan, gather, train
from interp.models.model import Model
from interp.store import ActivationStore
from tests.dictionaries import planted_dictionary, random_dictionary, transcoder
from tests.tiny import tiny

TEXTS = [" ".join(f"w{(7 * row + 3 * at) % 12:02d}" for at in range(8)) for row in range(8)]


@cache
def model() -> Model:
    hf, words = tiny("llama")
    return interp.load(hf, tokenizer=words)


def shares(found: FeatureCertificate) -> dict[str, float]:
    return {name: one.value for name, one in found.variance.items()}


def test_the_planted_dictionary_explains_all_and_its_controls_do_not() -> None:
    planted = planted_dictionary()
    found = features.check(planted.model, planted.dictionary, texts=TEXTS)
    values = shares(found)
    assert values["own"] > 0.999 and max(v for name, v in values.items() if name != "own") < 0.6
    assert found.l0.value == pytest.approx(1.0)
    assert found.silent == 0.0
    assert found.recovered["zero"].value == pytest.approx(1.0, abs=1e-3)
    assert found.recovered["rows exchanged"].value < 0.9
    assert not found.suspicions and "SUSPECT" not in found.line()


@pytest.mark.parametrize("kind", ["autoencoder", "transcoder"])
def test_every_number_is_that_of_brute_force(kind: str) -> None:
    dictionary = random_dictionary(site="resid_post.1") if kind == "autoencoder" else transcoder()
    dictionary = replace(dictionary, decoder=dictionary.decoder * 0.1)
    found = features.check(model(), dictionary, texts=TEXTS)
    own = model().with_dictionaries(dictionary)
    layer, out = dictionary.layer, str(dictionary.site_out)
    left, values, active = [], [], 0
    loss = dict.fromkeys(("plain", "spliced", "zero", "mean"), 0.0)
    ids = model().tokenize(TEXTS).token_ids
    for row in ids:
        read = own.capture([list(row)], [f"error.{layer}", f"feature.{layer}", out], "all")
        left.append(read[f"error.{layer}"][0, 1:])
        values.append(read[out][0, 1:])
        active += int((read[f"feature.{layer}"][0, 1:] != 0).sum())
    states = torch.cat(values).double()
    wanted = 1 - torch.cat(left).double().square().sum() / (states - states.mean(0)).square().sum()
    assert shares(found)["own"] == pytest.approx(float(wanted), abs=1e-5)
    assert found.l0.value == pytest.approx(active / len(states))
    for row in ids:
        ways = {
            "plain": None,
            "spliced": Intervention(out, lambda x, at=row: x, slice(1, None)),
            "zero": Intervention(out, 0.0, slice(1, None)),
            "mean": Intervention(out, states.mean(0).float(), slice(1, None)),
        }
        read = own.capture([list(row)], [f"error.{layer}", out], "all")
        ways["spliced"] = Intervention(out, (read[out] - read[f"error.{layer}"])[:, 1:], slice(1, None))
        for name, edit in ways.items():
            logits = model().run([list(row)], interventions=[edit] if edit else None, logits="all").logits[0]
            rows = torch.arange(1, len(row) - 1)
            loss[name] -= float(logits.log_softmax(-1)[rows, torch.tensor(row[2:])].sum())
    for name, value in loss.items():
        assert found.losses[name].sum() == pytest.approx(value, rel=1e-4)
    if loss["zero"] <= loss["plain"]:  # an MLP of a random model may be in the way
        assert "zero" not in found.recovered
        return
    recovered = (loss["zero"] - loss["spliced"]) / (loss["zero"] - loss["plain"])
    assert found.recovered["zero"].value == pytest.approx(recovered, rel=1e-3, abs=1e-3)


def test_another_layer_another_model_and_noise_are_noticed(tmp_path: Path) -> None:
    rows = [[(5 * row + 7 * at * at) % 56 + 4 for at in range(10)] for row in range(60)]
    with ActivationStore(tmp_path) as store:
        gather(model(), "resid_post.1", rows, store)
    own = train(
        ActivationStore(tmp_path), Plan("resid_post.1", 64, k=6, epochs=30, batch=64, rate=0.01)
    ).dictionary
    assert not features.check(model(), own).suspicions
    layered = features.check(model(), moved_to(own, 2))
    assert "explains more of resid_post.1" in layered.verdict() and "SUSPECT" in layered.line()
    hf, words = tiny("llama")
    other = features.check(interp.load(hf, weights="random", tokenizer=words), own)
    assert "cannot know the model" in other.verdict()
    noise = features.check(model(), random_dictionary(site="resid_post.1"), texts=TEXTS)
    assert "cannot know the model" in noise.verdict()
    named = replace(own, model_name="google/gemma-2-2b")
    assert "names the model 'google/gemma-2-2b'" in features.check(model(), named).warnings[0]


def test_it_comes_with_every_use_and_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    planted = planted_dictionary()
    own = planted.model.with_dictionaries(planted.dictionary)
    from tests.interp.features.test_mediators import planted as planted_pairs

    _, pairs = planted_pairs()
    found = mediation.attribution(own, pairs, "feature.0.*")
    assert any("dictionary 'planted' at resid_post.0: explains" in text for text in found.warnings)
    assert not any("explains" in text for text in mediation.attribution(own, pairs, "head.*").warnings)
    first = certified(planted.model, planted.dictionary)
    monkeypatch.setattr("interp.features.certificate.check", None)  # a second one would fail
    second = certified(planted.model, planted.dictionary)
    assert np.array_equal(first.fired, second.fired) and first.line() == second.line()


def test_a_dictionary_of_another_model_is_named_wherever_it_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    planted = planted_dictionary()
    plain = planted.dictionary
    other = replace(plain, model_name="google/gemma-2-2b", name="other")
    said = {
        one.name: notes_of(planted.model.with_dictionaries(one), [0])[0] for one in (plain, other)
    }  # the same weights: the second certificate is the kept one
    assert "gemma" not in said["planted"] and "names the model 'google/gemma-2-2b'" in said["other"]
    assert "dictionary 'other'" in said["other"]
    views = features.look(planted.model, other, [1], texts=TEXTS, translator=False)
    assert "gemma-2-2b" in views.warnings[0]


@pytest.mark.parametrize(
    ("trained", "used", "same"),
    [
        ("google/gemma-2-2b", "google/gemma-2-2b-it", False),
        ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m-deduped", False),
        ("gpt2", "gpt2-medium", False),
        ("google/gemma-2-2b", "somewhere/Gemma-2-2b", True),
        ("gpt2-small", "openai-community/gpt2", True),
        ("", "gpt2", True),
    ],
)
def test_models_are_told_apart_by_their_whole_names(trained: str, used: str, same: bool) -> None:
    hf, words = tiny("llama")
    loaded = interp.load(hf, tokenizer=words)
    loaded = replace(loaded, name=used)
    found = named_otherwise(loaded, replace(random_dictionary(), model_name=trained))
    assert (not found) == same
