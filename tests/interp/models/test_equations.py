"""Every site is an equation, and it holds on every family, with weights that hide nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp.models import Intervention, Model, load
from interp.models.families import FAMILIES
from tests.interp.models.conftest import PROMPTS, wrapped
from tests.tiny import build, tiny

TOLERANCE = 2e-6


def close(got: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Compare relative to the largest expected value, which must not be zero."""
    scale = expected.abs().max()
    assert scale > 0.01
    return bool((got - expected).abs().max() <= tolerance * scale)


def everything(model: Model) -> dict[str, Tensor]:
    """Capture every kind at every layer and every position of one prompt."""
    per_layer = [
        "resid_pre",
        "resid_post",
        "resid_mid",
        "attn_out",
        "mlp_out",
        "q",
        "k",
        "v",
        "z",
        "pattern",
        "mlp_act",
    ]
    names = [f"{kind}.*" for kind in per_layer if kind not in model.disabled]
    acts = model.capture(
        PROMPTS[:1], [*names, "head.*.*", "neuron.*.3", "embed", "final_norm", "logits"], "all"
    )
    return dict(acts.items())


def test_nothing_is_disabled_but_resid_mid_of_parallel_blocks(model: Model) -> None:
    parallel = {"phi", "gptj"} | (
        {"gpt_neox"} if getattr(model.hf.config, "use_parallel_residual", False) else set()
    )
    expected = {"resid_mid"} if model.hf.config.model_type in parallel else set()
    assert set(model.disabled) == expected


def test_residual_stream(model: Model) -> None:
    found = everything(model)
    assert torch.equal(found["embed"], found["resid_pre.0"])
    for layer in range(model.n_layers):
        pre, post = found[f"resid_pre.{layer}"], found[f"resid_post.{layer}"]
        attention, mlp = found[f"attn_out.{layer}"], found[f"mlp_out.{layer}"]
        assert close(pre + attention + mlp, post)
        assert not close(pre + attention, post) and not close(pre + mlp, post)
        if layer + 1 < model.n_layers:
            assert torch.equal(found[f"resid_pre.{layer + 1}"], post)
        if "resid_mid" not in model.disabled:
            assert close(pre + attention, found[f"resid_mid.{layer}"])


def test_stream_against_hidden_states_of_transformers(model: Model) -> None:
    found = model.capture(PROMPTS[:1], ["resid_pre.*", "resid_post.-1", "final_norm", "logits"], "all")
    ids = model.tokenize(PROMPTS[:1]).input_ids
    with torch.no_grad():
        result = model.hf(ids, output_hidden_states=True, use_cache=False)
    for layer in range(model.n_layers):
        assert torch.equal(found[f"resid_pre.{layer}"], result.hidden_states[layer])
    assert torch.equal(found["logits"], result.logits)
    assert torch.equal(found["final_norm"], result.hidden_states[-1])
    assert not close(found[f"resid_post.{model.n_layers - 1}"], result.hidden_states[-1])


def test_heads_sum_to_the_output_projection(model: Model) -> None:
    found = everything(model)
    for layer, block in enumerate(model.architecture.blocks):
        projection = block.get_submodule(model.family.out_projection)
        z = found[f"z.{layer}"]
        assert z.shape[-2:] == (model.n_heads, model.d_head)
        heads = [found[f"head.{layer}.{index}"] for index in range(model.n_heads)]
        bias = projection(torch.zeros(1, 1, model.n_heads * model.d_head))
        assert close(sum(heads) + bias, projection(z.flatten(-2)))
        assert not close(sum(heads[1:]) + bias, projection(z.flatten(-2)))


def test_contributions_from_z_and_mlp_act(model: Model) -> None:
    found = everything(model)
    multiplier = getattr(model.hf.config, "residual_multiplier", 1.0)
    for layer, block in enumerate(model.architecture.blocks):
        for kind, source, path in (
            ("attn_out", found[f"z.{layer}"].flatten(-2), model.family.out_projection),
            ("mlp_out", found[f"mlp_act.{layer}"], model.family.down_projection),
        ):
            out = block.get_submodule(path)(source)
            if model.hf.config.model_type in ("gemma2", "olmo2"):
                norm = "post_attention_layernorm" if kind == "attn_out" else "post_feedforward_layernorm"
                out = block.get_submodule(norm)(out)
            assert close(out * multiplier, found[f"{kind}.{layer}"])
        assert torch.equal(found[f"neuron.{layer}.3"], found[f"mlp_act.{layer}"][..., 3:4])


