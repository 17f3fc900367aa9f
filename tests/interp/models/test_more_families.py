"""Families without a row, most with blocks that are not all alike; the oracles are plain forward hooks."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.errors import InterpError, ModelError, SiteError
from interp.mediation import exhaustive
from interp.models import Intervention, Model, load
from interp.models.checks import hooks, residual_stream, runs
from interp.models.doctor import examine
from interp.pairs import Pair, PairSet
from tests.more_families import MORE, build
from tests.tiny import tokenizer

IDS = [3, 14, 15, 92, 65, 35]
REFUSED = {"deepseek_v4": "several streams at once, and none of them is the active one"}
OFFERED = [kind for kind in MORE if kind not in REFUSED]
UNLIKE = ("qwen3_5_text", "granitemoehybrid", "nemotron_h", "lfm2", "jamba", "gemma4_text", "recurrent_gemma")
UNPADDED = ("recurrent_gemma", "xlstm", "rwkv")
UNCACHED = ("minimax", "zamba2", "nemotron_h", "recurrent_gemma")
MIXED = {
    "qwen3_5_text": ("mixer_out.*",),
    "nemotron_h": ("mixer_out.*", "neuron.2.3"),
    "jamba": ("mlp_out.*",),
}
PARTS = ("attn_out", "mixer_out", "mlp_out")


@cache
def loaded(kind: str) -> Model:
    """Load the tiny model of a type."""
    return load(build(kind))


@pytest.fixture(params=OFFERED)
def more(request: pytest.FixtureRequest) -> Model:
    """Give every model that loads."""
    return loaded(request.param)


def streams(model: Model) -> list[Tensor]:
    """Read what every block returns, by plain hooks."""
    seen: list[Tensor] = []

    def look(module: Any, args: Any, output: Any) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    handles = [block.register_forward_hook(look) for block in model.architecture.blocks]
    with torch.no_grad():
        model.hf(input_ids=torch.tensor([IDS]), use_cache=False)
    for handle in handles:
        handle.remove()
    if model.hf.config.model_type == "gemma3n_text":  # [stream batch pos d_model], of which one is active
        return [one[model.hf.config.altup_active_idx] for one in seen]
    return seen


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_single_stream_is_refused_by_its_true_reason(kind: str) -> None:
    with pytest.raises(ModelError, match=REFUSED[kind]):
        loaded(kind)


def test_streams_are_those_of_plain_hooks(more: Model) -> None:
    found = more.capture([IDS], "resid_post.*", "all")
    for layer, seen in enumerate(streams(more)):
        assert torch.equal(found[f"resid_post.{layer}"], seen), layer
    assert repr(more).endswith("cpu)")


def test_what_blocks_add_sums_up(more: Model) -> None:
    """The terms on offer make up the stream after the block, or the stream in its middle where no MLP is."""
    there = [kind for kind in (*PARTS, "resid_mid") if kind in more.sites]
    whole = bool(there) and (more.n_layers > 0 and ("mlp_out" in there or not more.family.names("mlp_out")))
    assert whole or "resid_mid" in there or not there
    found = more.capture([IDS], ["resid_pre.*", "resid_post.*", *(f"{kind}.*" for kind in there)], "all")
    for layer in range(more.n_layers) if there else ():
        total, post = found[f"resid_pre.{layer}"], found[f"resid_post.{layer}"]
        limit = 2e-5 * (post - total).abs().max()
        for kind in PARTS[:2]:
            total = total + found[f"{kind}.{layer}"] if f"{kind}.{layer}" in found else total
        if f"resid_mid.{layer}" in found:
            assert (total - found[f"resid_mid.{layer}"]).abs().max() <= limit
        if whole:
            total = total + found[f"mlp_out.{layer}"] if f"mlp_out.{layer}" in found else total
            assert (total - post).abs().max() <= limit, layer


def test_no_check_fails(more: Model) -> None:
    """What a model can't do is kept from it and said: padding on the left, or a cache."""
    found = examine(more)
    assert not found.failures
    kind = more.hf.config.model_type
    asked = {row.name: row for row in found.checks}
    assert asked[residual_stream.STREAM].status == "pass" and asked[hooks.ONCE].status == "pass"
    assert ("share no batch padded on the left" in asked[runs.LEFT].detail) == (kind in UNPADDED)
    assert ("text is continued without one" in asked[runs.CACHE].detail) == (kind in UNCACHED)
    assert (asked[runs.RIGHT].status == "pass" and kind in UNPADDED) or asked[runs.LEFT].status == "pass"


