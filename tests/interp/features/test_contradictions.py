"""What files contradict, do not hold or say of another place is refused: nothing is read past in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import interp
from interp import features
from interp.errors import ConfigError, InterpError, ModelError, SiteError
from interp.features.activations import JumpReLU, TopK
from interp.features.layouts.saelens import write
from interp.models.model import Model
from interp.sites import Site
from tests.dictionaries import random_dictionary
from tests.interp.features.test_layouts import (
    B_DEC,
    B_ENC,
    CLASSES,
    EXTRA,
    PLAIN,
    SPARSIFY,
    W_DEC,
    W_ENC,
    D,
    F,
    X,
    drawn,
    learned,
    saelens,
    sparsify,
    tracer,
)
from tests.tiny import tiny

STANDARD = {"architecture": "standard"}
TRANSCODER = {
    "architecture": "transcoder",
    "metadata": {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"},
}
TOPK = {"architecture": "topk", "k": 3}


def test_signed_features_of_sparsify_are_the_largest_by_size_with_their_signs(tmp_path: Path) -> None:
    pre = (X - B_DEC) @ W_ENC + B_ENC
    index = pre.abs().topk(4, dim=-1).indices
    wanted = torch.zeros_like(pre).scatter(-1, index, pre.gather(-1, index))
    found = features.load(sparsify(tmp_path / "layers.1", SPARSIFY, signed=True))
    assert torch.allclose(found.encode(X), wanted, atol=1e-5) and (wanted < 0).any()
    plain = features.load(sparsify(tmp_path / "plain" / "layers.1", SPARSIFY))
    assert (plain.encode(X) >= 0).all() and not torch.allclose(plain.encode(X), wanted, atol=1e-2)
    again = found.folded().encode(X) / found.decoder.norm(dim=1)
    assert torch.allclose(again, wanted, atol=1e-4)


def of_module(kind: str, folder: Path) -> features.Dictionary:
    """As three layouts give it."""
    wide = {"encoder.weight": drawn(1, 48, 32), "encoder.bias": drawn(2, 48)}
    if kind == "sparsify":
        tensors = {**wide, "W_dec": drawn(3, 48, 32), "b_dec": drawn(4, 32)}
        return features.load(sparsify(folder / "layers.1.mlp", tensors, d_in=32, num_latents=48))
    if kind == "attention":
        tensors = {**wide, "W_dec": drawn(3, 48, 32), "b_dec": drawn(4, 32)}
        return features.load(sparsify(folder / "layers.1.self_attn", tensors, d_in=32, num_latents=48))
    if kind == "dictionary_learning":
        tensors = {**wide, "decoder.weight": drawn(3, 32, 48), "bias": drawn(4, 32)}
        place = {"layer": 1, "submodule_name": "mlp_out_layer_1"}
        return features.load(learned(folder, tensors, dict_class="AutoEncoder", **place))
    tensors = {
        "W_enc": drawn(1, 32, 48),
        "W_dec": drawn(3, 48, 32),
        "b_enc": drawn(2, 48),
        "b_dec": drawn(4, 32),
    }
    hooks = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.mlp.hook_out"}
    asked = {"architecture": "transcoder", "metadata": hooks, "d_in": 32, "d_sae": 48}
    return features.load(saelens(folder, tensors, **asked))


@cache
def model(family: str) -> Model:
    hf, words = tiny(family)
    return interp.load(hf, tokenizer=words)


@pytest.mark.parametrize("kind", ["sparsify", "attention", "dictionary_learning", "saelens"])
def test_dictionaries_of_a_modules_output_are_used_only_where_the_site_is_that_output(
    kind: str, tmp_path: Path
) -> None:
    found = of_module(kind, tmp_path)
    assert found.of_module
    for family in ("olmo2", "gemma2", "gemma3", "granite"):
        with pytest.raises(ModelError, match="output of the module"):
            model(family).with_dictionaries(found)
        # the same weights for the site itself are no contradiction
        assert model(family).with_dictionaries(replace(found, of_module=False)).dictionaries
    assert model("mixtral").with_dictionaries(found).dictionaries  # no one projection, and yet the module
    own = model("llama").with_dictionaries(found)
    module = own.hf.model.layers[1].self_attn if kind == "attention" else own.hf.model.layers[1].mlp
    held: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda _, __, out: held.append(out[0] if isinstance(out, tuple) else out)
    )
    seen = own.capture([[5, 6, 7]], [str(found.site_out), "feature.1"], "all")
    handle.remove()
    assert torch.allclose(seen[str(found.site_out)], held[0].detach(), atol=1e-5)


def test_circuit_tracers_hooks_tell_the_module_from_the_site(tmp_path: Path) -> None:
    for name in ("mlp.hook_out", "hook_mlp_out"):
        folder = tracer(tmp_path / name, feature_output_hook=name)
        wide = {
            "W_enc": drawn(1, 48, 32),
            "b_enc": drawn(2, 48),
            "W_dec": drawn(3, 48, 32),
            "b_dec": drawn(4, 32),
        }
        for layer in range(2):
            save_file(wide, folder / f"layer_{layer}.safetensors")
        found = features.load_all(folder)
        assert {one.of_module for one in found} == {name == "mlp.hook_out"}
        if name == "hook_mlp_out":
            assert model("granite").with_dictionaries(*found).dictionaries
            continue
        with pytest.raises(ModelError, match="times"):
            model("granite").with_dictionaries(*found)


def test_an_autoencoder_of_what_a_norm_gives_has_no_site(tmp_path: Path) -> None:
    for hook in ("blocks.1.ln2.hook_normalized", "blocks.1.mlp.hook_in"):
        with pytest.raises(ConfigError, match="what a norm gives"):
            features.load(saelens(tmp_path / hook, PLAIN, **STANDARD, hook_name=hook, metadata=None))
    with pytest.raises(ConfigError, match="what a norm gives"):
        replace(random_dictionary(site="resid_mid.1"), read="norm")
    found = features.load(saelens(tmp_path / "transcoder", PLAIN, **TRANSCODER))
    assert (found.norm, str(found.site_out)) == ("rms", "mlp_out.1")


def scope(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    held = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC, "threshold": EXTRA}
    arrays: dict[str, Any] = {name: value.numpy() for name, value in held.items()}
    np.savez(folder / "params.npz", **arrays)
    return folder


OTHERWISE: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "saelens": (lambda at: saelens(at, PLAIN, **STANDARD), "resid_pre.2", "resid_post.2"),
    "transcoder": (lambda at: saelens(at, PLAIN, **TRANSCODER), "resid_mid.1", "mlp_out.1"),
    "sparsify": (lambda at: sparsify(at / "layers.3", SPARSIFY), "resid_post.3", "resid_post.2"),
    "scope": (lambda at: scope(at / "gemma-scope-2b-pt-res" / "layer_4" / "w"), "resid_post.4", "mlp_out.4"),
    "scope-transcoder": (
        lambda at: scope(at / "gemma-scope-2b-pt-transcoders" / "layer_4" / "w"),
        "mlp_out.4",
        "resid_mid.4",
    ),
    "dictionary-learning": (
        lambda at: learned(at, CLASSES["AutoEncoder"][0], dict_class="AutoEncoder"),
        "resid_post.8",
        "resid_post.7",
    ),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_site_that_is_asked_never_overrides_what_files_say(name: str, tmp_path: Path) -> None:
    make, same, other = OTHERWISE[name]
    folder = make(tmp_path)
    plain = features.load(folder)
    assert features.load(folder, site=same).fingerprint == plain.fingerprint
    with pytest.raises(SiteError, match=f"site='{other}' asked"):
        features.load(folder, site=other)
    if name != "saelens":
        with pytest.raises(ConfigError, match="scale"):
            features.load(folder, scale=7.0)


def test_what_a_user_says_is_used_or_refused(tmp_path: Path) -> None:
    for given in (7.0, 0.0, -1.0):
        with pytest.raises(ConfigError, match="scale"):
            features.load(saelens(tmp_path / "sae", PLAIN, **STANDARD), scale=given)
    held = saelens(tmp_path / "held", PLAIN, **STANDARD, normalize_activations="expected_average_only_in")
    (held / "activation_scaler.json").write_text('{"scaling_factor": 0.5}')
    with pytest.raises(ConfigError, match=r"the folder says 0\.5"):
        features.load(held, scale=2.0)
    # of an MLP the two kinds have the same files
    with pytest.raises(SiteError, match="transcoder of an MLP have the same files"):
        features.load(scope(tmp_path / "renamed"), site="mlp_out.1")
    assert features.load(scope(tmp_path / "renamed"), site="resid_post.1").site_in == Site("resid_post", 1)
    with pytest.raises(ConfigError, match=r"site=resid_mid\.1 asked"):
        features.load_all(tracer(tmp_path / "tracer"), site="resid_mid.1")


WRONG: dict[str, tuple[dict[str, Tensor], dict[str, Any], str]] = {
    "layer": (PLAIN, {"hook_layer": 7}, "hook_layer 7"),
    "width": (PLAIN, {"d_in": 64}, "d_in 64"),
    "number": (PLAIN, {"d_sae": 3}, "d_sae 3"),
    "reshape": (PLAIN, {"reshape_activations": "nonsense"}, "nonsense"),
    "head": (PLAIN, {"hook_head_index_out": 3}, "hook_head_index_out"),
    "metadata": (PLAIN, {"hook_name": "blocks.3.hook_resid_pre"}, "hook_name"),
    "k": (PLAIN, {"k": 4}, "architecture"),
    "factor": (PLAIN, {"norm_scaling_factor": 2.0}, "factor"),
    "skip": ({**PLAIN, "W_skip": drawn(7, D, D)}, {}, "W_skip"),
    "jumprelu": (PLAIN, {"architecture": "jumprelu"}, "lacks threshold"),
    "gated": (PLAIN, {"architecture": "gated"}, "lacks b_gate"),
    "no-weights": ({"W_enc": W_ENC, "b_dec": B_DEC}, {}, "lacks W_dec"),
    "too-many": (PLAIN, {"architecture": "topk", "k": 99}, "k=99 of 12"),
    "threshold": (
        {**PLAIN, "threshold": drawn(1, 3)},
        {"architecture": "jumprelu"},
        "do not belong together",
    ),
    "two-kinds": (PLAIN, {"architecture": "gated", "activation_fn": "topk"}, "gated"),
}


@pytest.mark.parametrize("name", WRONG)
def test_saelens_configurations_that_contradict_are_refused(name: str, tmp_path: Path) -> None:
    tensors, config, text = WRONG[name]
    with pytest.raises(InterpError, match=text):
        features.load(saelens(tmp_path / "sae", tensors, **{**STANDARD, **config}))
    agree = {"hook_layer": 2, "d_in": D, "d_sae": F, "reshape_activations": "none"}
    assert features.load(saelens(tmp_path / "right", PLAIN, **STANDARD, **agree)).n_features == F


@pytest.mark.parametrize(
    ("buffer", "trainer", "text"),
    [
        ({"io": "in"}, {}, "io of the buffer"),
        ({"d_submodule": 77}, {}, "d_submodule 77"),
        ({"new_rule": 1}, {}, "new_rule"),
        ({}, {"never_heard_of": "tanh"}, "never_heard_of"),
        ({}, {"activation_dim": 99}, "activation_dim 99"),
        ({}, {"dict_size": 99}, "dict_size 99"),
        ({}, {"layer": 3}, "layer 3"),
    ],
)
def test_dictionary_learning_configurations_that_contradict_are_refused(
    buffer: dict[str, Any], trainer: dict[str, Any], text: str, tmp_path: Path
) -> None:
    tensors, _ = CLASSES["AutoEncoder"]
    right = {"io": "out", "d_submodule": D, "ctx_len": 128}, {"activation_dim": D, "dict_size": F, "lr": 1e-3}
    for at, (one, two) in enumerate(((buffer, trainer), right)):
        folder = learned(tmp_path / str(at), tensors, dict_class="AutoEncoder", **two)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "buffer": one}))
    with pytest.raises(ConfigError, match=text):
        features.load(tmp_path / "0")
    assert features.load(tmp_path / "1").n_features == F


def test_the_other_layouts_refuse_what_they_lack_and_what_contradicts(tmp_path: Path) -> None:
    bare = {name: value for name, value in SPARSIFY.items() if name != "b_dec"}
    for at, (tensors, config, text) in enumerate(
        (
            (bare, {}, "lacks b_dec"),
            (SPARSIFY, {"k": None}, "lacks k"),
            (SPARSIFY, {"k": 99}, "k=99 of 12"),
            (SPARSIFY, {"d_in": 9}, "d_in 9"),
            (SPARSIFY, {"num_latents": 9}, "num_latents 9"),
        )
    ):
        with pytest.raises(InterpError, match=text):
            features.load(sparsify(tmp_path / str(at) / "layers.1", tensors, **config))
    plain = {"W_enc": W_ENC.T.contiguous(), "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    thresholds = {"activation_function.threshold": EXTRA}
    cases: tuple[tuple[dict[str, Tensor], dict[str, Any], str], ...] = (
        ({"W_enc": plain["W_enc"]}, {}, "lacks b_enc"),
        ({**plain, **thresholds}, {"activation": "relu"}, "threshold"),
        ({**plain, **thresholds}, {"activation": "topk", "k": 3}, "threshold"),
        (plain, {"k": 3}, "do not belong together"),
        ({**plain, "k": torch.tensor(3)}, {"activation": "topk", "k": 4}, "do not belong together"),
    )
    for at, (tensors, config, text) in enumerate(cases):
        folder = tracer(tmp_path / f"tracer-{at}", **config)
        save_file(tensors, folder / "layer_0.safetensors")
        with pytest.raises(InterpError, match=text):
            features.load_all(folder)


def test_a_shift_or_a_skip_that_the_layout_has_no_place_for_is_not_written(tmp_path: Path) -> None:
    own = random_dictionary(D, F)
    with pytest.raises(ConfigError, match="subtracts from its input"):
        write(replace(own, shift=torch.ones(D)), tmp_path / "shift")
    for change in ({"skip": drawn(7, D, D)}, {"of_module": True}):
        with pytest.raises(ConfigError, match="does not fit"):
            write(replace(own, **change), tmp_path / "skip")
    for same in (own, replace(own, shift=None)):
        assert torch.equal(features.load(write(same, tmp_path / "own")).encode(X), same.encode(X))


def test_more_features_than_there_are_cannot_be_kept() -> None:
    for k in (0, 13):
        with pytest.raises(ConfigError, match=f"keeps k={k} of 12"):
            replace(random_dictionary(D, F), activation=TopK(k))
    assert replace(random_dictionary(D, F), activation=TopK(12)).encode(X).any()
    with pytest.raises(ConfigError, match=r"threshold \(3,\) do not belong together"):
        replace(random_dictionary(D, F), activation=JumpReLU(torch.ones(3)))
