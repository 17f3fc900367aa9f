"""Cross-layer transcoders as sites, against forward passes made by hand with plain PyTorch hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp import Intervention, mediation
from interp.errors import ConfigError
from interp.features import Dictionary
from interp.mediation.metrics import METRICS, Targets
from interp.models.model import Model
from interp.sites import Site
from tests.dictionaries import transcoder
from tests.interp.mediation.edges.models import made, pairs_of
from tests.tiny import tiny

PROMPTS, OTHERS = [[5, 9, 11, 7]], [[4, 12, 13, 20]]
LAYERS, N = 3, 24


@cache
def crossing() -> tuple[Dictionary, ...]:
    """One dictionary for each layer, with random decoders for its own layer and for all after it."""
    found = []
    for layer in range(LAYERS):
        generator = torch.Generator().manual_seed(50 + layer)
        later = tuple(torch.randn(N, 32, generator=generator) / 5 for _ in range(LAYERS - 1 - layer))
        plain = transcoder(n=N, layer=layer, seed=layer)
        found.append(replace(plain, name=f"across-{layer}", skip=None, later=later))
    return tuple(found)


@cache
def given(family: str = "llama") -> Model:
    hf, words = tiny(family)
    return interp.load(hf, tokenizer=words).with_dictionaries(*crossing())


FEATURES = [f"feature.{layer}" for layer in range(LAYERS)]
ERRORS = [f"error.{layer}" for layer in range(LAYERS)]


@pytest.mark.parametrize("family", ["llama", "granite"])
def test_features_of_all_layers_so_far_and_the_error_make_up_an_mlp(family: str) -> None:
    model = given(family)
    names = [*FEATURES, *ERRORS, *(f"mlp_out.{layer}" for layer in range(LAYERS))]
    read = model.capture(PROMPTS, names, "all")
    for layer, own in enumerate(crossing()):
        wanted = read[f"error.{layer}"] + own.decoder_bias + read[f"feature.{layer}"] @ own.decoder
        for earlier in range(layer):
            wanted = wanted + read[f"feature.{earlier}"] @ crossing()[earlier].later[layer - earlier - 1]
        assert torch.allclose(wanted, read[f"mlp_out.{layer}"], atol=1e-4)
        assert torch.equal(
            model.capture(PROMPTS, [f"error.{layer}"], "all")[f"error.{layer}"], read[f"error.{layer}"]
        )
    assert float(read["feature.0"].abs().max()) > 0.1


@pytest.mark.parametrize("family", ["llama", "granite"])
def test_no_change_leaves_every_bit_and_everything_replaced_gives_the_other_run(family: str) -> None:
    model = given(family)
    own = model.with_dictionaries().logits(PROMPTS)
    same = [Intervention(name, lambda x: x.clone()) for name in (*FEATURES, *ERRORS)]
    assert torch.equal(model.run(PROMPTS, interventions=same).logits, own)
    mlps = [f"mlp_out.{layer}" for layer in range(LAYERS)]
    read = model.capture(OTHERS, [*FEATURES, *ERRORS, *mlps], "all")
    swap = [Intervention(name, read[name]) for name in (*FEATURES, *ERRORS)]
    found = model.run(PROMPTS, interventions=swap, capture=[*FEATURES, *ERRORS], positions="all")
    wanted = model.run(PROMPTS, interventions=[Intervention(name, read[name]) for name in mlps]).logits
    assert found.logits is not None and wanted is not None and found.activations is not None
    assert torch.allclose(found.logits, wanted, atol=1e-4) and (found.logits - own).abs().max() > 1e-2
    for name in (*FEATURES, *ERRORS):  # what was written is read
        assert torch.allclose(found.activations[name], read[name], atol=1e-4)


def by_hand(model: Model, change: Callable[[Tensor], Tensor], at: int, *, onward: bool = True) -> Tensor:
    """Logits where feature ``at`` of layer 0 changes, its sum added at every layer by plain hooks."""
    own, blocks, kept = crossing()[0], model.hf.model.layers, {}  # type: ignore[attr-defined]

    def coded(module: Any, args: Any, out: Tensor) -> None:
        feature = own.encode(out)[..., at]
        kept["by"] = change(feature) - feature

    def added(rows: Tensor) -> Any:
        return lambda module, args, out: out + kept["by"][..., None] * rows[at]

    handles = [blocks[0].post_attention_layernorm.register_forward_hook(coded)]
    decoders = [own.decoder, *own.later] if onward else [own.decoder]
    handles += [
        block.mlp.register_forward_hook(added(rows)) for block, rows in zip(blocks, decoders, strict=False)
    ]
    try:
        return model.hf(torch.tensor(PROMPTS)).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()


def test_a_changed_feature_is_added_at_every_later_layer() -> None:
    model, at = given(), 5
    edit = [Intervention(f"feature.0.{at}", lambda x: x + 3.0)]
    found = model.run(PROMPTS, interventions=edit).logits
    assert found is not None
    with torch.no_grad():
        wanted = by_hand(model, lambda x: x + 3.0, at)
        alone = by_hand(model, lambda x: x + 3.0, at, onward=False)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert (wanted - alone).abs().max() > 1e-2  # what it writes later matters
    both = [*edit, Intervention(f"error.{LAYERS - 1}", lambda x: x.clone())]
    assert torch.allclose(model.run(PROMPTS, interventions=both).logits, wanted, atol=1e-4)
    short = model.with_dictionaries(*(replace(one, later=()) for one in crossing()))
    assert torch.allclose(short.run(PROMPTS, interventions=edit).logits, alone, atol=1e-4)
    again = model.run([PROMPTS[0], OTHERS[0]], interventions=edit).logits
    assert again is not None and torch.allclose(again[:1], wanted, atol=1e-4)


def test_gradients_at_features_go_through_all_decoders() -> None:
    model, at = given(), 5
    run = model.run(PROMPTS, capture=["feature.0"], positions="all", grad=True)
    assert run.logits is not None and run.activations is not None
    [found] = torch.autograd.grad(run.logits[0, 40], [run.activations["feature.0"]])
    delta = torch.zeros(1, len(PROMPTS[0]), requires_grad=True)
    with torch.enable_grad():
        logits = by_hand(model, lambda x: x + delta, at)
    [wanted] = torch.autograd.grad(logits[0, 40], [delta])
    assert torch.allclose(found[..., at], wanted, atol=1e-5) and wanted.abs().max() > 1e-3


def test_effects_are_exact_by_whole_passes_and_estimates_are_their_slope() -> None:
    model = made("llama").with_dictionaries(*crossing())
    pairs = pairs_of(model)[:2]
    names = ["feature.0.5", "feature.1.3", "error.2"]
    told = mediation.exhaustive(model, pairs, names, positions="all", directions="noising")
    assert "write to several blocks" in told.cost["noising"]["fallback"]
    read = model.capture(pairs.corrupt, names, "all")
    for number, name in enumerate(names):
        after = model.run(pairs.clean, interventions=[Intervention(name, read[name])]).logits
        assert after is not None
        targets = Targets.of(pairs, after.device)
        metric = [METRICS["logit-diff"].values(one, targets) for one in (model.logits(pairs.clean), after)]
        assert np.allclose(told.values["noising"][number], (metric[0] - metric[1]).numpy(), atol=1e-4)
    guess = mediation.attribution(model, pairs, names, verify=0, positions="all", directions="noising")
    assert guess.mean().shape == (3,) and abs(guess.mean()).max() > 1e-4
    assert any("cross-layer transcoder" in text for text in told.warnings)


def test_what_does_not_fit_is_refused() -> None:
    model = given().with_dictionaries()
    with pytest.raises(ConfigError, match=r"writes to 2 layers after 'mlp_out.2'"):
        model.with_dictionaries(
            replace(crossing()[0], site_in=Site("resid_mid", 2), site_out=Site("mlp_out", 2))
        )
    with pytest.raises(ConfigError, match="would leave these edges out"):
        mediation.attribution_graph(given(), "w01 w02 w03")


def test_a_circuit_of_features_is_refused_as_edges_would_not_add_up() -> None:
    model = given()
    pairs = pairs_of(model)[:2]
    with pytest.raises(ConfigError, match="cross-layer transcoder 'across-0' asked"):
        mediation.feature_circuit(model, pairs, steps=0)
    short = model.with_dictionaries(*(replace(one, later=()) for one in crossing()))
    assert mediation.feature_circuit(short, pairs, steps=0).members
