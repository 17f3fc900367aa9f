"""Files of every published layout, written here with the published names, give the published functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from interp import features
from interp.errors import ArtifactError, ConfigError, DataError, InterpError, SiteError
from interp.features.layouts.saelens import write
from interp.sites import Site
from tests.dictionaries import ACTIVATIONS, random_dictionary

D, F = 8, 12


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = drawn(99, 6, D) * 2
W_ENC, W_DEC, B_ENC, B_DEC, EXTRA = (
    drawn(1, D, F),
    drawn(2, F, D),
    drawn(3, F),
    drawn(4, D),
    drawn(5, F).abs(),
)


def written(folder: Path, name: str, tensors: dict[str, Tensor], config: dict[str, Any], file: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    (folder / file).write_text(json.dumps(config))
    return folder


def saelens(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    plain = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu"}
    metadata = {"model_name": "gpt2", "hook_name": "blocks.2.hook_resid_pre", "sae_lens_version": "6.2.0"}
    given = {**plain, "metadata": metadata, "normalize_activations": "none", **config}
    return written(folder, "sae_weights.safetensors", tensors, given, "cfg.json")


PLAIN = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}


def topk(pre: Tensor, k: int) -> Tensor:
    values, index = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, index, values)


SAELENS = {
    "standard": (PLAIN, {"architecture": "standard", "apply_b_dec_to_input": True}),
    "not-centred": (PLAIN, {"architecture": "standard", "apply_b_dec_to_input": False}),
    "jumprelu": (
        {**PLAIN, "threshold": EXTRA},
        {"architecture": "jumprelu", "apply_b_dec_to_input": False, "reshape_activations": "none"},
    ),
    "topk": (PLAIN, {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": False}),
    "topk-rescaled": (PLAIN, {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True}),
    "gated": (
        {
            "W_enc": W_ENC,
            "W_dec": W_DEC,
            "b_dec": B_DEC,
            "b_gate": B_ENC,
            "b_mag": drawn(6, F),
            "r_mag": EXTRA,
        },
        {"architecture": "gated", "apply_b_dec_to_input": True},
    ),
    "layer-norm": (PLAIN, {"architecture": "standard", "normalize_activations": "layer_norm"}),
}


def published(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features and reconstruction, as the package computes them."""
    given = x
    if name == "layer-norm":
        mean = x.mean(-1, keepdim=True)
        size = (x - mean).std(-1, keepdim=True)
        given = (x - mean) / (size + 1e-5)
    centred = given if name in ("not-centred", "jumprelu") else given - B_DEC
    pre = centred @ W_ENC + B_ENC
    if name == "jumprelu":
        acts = pre.relu() * (pre > EXTRA)
    elif name == "topk":
        acts = topk(pre, 3).relu()
    elif name == "topk-rescaled":
        acts = topk(pre * W_DEC.norm(dim=-1), 3).relu()
        return acts, (acts / W_DEC.norm(dim=-1)) @ W_DEC + B_DEC
    elif name == "gated":
        acts = (pre > 0) * (centred @ (W_ENC * EXTRA.exp()) + drawn(6, F)).relu()
    else:
        acts = pre.relu()
    out = acts @ W_DEC + B_DEC
    return acts, out * size + mean if name == "layer-norm" else out


@pytest.mark.parametrize("name", SAELENS)
def test_saelens_folders_give_the_features_of_saelens(name: str, tmp_path: Path) -> None:
    tensors, config = SAELENS[name]
    found = features.load(saelens(tmp_path / "sae", tensors, **config))
    acts, out = published(name, X)
    assert torch.allclose(found.encode(X), acts, atol=1e-5)
    assert torch.allclose(found.decode(found.encode(X), X), out, atol=1e-4)
    assert (found.site_in, found.model_name, found.layout) == (Site("resid_pre", 2), "gpt2", "saelens")
    assert acts.any()


def test_old_saelens_configurations_say_the_same(tmp_path: Path) -> None:
    config = {
        "hook_point": "blocks.5.attn.hook_z",
        "hook_point_layer": 5,
        "hook_point_head_index": None,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "l1_coefficient": 0.1,
        "seed": 42,
        "finetuning_scaling_factor": False,
        "metadata": None,
    }
    tensors = {**PLAIN, "scaling_factor": torch.ones(F)}
    found = features.load(saelens(tmp_path / "sae", tensors, **config))
    assert found.site_in == Site("z", 5)
    assert torch.allclose(found.encode(X), topk((X - B_DEC) @ W_ENC + B_ENC, 3).relu(), atol=1e-5)
    (tmp_path / "log").mkdir()
    logged = {**PLAIN, "log_threshold": EXTRA.log()}
    found = features.load(saelens(tmp_path / "log", logged, architecture="jumprelu"))
    assert torch.allclose(found.activation.threshold, EXTRA, atol=1e-6)


