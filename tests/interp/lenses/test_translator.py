"""The translator lens: its texts, its one pass, its fit against scikit-learn, its cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import interp
from interp import Model, lenses
from interp.errors import DataError, SiteError
from interp.lenses import gathering, texts, translator
from interp.lenses.gathering import gathered
from interp.lenses.texts import Texts, drawn, prepared
from interp.lenses.translator import TranslatorLens, fitted
from interp.models.readout import Readout
from tests.tiny import tiny, tokenizer

LENGTH = 12


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A cache of its own, and few tokens."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(translator, "TOKENS", 480)
    monkeypatch.setattr(translator, "LENGTH", LENGTH)
    yield


@pytest.fixture(scope="module")
def model() -> Model:
    return interp.load(tiny("llama")[0], tokenizer=tokenizer())


@pytest.fixture(scope="module")
def own(model: Model) -> Texts:
    return prepared(model, n_tokens=480, length=LENGTH)


# texts


def test_texts_begin_at_the_beginning_token_or_a_single_other_one_and_go_on_as_the_model_does(
    model: Model,
) -> None:
    found = drawn(model, n_tokens=480, length=LENGTH, seed=0)
    begin = tokenizer().bos_token_id
    assert len(found) == 40 and sum(ids[0] == begin for ids in found) == 20
    assert len({ids[0] for ids in found}) == 21 and all(2 <= len(ids) <= LENGTH for ids in found)
    assert found == drawn(model, n_tokens=480, length=LENGTH, seed=0)
    assert found != drawn(model, n_tokens=480, length=LENGTH, seed=1)


def test_no_text_is_learned_from_and_judged_on(model: Model, own: Texts) -> None:
    both = prepared(
        model, ["w01 w02", "w01 w05 w03", "w01 w05 w03", "w01 w02 w03 w04"], n_tokens=480, length=LENGTH
    )
    assert not set(both.train) & set(both.held_out)
    given = set(model.tokenize(["w01 w02", "w01 w05 w03", "w01 w02 w03 w04"]).token_ids)
    assert (
        (both.drawn, both.given) == (40, 3)
        and len(given & set(both.train)) == 2
        and given & set(both.held_out)
    )
    assert set(own.train) < set(both.train) and both.hash != own.hash
    assert both.card()["train_tokens"] == sum(map(len, both.train))


def test_texts_alone_are_enough_and_one_is_not(model: Model, own: Texts) -> None:
    given = prepared(model, ["w01 w02", "w01 w05"], n_tokens=0)
    assert given.drawn == 0 and given.card()["texts"] == "that were given"
    assert own.card()["texts"] == "drawn from the model itself"
    with pytest.raises(DataError, match="1 different texts for a lens; give at least 2"):
        prepared(model, ["w01 w02", "w01 w02"], n_tokens=0)
    with pytest.raises(DataError, match="no different texts"):
        prepared(model, n_tokens=0)


# the pass


def by_hand(model: Model, ids: tuple[tuple[int, ...], ...], layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States and final states text by text, from Hugging Face itself."""
    states, finals = [], []
    for row in ids:
        with torch.no_grad():
            hidden = model.hf(torch.tensor([row]), output_hidden_states=True).hidden_states
        states.append(hidden[layer + 1][0, 1:])
        finals.append(hidden[-1][0, 1:])  # after the norm
    return torch.cat(states).double(), torch.cat(finals).double()


@pytest.mark.parametrize("size", [1 << 28, 3000])
def test_one_pass_gathers_every_position_but_the_first(
    model: Model, own: Texts, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "BYTES", size)
    found = gathered(model, [0, 1], own.held_out, Readout.precise(model.architecture), keep=10)
    for layer, moments in found.moments.items():
        states, finals = by_hand(model, own.held_out, layer)
        assert moments.count == len(states) and torch.allclose(moments.state_mean, states.mean(0), atol=1e-5)
        assert torch.allclose(
            moments.cross / len(states),
            torch.from_numpy(np.cov(states.T, finals.T, bias=True)[: model.d_model, model.d_model :]),
            atol=1e-5,
        )
    kept = torch.cat([block.layers[1] for block in found.kept])
    states, _ = by_hand(model, own.held_out, 1)
    assert 5 <= len(kept) <= 10 and torch.cdist(kept.double(), states).amin(dim=1).max() < 1e-4
    assert len({int(one) for block in found.kept for one in block.texts}) >= 3


def test_texts_of_one_token_are_refused(model: Model) -> None:
    with pytest.raises(DataError, match="one token alone"):
        gathered(model, [0], [(1,), (5,)], Readout.precise(model.architecture))


# the fit


