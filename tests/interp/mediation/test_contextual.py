"""Contextual decomposition: its two parts are the run, exactly, and the relevant one is what it should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, ModelError, SiteError
from interp.mediation.searches import effects
from interp.mediation.searches.contextual import Split
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from interp.sites import Site
from tests.stress.table import stress
from tests.stress.truth import BOTH
from tests.tiny import build, tokenizer

PROMPT = (5, 9, 11, 6, 20)


def made(family: str) -> Model:
    return load(build(family), tokenizer=tokenizer())


def pairs_of(model: Model) -> PairSet:
    return PairSet.build(
        model,
        [
            Pair("w01 w02 w03 w04", "w01 w05 w03 w04", ("w10",), ("w11",)),
            Pair("w07 w02 w08 w09 w12", "w07 w06 w08 w09 w12", ("w12",), ("w13",)),
        ],
    )


def noise(like: torch.Tensor, copies: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(copies, *like.shape[1:], generator=torch.Generator().manual_seed(seed))


def test_without_biases_all_of_the_stream_stays_all_of_it() -> None:
    """``r`` the whole embedding leaves nothing for the rest: at every site it is the run's own stream."""
    model = made("llama")
    split = Split.of(model, PROMPT)
    whole = split.before[0]
    for layer in range(model.n_layers):
        torch.testing.assert_close(whole, split.before[layer], rtol=1e-4, atol=1e-4)
        whole = whole + split.attended(layer, whole)
        torch.testing.assert_close(whole, split.middle[layer], rtol=1e-4, atol=1e-4)
        whole = whole + split.thought(layer, whole)
    torch.testing.assert_close(
        split.passed([Site("embed")], split.before[0]), split.before[-1], rtol=1e-4, atol=1e-4
    )
    half = split.passed([Site("embed")], 0.5 * split.before[0])
    assert not torch.allclose(half, 0.5 * split.before[-1], rtol=0.05)  # MLPs are not linear


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_zero_part_stays_zero_and_attention_is_linear(family: str) -> None:
    model = made(family)
    split = Split.of(model, PROMPT)
    zero = torch.zeros_like(split.before[0])
    assert not split.attended(1, zero).any()
    assert not split.thought(1, zero).any()
    one, two = (noise(zero, 2, seed) for seed in (1, 2))
    joint = split.attended(1, one + 3 * two)
    apart = split.attended(1, one) + 3 * split.attended(1, two)
    torch.testing.assert_close(joint, apart, rtol=1e-3, atol=1e-4)
    bent = split.thought(1, one + two) - split.thought(1, one) - split.thought(1, two)
    assert bent.abs().max() > 1e-2


def test_both_parts_are_those_of_llama_written_out() -> None:
    """Plain tensors: norms at their scale, values under the run's pattern, SwiGLU of whole and rest."""
    model, layer = made("llama"), 1
    split, block = Split.of(model, PROMPT), model.hf.model.layers[1]  # type: ignore[attr-defined]
    read = model.capture([list(PROMPT)], [f"pattern.{layer}"], "all")
    pattern = read[f"pattern.{layer}"][0].transpose(0, 1)  # head query key

    def normed(norm: Any, stream: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        return norm.weight * part / (stream.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()

    with torch.no_grad():
        stream, part = split.before[layer], noise(split.before[layer], 1)
        values = block.self_attn.v_proj(normed(block.input_layernorm, stream, part))[0]
        heads = values.view(len(PROMPT), 2, 8).transpose(0, 1).repeat_interleave(2, dim=0)
        wanted = block.self_attn.o_proj((pattern @ heads).transpose(0, 1).reshape(1, len(PROMPT), 32))
        middle, mlp = split.middle[layer], block.mlp
        norm = block.post_attention_layernorm

        def swiglu(given: torch.Tensor) -> torch.Tensor:
            return mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(given)) * mlp.up_proj(given))

        whole = normed(norm, middle, middle)
        thought = swiglu(whole) - swiglu(whole - normed(norm, middle, part))
    torch.testing.assert_close(split.attended(layer, part), wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(split.thought(layer, part), thought, rtol=1e-3, atol=1e-4)
    assert wanted.abs().max() > 0.1 and thought.abs().max() > 0.1


BARE = mediation.Contextual(verify=0)
EXACT = ("saturated-activation", "large-stream", "backup", "or-gate", "cancelling", "v-composition")
BLIND = {"k-composition": ("head.0.1", "head.1.2"), "through-the-norm": ("head.0.0",)}


@pytest.mark.parametrize("name", EXACT)
def test_it_is_exact_where_no_pattern_and_no_scale_responds(name: str) -> None:
    truth = stress(name)
    told = effects(truth.model, truth.pairs, list(truth.nodes), search=BARE, positions="all")
    asked = (truth.model, truth.pairs, list(truth.nodes))
    plan = mediation.plan(*asked, search=BARE, positions="all")
    assert (
        told.cost["forwards"] <= plan.forwards / len(truth.pairs) + 1e-6
    )  # parts that are zero cost nothing
    for direction in BOTH:
        shares = told.mean(direction) / float(told.total.mean())
        for mediator, share in zip(map(str, told.mediators), shares, strict=True):
            wanted = truth.effects.get(mediator, (0.0, 0.0))[BOTH.index(direction)]
            assert share == pytest.approx(wanted, abs=0.07), mediator


@pytest.mark.parametrize("name", BLIND)
def test_it_does_not_see_what_a_pattern_or_a_scale_carries(name: str) -> None:
    truth = stress(name)
    told = effects(truth.model, truth.pairs, list(BLIND[name]), search="contextual", positions="all")
    assert np.abs(told.mean()).max() < 0.05 * float(told.total.mean())


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "granite", "opt", "starcoder2"])
def test_the_last_writer_of_other_families_has_its_effect_under_a_held_norm(family: str) -> None:
    """After the last block nothing bends but the norm's scale, which is held: relp says the same."""
    model = made(family)
    pairs = pairs_of(model)
    last = f"mlp_out.{model.n_layers - 1}"
    names = [last, "head.0.1", "embed"]
    told = effects(model, pairs, names, search="contextual", positions="all")
    assert np.isfinite(told.mean()).all()
    slope = mediation.searches.effects(
        model,
        pairs,
        [last],
        search=mediation.Attribution(rule="relp", verify=0),
        positions="all",
    )
    np.testing.assert_allclose(
        told.values["noising"][told.place(last)], slope.values["noising"][0], rtol=1e-3, atol=1e-5
    )
    assert np.abs(slope.values["noising"]).max() > 1e-3


def test_what_it_cannot_split_is_refused_with_its_reason() -> None:
    for family, reason in (
        ("gpt_neox", "does not"),
        ("gemma2", "built otherwise"),
        ("olmo2", "built otherwise"),
    ):
        model = made(family)
        asked = ["mlp_out.*"]
        with pytest.raises(ModelError, match=rf"contextual needs .*{reason}"):
            effects(model, pairs_of(model), asked, search="contextual", positions="all")
    model = made("llama")
    with pytest.raises(ConfigError, match="contextual splits the logit difference"):
        effects(model, pairs_of(model), "head.*", search="contextual", metric="log-prob")
    with pytest.raises(SiteError, match=r"'q\.0' adds nothing to the residual stream"):
        effects(model, pairs_of(model), "q.*", search="contextual", positions="all")
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())
    effects(model, pairs_of(model), "head.0.*", search="contextual", positions="all")
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())
