"""TransformerLens: its bridges are taken as they are, and its backend gives the native numbers."""

from __future__ import annotations

import gc
import weakref
from functools import cache
from types import ModuleType
from typing import Any

import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, ModelError, SiteError
from interp.models import Intervention, Model, as_model, load
from interp.pairs import Pair, PairSet
from tests.interp.parity.measure import FAMILIES, MEASURES, PROMPTS, far, state
from tests.tiny import build, tiny, tokenizer

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
QUICK = ("gpt2", "gemma2")
SOME_SLOW = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


@pytest.fixture(scope="module")
def sources() -> ModuleType:
    """Import the library, once and only for these tests."""
    import transformer_lens.model_bridge.sources as sources

    return sources


def bridged(sources: ModuleType, family: str) -> Any:
    """Build a bridge as a user would have it, with eager attention forced on the model that it swallows."""
    hf = build(family)
    hf.set_attn_implementation("eager")
    bridge = sources.build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config, model_name=family)
    bridge.tokenizer = tokenizer()
    return bridge


@cache
def both(family: str) -> tuple[Model, Model]:
    """Load one model natively and through the library."""
    hf, words = tiny(family)
    return load(hf, tokenizer=words), load(hf, tokenizer=words, backend="transformer-lens")


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("family", SOME_SLOW)
def test_the_backend_gives_the_native_numbers(sources: ModuleType, family: str, measure: str) -> None:
    errors = MEASURES[measure](*both(family))
    assert errors.pop("control") > 1e-3
    assert {name: error for name, error in errors.items() if not error <= 1e-5} == {}


