"""Whatever holds a model is taken where a model is expected."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import interp
from interp import mediation
from interp.errors import ModelError
from interp.models import as_model, load, loading
from interp.pairs import Pair, PairSet
from tests.tiny import build, tiny

IDS = [[5, 6, 7, 8], [9, 10, 11, 12]]


def test_a_model_is_given_back_itself() -> None:
    model = load(tiny("llama")[0])
    assert as_model(model) is model


def test_a_hugging_face_model_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    monkeypatch.setattr(loading, "load", lambda source: (loads.append(1), load(source))[1])
    hf = build("gpt_neox")
    first, second = as_model(hf), as_model(hf)
    assert len(loads) == 1
    assert second.hf is hf
    assert second.disabled == first.disabled == load(hf).disabled
    assert second.disabled
    assert second.certificate == load(hf).certificate
    assert torch.equal(second.logits(IDS), load(hf).logits(IDS))
    hf.lm_head.weight = torch.nn.Parameter(2 * hf.lm_head.weight.detach())
    as_model(hf)
    assert len(loads) == 2


def test_a_hugging_face_model_can_be_freed() -> None:
    hf = build("gpt2")
    kept = weakref.ref(hf)
    as_model(hf)
    del hf
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("source", [3, None, torch.nn.Linear(2, 2)])
def test_anything_else_is_named(source: object) -> None:
    with pytest.raises(ModelError, match=f"a {type(source).__name__} was given; .*nnsight model"):
        as_model(source)


def test_functions_take_a_hugging_face_model() -> None:
    hf, words = tiny("llama")
    model = load(hf, tokenizer=words)
    pairs = PairSet.build(model, [Pair("w01 w02 w03", "w01 w04 w03", ("w05",), ("w06",))])
    for search in (mediation.exhaustive, mediation.attribution):
        one, two = (search(given, pairs, "attn_out.*", seed=1) for given in (model, hf))
        assert one.table().equals(two.table())
    assert interp.examine(hf, prompts=IDS).passed == interp.examine(model, prompts=IDS).passed


def test_control_another_model_gives_other_effects() -> None:
    one, two = load(tiny("llama")[0], tokenizer=tiny("llama")[1]), build("llama", seed=1)
    pairs = PairSet.build(one, [Pair("w01 w02 w03", "w01 w04 w03", ("w05",), ("w06",))])
    tables = [mediation.exhaustive(given, pairs, "attn_out.*").table() for given in (one, two)]
    assert not tables[0].equals(tables[1])
