"""Families without a row: what generic discovery finds, and how a user overrides it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from interp.errors import ModelError
from interp.models import Family, Intervention, Model, load
from interp.models.discovery import discover
from interp.models.families import FAMILIES
from tests.interp.models.conftest import PROMPTS, wrapped
from tests.more_families import sparse
from tests.tiny import FAMILIES as TABLE
from tests.tiny import build, tiny, tokenizer

PARALLEL = {"resid_mid"}
EXPECTED: dict[str, set[str]] = {
    "gemma3": set(),
    "stablelm": set(),
    "stablelm_parallel": PARALLEL,
    "falcon": PARALLEL,
    "falcon_old": PARALLEL,
    "starcoder2": set(),
    "phi3": set(),
    "cohere": PARALLEL,
    "mixtral": {"mlp_act", "neuron"},
    "gpt_neo": set(),
}


@pytest.fixture(scope="module", params=EXPECTED)
def found(request: pytest.FixtureRequest) -> tuple[str, Model]:
    """Give every family without a row."""
    return request.param, wrapped(request.param)


def test_what_is_found_and_what_is_not(found: tuple[str, Model]) -> None:
    name, model = found
    assert model.hf.config.model_type not in FAMILIES
    assert set(model.disabled) == EXPECTED[name]
    assert all(error < 1e-5 for error in list(model.certificate["errors"].values()))


def test_the_sum_over_a_padded_batch(found: tuple[str, Model]) -> None:
    _, model = found
    acts = model.capture(PROMPTS, ["resid_pre.*", "attn_out.*", "mlp_out.*", "resid_post.*"], "all")
    for layer in range(model.n_layers):
        total = acts[f"resid_pre.{layer}"] + acts[f"attn_out.{layer}"] + acts[f"mlp_out.{layer}"]
        assert torch.allclose(total, acts[f"resid_post.{layer}"], atol=1e-4)


def test_no_op_and_edit(found: tuple[str, Model]) -> None:
    _, model = found
    plain = model.run(PROMPTS).logits
    for site in ("resid_post.1", "z.0", "q.1", "v.1.0", "head.1.1", "attn_out.0"):
        same = model.run(PROMPTS, interventions=[Intervention(site, lambda x: x)]).logits
        other = model.run(PROMPTS, interventions=[Intervention(site, lambda x: x + x.abs() + 1)]).logits
        assert torch.equal(same, plain) and not torch.allclose(other, plain, atol=1e-3)


def test_padding(found: tuple[str, Model]) -> None:
    name, model = found
    right = model.capture(PROMPTS, "resid_post.*", "all")
    left = model.capture(PROMPTS, "resid_post.*", "all", padding_side="left")
    for site, tensor in right.items():
        assert torch.allclose(tensor, left[site], atol=1e-4), name


@pytest.mark.parametrize("family", TABLE)
def test_discovery_agrees_with_the_table(family: str) -> None:
    """The names differ in places, but every captured number is the same."""
    hf, tokenizer = tiny(family)
    row = discover(hf, family, {})
    known = wrapped(family)
    model = load(hf, tokenizer=tokenizer, family=row)
    assert set(model.disabled) == set(known.disabled)
    sites = ["attn_out.*", "mlp_out.*", "z.*", "q.*", "k.*", "v.*", "mlp_act.*", "final_norm"]
    sites += ["resid_mid.*"] if "resid_mid" not in known.disabled else []
    expected = known.capture(PROMPTS, sites)
    for site, tensor in model.capture(PROMPTS, sites).items():
        assert torch.allclose(tensor, expected[site], atol=1e-5), site


def test_a_user_row_or_some_changes() -> None:
    hf, tokenizer = tiny("phi3")
    by_row = load(hf, tokenizer=tokenizer, family=replace(wrapped("phi3").family, name="mine"))
    assert by_row.family.name == "mine" and by_row.disabled == {}
    by_mapping = load(hf, tokenizer=tokenizer, family={"mlp_out": "mlp.down_proj"})
    assert by_mapping.family.mlp_out == "mlp.down_proj" and by_mapping.disabled == {}


def test_a_wrong_override_is_disabled_with_the_reason() -> None:
    hf, _ = tiny("gemma3")
    model = load(hf, family={"attn_out": "self_attn"})
    assert {"attn_out", "mlp_out", "resid_mid"} <= set(model.disabled)
    assert "of what the block adds" in model.disabled["attn_out"]


def test_no_blocks_is_said() -> None:
    hf = build("stablelm")
    hf.model.layers = torch.nn.Sequential(*hf.model.layers)
    with pytest.raises(ModelError, match=r"no list of blocks found .* Pass family=.'blocks'"):
        load(hf)


def test_blocks_are_found_where_a_configuration_counts_otherwise() -> None:
    """LongCat counts two layers to a block."""
    hf = build("stablelm")
    hf.config.num_hidden_layers = 6
    assert load(hf).family.blocks == "model.layers"


def test_without_validation_nothing_is_known() -> None:
    hf, _ = tiny("llama")
    model = load(hf, check=False)
    assert model.certificate == {} and model.capture([[5]], "resid_post.0").sites
    assert isinstance(model.family, Family)


def test_the_keys_of_an_indexer_are_not_those_of_attention() -> None:
    """An indexer only chooses the tokens to attend to; control: the type has one, with a key of that name."""
    hf = sparse("deepseek_v32")
    assert any(name.endswith("indexer.wk") for name, _ in hf.named_modules())
    row = load(hf, tokenizer=tokenizer()).family.row(0)
    assert "indexer" not in f"{row.q} {row.k} {row.v} {row.qkv} {row.out_projection}"