def test_a_factor_that_a_configuration_only_names_must_be_given(tmp_path: Path) -> None:
    asked = {"architecture": "standard", "normalize_activations": "expected_average_only_in"}
    folder = saelens(tmp_path / "sae", PLAIN, **asked)
    with pytest.raises(ConfigError, match="does not hold; give scale="):
        features.load(folder)
    found = features.load(folder, scale=0.5)
    acts = ((0.5 * X - B_DEC) @ W_ENC + B_ENC).relu()
    assert torch.allclose(found.encode(X), acts, atol=1e-5)
    assert torch.allclose(found.decode(found.encode(X)), (acts @ W_DEC + B_DEC) / 0.5, atol=1e-4)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.5}')
    assert features.load(folder).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"architecture": "matching_pursuit"}, "matching_pursuit"),
        ({"architecture": "standard", "normalize_activations": "whitening"}, "whitening"),
        ({"architecture": "standard", "activation_fn": "tanh-relu"}, "tanh-relu"),
        ({"architecture": "standard", "finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
        ({"architecture": "standard", "a_new_rule": 1}, "a_new_rule"),
        ({"architecture": "topk"}, "number k"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(config: dict[str, Any], text: str, tmp_path: Path) -> None:
    folder = saelens(tmp_path / "sae", PLAIN, **config)
    with pytest.raises(ConfigError, match=text):
        features.load(folder)
    if text == "a_new_rule":
        assert features.load(folder, ignore=("a_new_rule",)).n_features == F
    stray = saelens(tmp_path / "stray", {**PLAIN, "W_new": drawn(9, D)}, architecture="standard")
    with pytest.raises(ConfigError, match="W_new"):
        features.load(stray)


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_what_is_written_is_read_back(activation: str, tmp_path: Path) -> None:
    own = random_dictionary(D, F, activation=activation)
    found = features.load(write(own, tmp_path / "own", notes={"tokens": 5}))
    assert (found.fingerprint, found.name) == (own.fingerprint, own.name)
    assert json.loads((tmp_path / "own" / "cfg.json").read_text())["metadata"]["interp"]["tokens"] == 5


def test_what_has_no_place_in_that_layout_is_not_written(tmp_path: Path) -> None:
    for activation in set(ACTIVATIONS) - {"relu", "jumprelu", "topk"}:
        with pytest.raises(ConfigError, match="does not fit"):
            write(random_dictionary(D, F, activation=activation), tmp_path / "own")


@pytest.mark.parametrize(
    ("repo", "site_in", "site_out"),
    [
        ("gemma-scope-2b-pt-res", "resid_post.12", "resid_post.12"),
        ("gemma-scope-9b-it-mlp", "mlp_out.12", "mlp_out.12"),
        ("gemma-scope-2b-pt-att", "z.12", "z.12"),
        ("gemma-scope-2b-pt-transcoders", "resid_mid.12", "mlp_out.12"),
    ],
)
def test_gemma_scope(repo: str, site_in: str, site_out: str, tmp_path: Path) -> None:
    folder = tmp_path / f"models--google--{repo}" / "layer_12" / "width_16k" / "average_l0_82"
    folder.mkdir(parents=True)
    held = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC, "threshold": EXTRA}
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in held.items()})
    found = features.load(folder)
    assert (str(found.site_in), str(found.site_out)) == (site_in, site_out)
    given = X / (X.square().mean(-1, keepdim=True) + 1e-6).sqrt() if "trans" in repo else X
    pre = given @ W_ENC + B_ENC
    assert torch.allclose(found.encode(X), pre.relu() * (pre > EXTRA), atol=1e-5)
    assert found.model_name == f"google/gemma-2-{repo[12:14]}{'-it' if '-it-' in repo else ''}"


def test_gemma_scope_in_a_path_that_says_nothing_needs_a_site(tmp_path: Path) -> None:
    held = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC, "threshold": EXTRA}
    np.savez(tmp_path / "params.npz", **{name: value.numpy() for name, value in held.items()})
    with pytest.raises(SiteError, match="give site="):
        features.load(tmp_path)
    assert features.load(tmp_path, site="resid_post.3").site_in == Site("resid_post", 3)


SPARSIFY = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}