def test_pattern_times_values_is_z(model: Model) -> None:
    found = everything(model)
    clip = getattr(model.hf.config, "clip_qkv", None)
    for layer in range(model.n_layers):
        pattern, v, z = (found[f"{kind}.{layer}"] for kind in ("pattern", "v", "z"))
        v = v.clamp(-clip, clip) if clip else v
        assert v.shape[-2:] == (model.n_kv_heads, model.d_head)
        v = v.repeat_interleave(model.n_heads // model.n_kv_heads, dim=-2)
        assert close(torch.einsum("bqhk,bkhd->bqhd", pattern, v), z, 5e-6)
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-5)
        later = torch.ones(pattern.shape[1], pattern.shape[-1]).triu(1).bool()
        assert pattern.transpose(1, 2)[..., later].abs().max() == 0
        assert not close(torch.einsum("bqhk,bkhd->bqhd", pattern, v.flip(-2)), z, 1e-2)


def test_queries_keys_and_values_act_as_such(model: Model) -> None:
    """Position 2 of q moves z at 2 only, of k from 2 on and position 0 of k nothing at 0, of v z at 0."""
    base = model.capture(PROMPTS[:1], "z.0", "all")["z.0"]

    def moved(site: str, position: int) -> list[bool]:
        edit = Intervention(site, lambda x: x + 1 + x.abs(), position)
        z = model.run(PROMPTS[:1], interventions=[edit], capture="z.0", positions="all").activations["z.0"]
        return ((z - base).abs().amax((0, 2, 3)) > 1e-6).tolist()

    length = base.shape[1]
    assert moved("q.0", 2) == [position == 2 for position in range(length)]
    assert moved("k.0", 2)[:2] == [False, False] and all(moved("k.0", 2)[2:])
    assert not moved("k.0", 0)[0] and moved("v.0", 0)[0]


def test_single_heads_are_slices(model: Model) -> None:
    acts = model.capture(
        PROMPTS, ["q.1", "q.1.2", "k.1", "k.1.1", "v.1", "v.1.0", "z.1", "z.1.3", "pattern.1", "pattern.1.1"]
    )
    for whole, part, index in (
        ("q.1", "q.1.2", 2),
        ("k.1", "k.1.1", 1),
        ("v.1", "v.1.0", 0),
        ("z.1", "z.1.3", 3),
    ):
        assert torch.equal(acts[whole][:, index], acts[part])
    assert torch.equal(acts["pattern.1"][:, 1], acts["pattern.1.1"])


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "granite", "bloom"])
def test_control_a_naive_row_is_caught(family: str) -> None:
    """Reading raw module outputs breaks the sum by a lot; validation disables it, with the reason."""
    hf, tokenizer = tiny(family)
    row = FAMILIES[family]
    naive = replace(row, attn_out=row.attention, mlp_out="mlp", multiplier="")
    model = load(hf, tokenizer=tokenizer, family=naive)
    error = model.certificate["errors"]["resid_post.l = resid_pre.l + attn_out.l + mlp_out.l"]
    assert error > 0.1
    assert {"attn_out", "mlp_out"} <= set(model.disabled)
    assert "differs from resid_post" in model.disabled["attn_out"]


@pytest.mark.parametrize(
    ("family", "layout"), [("gpt2", "groups"), ("gpt_neox", "thirds"), ("bloom", "thirds")]
)
def test_control_a_wrong_fused_layout_is_caught(family: str, layout: str) -> None:
    hf, tokenizer = tiny(family)
    model = load(hf, tokenizer=tokenizer, family={"layout": layout})
    assert {"q", "k", "v", "pattern"} <= set(model.disabled)


def test_control_a_wrong_middle_is_caught() -> None:
    hf, tokenizer = tiny("llama")
    model = load(hf, tokenizer=tokenizer, family={"resid_mid": "input_layernorm"})
    assert set(model.disabled) == {"resid_mid"}
    assert "resid_pre + attn_out differs from resid_mid" in model.disabled["resid_mid"]


def test_control_a_wrong_projection_is_caught() -> None:
    hf, tokenizer = tiny("llama")
    model = load(hf, tokenizer=tokenizer, family={"out_projection": "self_attn.q_proj"})
    assert {"z", "head", "pattern"} <= set(model.disabled)
    assert "'z' through 'self_attn.q_proj' differs from attn_out" in model.disabled["z"]


def test_control_a_wrong_final_norm_is_caught() -> None:
    hf = build("gpt_neox")
    model = load(hf, family={"final_norm": "gpt_neox.layers.0.input_layernorm"})
    assert "final_norm" in model.disabled


def test_opt_with_post_norm_disables_what_does_not_hold() -> None:
    """OPT-350m norms after adding, so nothing is simply added to the stream."""
    model = load(build("opt", do_layer_norm_before=False))
    assert {"attn_out", "mlp_out", "resid_mid", "final_norm"} <= set(model.disabled)
    assert model.capture([[5, 6, 7]], "resid_post.*").sites


def test_multiplier_is_not_one_in_the_granite_under_test() -> None:
    assert wrapped("granite").architecture.multiplier == 0.6