def test_the_backend_runs_the_bridge(sources: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    native, model = both("gpt2")
    calls = []
    forward = type(model.backend.bridge).forward
    monkeypatch.setattr(
        type(model.backend.bridge), "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1]
    )
    native.capture(PROMPTS, "resid_post.1")
    assert not calls
    model.capture(PROMPTS, "resid_post.1")
    assert calls


@pytest.mark.parametrize("family", QUICK)
def test_a_capture_is_what_run_with_cache_gives(sources: ModuleType, family: str) -> None:
    names = [f"blocks.1.{hook}" for hook in ("hook_resid_post", "attn.hook_z", "hook_mlp_out", "attn.hook_q")]
    _, kept = bridged(sources, family).run_with_cache(IDS, names_filter=names)
    acts = both(family)[1].capture(IDS.tolist(), names, positions="all")
    for name, site in zip(names, ["resid_post.1", "z.1", "mlp_out.1", "q.1"], strict=True):
        assert far(acts[site], kept[name]) <= 1e-5


@pytest.mark.parametrize("family", SOME_SLOW)
def test_a_bridge_becomes_the_plain_model_and_stays_as_it_was(sources: ModuleType, family: str) -> None:
    bridge = bridged(sources, family)
    with torch.no_grad():
        wanted, plain = bridge(IDS), tiny(family)[0](IDS).logits
    before, hooks = state(bridge.original_model), _hooks(bridge)
    model = load(bridge)
    logits = model.run(IDS.tolist(), logits="all").logits
    assert torch.equal(logits, plain)  # and not only nearly, as the bridge's own are
    model.run(IDS.tolist(), capture=["z.1", "pattern.0"], interventions=[Intervention("resid_post.0", 0.1)])
    assert state(bridge.original_model) == before
    assert _hooks(bridge) == hooks
    with torch.no_grad():
        assert torch.equal(bridge(IDS), wanted)
    own = {parameter.data_ptr() for parameter in bridge.original_model.parameters()}
    assert {parameter.data_ptr() for parameter in model.hf.parameters()} <= own
    assert model.tokenizer is bridge.tokenizer
    assert model.name == family


def _hooks(bridge: Any) -> dict[str, int]:
    return {name: len(point.fwd_hooks) for name, point in bridge.hook_dict.items()}


def test_state_sees_a_hook(sources: ModuleType) -> None:
    bridge = bridged(sources, "gpt2")
    before = state(bridge.original_model), _hooks(bridge)
    bridge.add_hook("blocks.0.hook_resid_post", lambda tensor, hook: None)
    assert (state(bridge.original_model), _hooks(bridge)) != before
    assert "do not act here" in load(bridge).warnings[0]


def test_an_edit_of_the_weights_reaches_the_model(sources: ModuleType) -> None:
    bridge = bridged(sources, "gpt2")
    model = load(bridge)
    before = model.logits(IDS.tolist())
    with torch.no_grad():
        bridge.blocks[1].mlp.out.weight.mul_(2)
        bridge.blocks[1].attn.q.weight.mul_(2)
        wanted = bridge(IDS)[:, -1]
    assert far(model.logits(IDS.tolist()), wanted) <= 1e-5
    assert far(before, wanted) > 1e-3


def test_processed_weights_are_refused(sources: ModuleType) -> None:
    bridge = bridged(sources, "gpt2")
    bridge.enable_compatibility_mode(no_processing=True)
    kept = as_model(bridge)
    assert torch.equal(kept.logits(IDS.tolist()), load(tiny("gpt2")[0]).logits(IDS.tolist()))
    bridge._weights_processed = True
    for take in (load, as_model):
        with pytest.raises(ModelError, match=r"'gpt2' were processed .* no_processing=True"):
            take(bridge)


def test_processing_does_change_the_stream(sources: ModuleType) -> None:
    """What the refusal is for: the bridge still gives next tokens, but another stream."""
    bridge = bridged(sources, "gpt2")
    bridge.enable_compatibility_mode(disable_warnings=True)
    name = "blocks.1.hook_resid_post"
    _, kept = bridge.run_with_cache(IDS, names_filter=[name])
    stream = both("gpt2")[0].capture(IDS.tolist(), "resid_post.1", "all")["resid_post.1"]
    assert far(kept[name], stream) > 1e-3
    with pytest.raises(ModelError, match="were processed"):
        load(bridge)


def test_a_bridge_goes_where_a_model_is_expected(sources: ModuleType) -> None:
    bridge, native = bridged(sources, "llama"), both("llama")[0]
    pairs = [Pair("w01 w02 w03", "w01 w04 w03", ("w05",), ("w06",))]
    assert PairSet.build(bridge, pairs).clean.token_ids == PairSet.build(native, pairs).clean.token_ids
    first, second = as_model(bridge), as_model(bridge)
    assert first.hf is second.hf
    assert as_model(first) is first


def test_what_was_learned_of_a_bridge_goes_with_it(sources: ModuleType) -> None:
    bridge = bridged(sources, "gpt2")
    held = weakref.ref(as_model(bridge).hf)
    bridge = None
    gc.collect()
    assert held() is None


def test_replaced_weights_are_noticed(sources: ModuleType) -> None:
    bridge = bridged(sources, "llama")
    first = as_model(bridge)
    head = bridge.unembed.original_component
    head.weight = torch.nn.Parameter(2 * head.weight.detach())
    assert as_model(bridge).hf is not first.hf
    assert far(as_model(bridge).logits(IDS.tolist()), 2 * first.logits(IDS.tolist())) <= 1e-5


def test_sites_that_the_bridge_has_not_are_refused_by_name(
    sources: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.models.backends import transformer_lens

    monkeypatch.setitem(transformer_lens._WHOLE, "mlp_act", "mlp.hook_nowhere")
    monkeypatch.setitem(transformer_lens._WHOLE, "attn_out", "hook_mlp_out")  # another site's values
    hf, words = tiny("llama")
    model = load(hf, tokenizer=words, backend="transformer-lens")
    assert set(model.disabled) == {"mlp_act", "attn_out"}
    with pytest.raises(SiteError, match=r"transformer-lens does not offer 'attn_out' .* values differ by"):
        model.capture(PROMPTS, "attn_out.1")
    with pytest.raises(SiteError, match=r"no 'blocks.0.mlp.hook_nowhere'"):
        model.capture(PROMPTS, "mlp_act.1")
    assert torch.isfinite(model.capture(PROMPTS, "resid_post.1")["resid_post.1"]).all()


def test_a_model_that_the_library_does_not_know(sources: ModuleType) -> None:
    with pytest.raises(ModelError, match=r"could not build a bridge.*Use backend='native'"):
        load(build("falcon"), backend="transformer-lens")


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ConfigError, match="backend 'nnsite' asked; use one of 'native', 'transformer-lens'"):
        load(tiny("gpt2")[0], backend="nnsite")


def test_mediation_falls_back_to_whole_passes_and_says_so(sources: ModuleType) -> None:
    native, model = both("llama")
    pairs = PairSet.build(native, [Pair("w01 w02 w03", "w01 w04 w03", ("w05",), ("w06",))])
    ours, theirs = (mediation.exhaustive(given, pairs, "head.1.*") for given in (native, model))
    assert far(torch.tensor(theirs.mean()), torch.tensor(ours.mean())) <= 1e-4
    said = "transformer-lens runs the whole model only"
    assert sum(said in one for one in theirs.warnings) == 1
    assert not any(said in one for one in ours.warnings)