def test_a_translator_is_ridge_to_the_final_states(model: Model, own: Texts) -> None:
    lens = fitted(model, [0, 1], own)
    states, finals = by_hand(model, own.train, 1)
    found = lens.translators[1]
    alpha = found.penalty * len(states) * float(states.var(dim=0, correction=0).mean())
    right = Ridge(alpha=alpha).fit(states, finals)
    fresh = torch.randn(3, 4, model.d_model)
    expected = torch.from_numpy(right.predict(fresh.flatten(0, 1).numpy())).float()
    assert torch.allclose(lens.final_states(fresh, 1).flatten(0, 1), expected, atol=1e-3)
    assert torch.allclose(
        lens.logits(fresh, 1).flatten(0, 1), expected @ model.hf.lm_head.weight.T, atol=1e-3
    )
    assert not torch.allclose(lens.logits(fresh, 0), lens.logits(fresh, 1), atol=0.1)
    held, ends = by_hand(model, own.held_out, 1)
    error = float((torch.from_numpy(right.predict(held.numpy())) - ends).square().sum())
    assert found.score == pytest.approx(1 - error / float((ends - finals.mean(0)).square().sum()), abs=1e-4)


def test_layers_in_several_passes_are_the_same(
    model: Model, own: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted(model, [0, 1], own)
    monkeypatch.setattr(translator, "MEMORY", 1)
    each = fitted(model, [0, 1], own)
    assert all(
        torch.allclose(whole.translators[layer].weight, each.translators[layer].weight) for layer in (0, 1)
    )


def test_the_card_says_how_often_the_models_own_token_is_named(model: Model, own: Texts) -> None:
    lens = fitted(model, [1], own)
    agreement = lens.card()["translators"]["1"]["agreement"]
    held, ends = by_hand(model, own.held_out, 1)
    with torch.no_grad():
        said = model.hf.lm_head(ends.float()).argmax(-1)
    read = lens.logits(held.float(), 1).argmax(-1)
    assert agreement["translator"]["n"] == len(held) and agreement["translator"]["n_groups"] == len(
        own.held_out
    )
    assert agreement["translator"]["value"] == pytest.approx(float((read == said).double().mean()))
    raw = model.unembed(held.float()).argmax(-1)
    assert agreement["logit lens"]["value"] == pytest.approx(float((raw == said).double().mean()))
    assert agreement["commonest token"]["value"] == pytest.approx(float(said.bincount().max()) / len(said))


# the lens, and its cache


def test_after_the_last_block_it_is_the_model(model: Model) -> None:
    lens = lenses.make("translator", model, layers=[1, model.n_layers - 1])
    ids = [[1, 5, 9, 11]]
    last = model.n_layers - 1
    with torch.no_grad():
        logits = model.hf(torch.tensor(ids)).logits
    assert torch.allclose(
        lens.logits(model.capture(ids, [f"resid_post.{last}"], "all")[f"resid_post.{last}"], last),
        logits,
        atol=1e-5,
    )
    assert lens.layers == (1, last) and list(lens.card()["translators"]) == ["1"]
    with pytest.raises(SiteError, match="translator lens reads no layer 0"):
        lens.logits(torch.zeros(1, model.d_model), 0)


def test_it_is_fitted_once_for_each_layer(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TranslatorLens.of(model, [0])
    calls: list[list[int]] = []

    def counted(model: Model, layers: list[int], texts: Texts) -> TranslatorLens:
        calls.append(layers)
        return fitted(model, layers, texts)

    monkeypatch.setattr(translator, "fitted", counted)
    again = TranslatorLens.of(model, [0])
    assert not calls and torch.equal(again.translators[0].weight, first.translators[0].weight)
    assert again.card() == first.card() and first.fitted_on["drawn"] == 40
    TranslatorLens.of(model, [0, 1])
    assert calls == [[1]]
    monkeypatch.setattr(texts, "drawn", None)  # the texts are kept too
    TranslatorLens.of(model, [0, 1, model.n_layers - 2])
    monkeypatch.undo()


def test_other_texts_seeds_and_weights_are_fitted_again(model: Model) -> None:
    first = TranslatorLens.of(model, [0])
    given = TranslatorLens.of(model, [0], ["w01 w02 w03", "w01 w05 w03", "w07 w02"])
    seeded = TranslatorLens.of(model, [0], seed=1)
    other = TranslatorLens.of(interp.load(tiny("gpt2")[0], tokenizer=tokenizer()), [0])
    weights = [lens.translators[0].weight for lens in (first, given, seeded, other)]
    assert all(not torch.equal(weights[0], one) for one in weights[1:])
    assert given.fitted_on["given"] == 3 and seeded.fitted_on["seed"] == 1


def test_a_damaged_file_is_named(model: Model, tmp_path: Path) -> None:
    TranslatorLens.of(model, [0])
    (path,) = (tmp_path / "cache").rglob("translator.safetensors")
    path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"Remove the folder .*, and it is fitted again"):
        TranslatorLens.of(model, [0])