def sparsify(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    given = {"d_in": D, "k": 4, "num_latents": F, "expansion_factor": 32, "normalize_decoder": True, **config}
    return written(folder, "sae.safetensors", tensors, {"multi_topk": False, **given}, "cfg.json")


def test_sparsify_folders_of_several_modules(tmp_path: Path) -> None:
    sparsify(tmp_path / "layers.3", SPARSIFY)
    sparsify(
        tmp_path / "layers.1.mlp",
        {**SPARSIFY, "W_skip": drawn(7, D, D)},
        transcode=True,
        skip_connection=True,
    )
    block, mlp = sorted(features.load_all(tmp_path), key=lambda one: -one.layer)
    assert (str(block.site_in), str(mlp.site_in), str(mlp.site_out)) == (
        "resid_post.3",
        "resid_mid.1",
        "mlp_out.1",
    )
    assert torch.allclose(block.encode(X), topk(((X - B_DEC) @ W_ENC + B_ENC).relu(), 4), atol=1e-5)
    acts = topk((X @ W_ENC + B_ENC).relu(), 4)
    assert torch.allclose(mlp.encode(X), acts, atol=1e-5) and mlp.read == "norm"
    wanted = acts @ W_DEC + B_DEC + X @ drawn(7, D, D).T
    assert torch.allclose(mlp.decode(mlp.encode(X), X), wanted, atol=1e-4)
    with pytest.raises(ConfigError, match="2 dictionaries"):
        features.load(tmp_path)
    sparsify(tmp_path / "other" / "layers.3", SPARSIFY, activation="groupmax")
    with pytest.raises(ConfigError, match="groupmax"):
        features.load(tmp_path / "other" / "layers.3")


LEARNED = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T}
CLASSES: dict[str, tuple[dict[str, Tensor], dict[str, Any]]] = {
    "AutoEncoder": ({**LEARNED, "bias": B_DEC}, {}),
    "AutoEncoderNew": ({**LEARNED, "decoder.bias": B_DEC}, {}),
    "AutoEncoderTopK": (
        {**LEARNED, "b_dec": B_DEC, "k": torch.tensor(3), "threshold": torch.tensor(-1.0)},
        {"k": 3},
    ),
    "BatchTopKSAE": (
        {**LEARNED, "b_dec": B_DEC, "k": torch.tensor(3), "threshold": torch.tensor(0.8)},
        {"k": 3},
    ),
    "MatryoshkaBatchTopKSAE": (
        {**PLAIN, "k": torch.tensor(3), "threshold": torch.tensor(0.8), "group_sizes": torch.tensor([4, 8])},
        {"k": 3},
    ),
    "JumpReluAutoEncoder": ({**PLAIN, "threshold": EXTRA}, {}),
    "GatedAutoEncoder": (
        {
            "encoder.weight": W_ENC.T,
            "decoder.weight": W_DEC.T,
            "decoder_bias": B_DEC,
            "r_mag": EXTRA,
            "gate_bias": B_ENC,
            "mag_bias": drawn(6, F),
        },
        {},
    ),
}


def learned(folder: Path, tensors: Any, **trainer: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "ae.pt")
    given = {
        "layer": 8,
        "submodule_name": "resid_post_layer_8",
        "lm_name": "EleutherAI/pythia-70m",
        **trainer,
    }
    (folder / "config.json").write_text(json.dumps({"trainer": given, "buffer": {"ctx_len": 128}}))
    return folder


def learned_features(kind: str) -> tuple[Tensor, Tensor]:
    pre = (X if kind in ("AutoEncoderNew", "JumpReluAutoEncoder") else X - B_DEC) @ W_ENC + B_ENC
    if kind == "AutoEncoder":  # that library loads it with decoder columns of length 1
        norms = W_DEC.norm(dim=1)
        return pre.relu() * norms, pre.relu() @ W_DEC + B_DEC
    if kind == "AutoEncoderTopK":
        acts = topk(pre.relu(), 3)
    elif "BatchTopK" in kind:
        acts = pre.relu() * (pre.relu() > 0.8)
    elif kind == "JumpReluAutoEncoder":
        acts = (pre * (pre > EXTRA)).relu()
    elif kind == "GatedAutoEncoder":
        plain = (X - B_DEC) @ W_ENC
        acts = (plain + B_ENC > 0) * (EXTRA.exp() * plain + drawn(6, F)).relu()
    else:
        acts = pre.relu()
    return acts, acts @ W_DEC + B_DEC


@pytest.mark.parametrize("kind", CLASSES)
def test_dictionary_learning(kind: str, tmp_path: Path) -> None:
    tensors, trainer = CLASSES[kind]
    found = features.load(learned(tmp_path / "ae", tensors, dict_class=kind, **trainer))
    acts, out = learned_features(kind)
    assert torch.allclose(found.encode(X), acts, atol=1e-5) and acts.any()
    assert torch.allclose(found.decode(found.encode(X)), out, atol=1e-4)
    assert (str(found.site_in), found.model_name) == ("resid_post.8", "EleutherAI/pythia-70m")


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("/nowhere/should-not-run"),)  # type: ignore[return-value]


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="Nothing of it was executed"):
        features.load(learned(tmp_path / "evil", {"bias": Evil()}, dict_class="AutoEncoder"))


