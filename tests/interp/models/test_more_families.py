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
from interp.models.checks import equations, hooks, runs
from interp.models.doctor import examine
from interp.pairs import Pair, PairSet
from tests.more_families import MORE, build
from tests.tiny import tokenizer

IDS = [3, 14, 15, 92, 65, 35]
REFUSED = {"gemma3n_text": "several streams"}
OFFERED = [kind for kind in MORE if kind not in REFUSED]
UNLIKE = ("qwen3_5_text", "granitemoehybrid", "nemotron_h", "lfm2", "jamba", "gemma4_text", "recurrent_gemma")
KNOWN = {
    "qwen3_next": {runs.LEFT, runs.CACHE},
    "nemotron_h": {runs.CACHE},
    "minimax": {runs.CACHE},
    "zamba2": {runs.CACHE},
    "recurrent_gemma": {runs.LEFT, runs.CACHE},
    "xlstm": {runs.LEFT},
    "rwkv": {runs.LEFT},
}
"""Checks that fail for a true reason in transformers itself."""
ROUNDED = (
    "qwen3_next",
    "nemotron_h",
    "zamba2",
)  # of a recurrence in chunks; on some machines within the limit
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


def test_no_check_fails_but_those_of_a_recurrence(more: Model) -> None:
    """Padding on the left runs through a recurrence, and some caches round or lose it; the doctor says so."""
    found = examine(more)
    failed = {check.name for check in found.failures}
    kind = more.hf.config.model_type
    assert failed == (KNOWN.get(kind, set()) & failed if kind in ROUNDED else KNOWN.get(kind, set()))
    asked = {row.name: row.status for row in found.checks}
    assert asked[equations.STREAM] == "pass" and asked[hooks.ONCE] == "pass"


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
    assert "v" in model.disabled and "pattern" in model.disabled


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