@pytest.mark.parametrize("kind", [*UNPADDED, *UNCACHED[:3], "qwen3_next", "falcon_h1", "mamba"])
def test_texts_of_several_lengths_go_on_as_each_alone(kind: str) -> None:
    """The oracle is a loop over whole passes of Hugging Face's model, one prompt at a time."""
    model = loaded(kind)
    prompts = [IDS * 4, IDS[:3], IDS[:4] * 3]
    found = model.generate(prompts, max_new_tokens=4, batch_size=3, capture="logits")
    for row, prompt in enumerate(prompts):
        ids = list(prompt)
        for step in range(len(found.token_ids[row])):
            with torch.no_grad():
                logits = model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            read = found.activations["logits"][row, step]
            assert (read - logits).abs().max() <= 3e-4 * logits.abs().max(), (row, step)
            assert found.token_ids[row][step] == int(logits.argmax())
            ids.append(int(logits.argmax()))
    for side in ("left", "right"):
        both = model.run(prompts, batch_size=3, padding_side=side).logits
        for row, prompt in enumerate(prompts):
            alone = model.run([prompt]).logits[0]
            assert (both[row] - alone).abs().max() <= 1e-4 * alone.abs().max(), side


@pytest.mark.parametrize("kind", UNPADDED)
def test_control_padding_on_the_left_is_wrong_there(kind: str) -> None:
    hf = build(kind)
    with torch.no_grad():
        ids = torch.tensor([[0, 0, *IDS]])
        padded = hf(input_ids=ids, attention_mask=(ids > 0).long(), use_cache=False).logits[0, -1]
        alone = hf(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, -1]
    assert (padded - alone).abs().max() > 1e-2 * alone.abs().max()
    model = loaded(kind)
    assert model.family.padding == "right"
    run = model.run([IDS, IDS[:3]], capture="resid_post.0", positions="all", grad=True, padding_side="left")
    assert torch.allclose(run.logits[0], alone, atol=1e-4)


def test_a_head_without_its_output_is_attention_less_that_output(more: Model) -> None:
    """Zeroing a head gives the logits of a run whose output projection gives that much less."""
    if "head" not in more.sites:
        assert more.n_heads == 0
        return
    for layer in more.anatomy.layers("head"):
        index = more.anatomy.heads[layer] - 1
        site = f"head.{layer}.{index}"
        output = more.capture([IDS], site, "all")[site]
        projection = more.architecture.part(layer, "out_projection")
        assert projection is not None
        handle = projection.register_forward_hook(lambda m, a, o, less=output: o - less)
        with torch.no_grad():
            wanted = more.hf(input_ids=torch.tensor([IDS]), use_cache=False).logits[:, -1]
        handle.remove()
        for asked in (site, f"z.{layer}.{index}"):
            edit = Intervention(asked, torch.zeros_like, "all")
            assert torch.allclose(more.run([IDS], interventions=[edit]).logits, wanted, atol=2e-5), asked


def test_globs_take_the_layers_there_are() -> None:
    model = loaded("jamba")
    assert [str(site) for site in model.expand("attn_out.*")] == ["attn_out.1", "attn_out.3"]
    assert [str(site) for site in model.expand("mixer_out.*")] == ["mixer_out.0", "mixer_out.2"]
    assert {site.layer for site in model.expand("head.*")} == {1, 3}
    assert {str(site) for site in model.expand("*_out.0")} == {"mixer_out.0", "mlp_out.0"}
    assert len(model.expand("neuron.*")) == 2 * 64
    for asked in ("attn_out.0", "head.2.0", "z.2", "mixer_out.-1", "attn_out.0,1"):
        with pytest.raises(SiteError, match=r"layer \d of .* has no '.*'; these layers have it: \d, \d\."):
            model.capture([IDS], asked)
    with pytest.raises(SiteError, match="no layer has it"):
        loaded("glm4").capture([IDS], "mixer_out.0")


def test_keys_of_another_number_and_width() -> None:
    """Gemma 4's full attention has fewer and wider key heads; zeroing a key is zeroing all of its head."""
    model = loaded("gemma4_text")
    assert (model.anatomy.heads, model.anatomy.kv_heads) == ((4, 4), (2, 1))
    assert model.capture([IDS], "k.1")["k.1"].shape == (1, 1, 32)
    assert model.capture([IDS], "k.0")["k.0"].shape == (1, 2, 8)
    with pytest.raises(SiteError, match=r"kv heads 0\.\.0 in layer 1"):
        model.capture([IDS], "k.1.1")
    assert model.anatomy.layers("v") == (0,) and model.anatomy.layers("k") == (0, 1)