@pytest.mark.parametrize(
    ("kind", "change", "text"),
    [
        ("BatchTopKSAE", {"threshold": torch.tensor(-1.0)}, "never learned"),
        ("AutoEncoderTopK", {"k": torch.tensor(5)}, "k is 3 in the configuration and 5"),
        ("AutoEncoder", {"gate": B_ENC}, "gate"),
    ],
)
def test_dictionary_learning_refusals(kind: str, change: Any, text: str, tmp_path: Path) -> None:
    tensors, trainer = CLASSES[kind]
    with pytest.raises(InterpError, match=text):
        features.load(learned(tmp_path / "ae", {**tensors, **change}, dict_class=kind, **trainer))
    with pytest.raises(ConfigError, match="CrossCoder"):
        features.load(learned(tmp_path / "other", tensors, dict_class="CrossCoder"))
    with pytest.raises(SiteError, match="give site="):
        features.load(learned(tmp_path / "bare", tensors, dict_class=kind, submodule_name=None, **trainer))


def tracer(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    hooks = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}
    given = {"model_name": "Qwen/Qwen3-4B", "model_kind": "transcoder_set", "scan": "x", **hooks, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(given))
    return folder


def test_circuit_tracer_transcoders_per_layer(tmp_path: Path) -> None:
    folder = tracer(tmp_path / "plt")
    plain = {"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    thresholds = {"activation_function.threshold": drawn(8, F)}
    for layer, extra in enumerate(({}, thresholds, {"W_skip": drawn(7, D, D)}, {"k": torch.tensor(3)})):
        tensors = {name: value.contiguous() for name, value in {**plain, **extra}.items()}
        save_file(tensors, folder / f"layer_{layer}.safetensors")
    found = features.load_all(folder)
    assert [str(one.site_out) for one in found] == [f"mlp_out.{n}" for n in range(4)]
    assert all(one.read == "norm" and str(one.site_in) == f"resid_mid.{n}" for n, one in enumerate(found))
    pre = X @ W_ENC + B_ENC
    assert torch.allclose(found[0].encode(X), pre.relu(), atol=1e-5)
    assert torch.allclose(found[1].encode(X), pre * (pre > drawn(8, F)), atol=1e-5)
    assert (found[1].encode(X) < 0).any()  # a negative threshold lets negative values pass
    wanted = pre.relu() @ W_DEC + B_DEC + X @ drawn(7, D, D).T
    assert torch.allclose(found[2].decode(found[2].encode(X), X), wanted, atol=1e-4)
    assert torch.allclose(found[3].encode(X), topk(pre, 3), atol=1e-5)


def test_circuit_tracer_across_layers(tmp_path: Path) -> None:
    hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
    folder = tracer(tmp_path / "clt", model_kind="cross_layer_transcoder", **hooks)
    for layer in range(3):
        held = {"W_enc": W_ENC.T + layer, "b_enc": B_ENC, "b_dec": B_DEC * layer, "threshold": EXTRA}
        save_file(
            {f"{name}_{layer}": value.contiguous() for name, value in held.items()},
            folder / f"W_enc_{layer}.safetensors",
        )
        save_file(
            {f"W_dec_{layer}": drawn(20 + layer, F, 3 - layer, D)}, folder / f"W_dec_{layer}.safetensors"
        )
    found = features.load_all(folder)
    assert [(str(one.site_in), str(one.site_out), len(one.later)) for one in found] == [
        (f"resid_mid.{n}", f"mlp_out.{n}", 2 - n) for n in range(3)
    ]
    pre = X @ (W_ENC + 1) + B_ENC
    assert torch.allclose(found[1].encode(X), pre * (pre > EXTRA), atol=1e-5)
    assert torch.equal(found[1].decoder, drawn(21, F, 2, D)[:, 0])
    assert torch.equal(found[1].later[0], drawn(21, F, 2, D)[:, 1])


def test_circuit_tracer_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="crosscoder"):
        features.load(tracer(tmp_path / "a", model_kind="crosscoder"))
    with pytest.raises(ArtifactError, match="fetched first"):
        features.load(tracer(tmp_path / "b", transcoders=["hf://x/y/layer_0.safetensors"]))
    with pytest.raises(ConfigError, match="new_rule"):
        features.load(tracer(tmp_path / "c", new_rule=1))


def test_places_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of no layout that is known: it holds nothing"):
        features.load(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        features.load(tmp_path / "missing")
    with pytest.raises(DataError, match="local cache has no repository"):
        features.load("nobody/no-such-repository-at-all")