def test_one_of_several_streams_is_written() -> None:
    """Gemma 3n's active stream; the oracle edits that one of what the block gives."""
    model = loaded("gemma3n_text")
    change = torch.randn(1, len(IDS), 32, generator=torch.Generator().manual_seed(0))

    def edited(module: Any, args: Any, output: Tensor) -> Tensor:
        first = output[:1] + change
        return torch.cat([first, output[1:]])

    handle = model.architecture.blocks[1].register_forward_hook(edited)
    with torch.no_grad():
        wanted = model.hf(input_ids=torch.tensor([IDS]), use_cache=False).logits[:, -1]
    handle.remove()
    edit = Intervention("resid_post.1", lambda now: now + change[0], "all")
    run = model.run([IDS], interventions=[edit], capture="resid_pre.2", positions="all")
    assert torch.allclose(run.logits, wanted, atol=2e-5)
    assert not torch.allclose(run.logits, model.run([IDS]).logits, atol=1e-2)
    before = model.capture([IDS], "resid_post.1", "all")["resid_post.1"]
    assert torch.allclose(run.activations["resid_pre.2"], before + change, atol=1e-5)


def test_layers_that_share_keys_compute_every_token() -> None:
    """Told a number of logits, Hugging Face's Gemma 4 leaves out tokens in those layers."""
    model = loaded("gemma4_shared")
    assert model.anatomy.layers("k") == (0, 1) and model.anatomy.layers("q") == (0, 1, 2, 3)
    found = model.capture([IDS], ["resid_post.3", "z.3"], "all")
    assert found["resid_post.3"].shape == (1, len(IDS), 32)
    with torch.no_grad():
        short = model.hf.model(input_ids=torch.tensor([IDS]), use_cache=False, logits_to_keep=1)
    assert short.last_hidden_state.shape[1] == 1


def test_a_factor_on_a_block_takes_the_mlp_away_and_not_attention() -> None:
    model = loaded("gemma4_text")
    assert "mlp_out" in model.disabled and "attn_out" in model.sites
    read = model.capture([IDS], ["resid_pre.1", "attn_out.1", "resid_mid.1"], "all")
    assert torch.allclose(read["resid_pre.1"] + read["attn_out.1"], read["resid_mid.1"], atol=1e-5)


def test_a_site_computed_twice_is_not_offered() -> None:
    assert "computed 2 times in one pass" in loaded("nanochat").disabled["final_norm"]


@pytest.mark.parametrize("kind", UNLIKE)
def test_patching_uses_the_heads_there_are(kind: str) -> None:
    """What patching a head does is what a plain run with that head's own value of the other prompt gives."""
    model = load(build(kind), tokenizer=tokenizer())
    pairs = PairSet.build(model, [Pair("w01 w02 w03 w04 w05", "w01 w07 w03 w04 w05", ("w11",), ("w12",))])
    found = exhaustive(model, pairs, ["head.*", "resid_post.1", *MIXED.get(kind, ())], directions="denoising")
    assert {str(one) for one in found.mediators if one.site.kind == "head"} == set(
        map(str, model.expand("head.*"))
    )
    table = found.table()
    clean, corrupt = (model.tokenize(list(side.texts)) for side in (pairs.clean, pairs.corrupt))
    difference = {}
    for name in ("plain", "head", "clean"):
        site = str(model.expand("head.*")[-1])
        value = model.capture(clean, site, "all")[site]
        edit = [Intervention(site, value, "all")] if name == "head" else None
        logits = model.run(clean if name == "clean" else corrupt, interventions=edit).logits
        assert logits is not None
        difference[name] = float(logits[0, pairs.answer_ids[0][0]] - logits[0, pairs.foil_ids[0][0]])
    row = table[table.iloc[:, 0] == site].iloc[0]
    wanted = difference["head"] - difference["plain"]
    assert any(abs(float(v) - wanted) < 1e-4 for v in row if isinstance(v, float)), (row, wanted)


@pytest.mark.parametrize("kind", ["mamba", "rwkv", "xlstm"])
def test_models_without_heads(kind: str) -> None:
    model = loaded(kind)
    assert (model.n_heads, model.n_kv_heads, model.d_head) == (0, 0, 0)
    with pytest.raises(InterpError):
        model.capture([IDS], "head.*")


def test_short_contexts_are_checked_with_what_fits() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_positions=3, n_embd=16, n_layer=2, n_head=2, vocab_size=20)
    model = load(GPT2LMHeadModel(config).eval())
    assert not model.disabled and model.capture([[1, 2, 3]], "resid_post.1").sites
