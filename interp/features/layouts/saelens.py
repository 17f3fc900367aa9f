"""SAELens: ``cfg.json`` and ``sae_weights.safetensors`` (versions 3 to 6 of decoderesearch/SAELens)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import ConfigError, SiteError
from interp.features.activations import Activation, Gated, JumpReLU, ReLU, TopK
from interp.features.dictionary import Dictionary
from interp.features.layouts.reading import (
    Options,
    agreeing,
    checked,
    chosen,
    is_module,
    needed,
    place_of,
    safetensors_of,
    site_or_refuse,
)
from interp.results import read_json
from interp.sites import Site, transformer_lens_name

__all__ = ["CONFIG", "WEIGHTS", "matches", "read", "write"]

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
OLD = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
    "hook_point_layer": "hook_layer",
}
"""Names of older versions."""
MEANT = frozenset(
    {
        *("d_in", "d_sae", "dtype", "device", "architecture", "metadata", "k", "d_out"),
        *("apply_b_dec_to_input", "normalize_activations", "reshape_activations", "activation_fn"),
        *("activation_fn_kwargs", "finetuning_scaling_factor", "rescale_acts_by_decoder_norm"),
        *("hook_name", "hook_name_out", "hook_layer", "hook_layer_out", "hook_head_index", "model_name"),
        *("hook_head_index_out", "norm_scaling_factor"),
    }
)
"""Keys that say how features are computed, and where."""
HARMLESS = frozenset({"dtype", "device"})
"""Of them those that change no feature: everything is read in float32."""
_TRAINING = """
context_size prepend_bos dataset_path dataset_trust_remote_code sae_lens_version neuronpedia_id
sae_lens_training_version model_from_pretrained_kwargs seqpos_slice model_class_name streaming
exclude_special_tokens is_dataset_tokenized use_cached_activations cached_activations_path
n_batches_in_buffer total_training_tokens training_tokens store_batch_size store_batch_size_prompts seed
b_dec_init_method expansion_factor from_pretrained_path l1_coefficient lr lr_end lr_scheduler_name
lr_warm_up_steps lr_decay_steps train_batch_size train_batch_size_tokens use_ghost_grads
n_restart_cycles feature_sampling_window feature_sampling_method resample_batches feature_reinit_scale
dead_feature_window dead_feature_estimation_method dead_feature_threshold log_to_wandb wandb_project
wandb_entity wandb_id wandb_log_frequency n_checkpoints checkpoint_path tokens_per_buffer run_name
unique_id lp_norm verbose adam_beta1 adam_beta2 l1_warm_up_steps eval_every_n_wandb_logs n_eval_batches
eval_batch_size_prompts autocast autocast_lm compile_llm compile_sae llm_compilation_mode
sae_compilation_mode resume mse_loss_normalization l1_loss_type noise_scale
init_encoder_as_decoder_transpose decoder_orthogonal_init decoder_heuristic_init
decoder_heuristic_init_norm normalize_sae_decoder scale_sparsity_penalty_by_decoder_norm
sparsity_penalty_decoder_norm_lp_norm act_store_device log_weights_to_wandb log_optimizer_state_to_wandb
ghost_grad_coefficient effective_size mean_norm_coefficient d_sae_in jumprelu_init_threshold
jumprelu_bandwidth disable_concat_sequences sequence_separator_token activations_mixing_fraction
"""
TRAINING = frozenset(_TRAINING.split())
"""Keys that say how it was trained or evaluated: features do not depend on them."""
ARCHITECTURES = (
    "standard",
    "gated",
    "jumprelu",
    "topk",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
)
SKIPPING = ("jumprelu_skip_transcoder",)
TENSORS = {"gated": ("b_gate", "r_mag", "b_mag"), "skip": ("W_skip",)}
"""What an architecture with that word in its name needs besides encoder, decoder and its bias."""


def matches(folder: Path) -> bool:
    """Whether a folder holds one."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read(folder: Path, options: Options) -> tuple[Dictionary, ...]:
    """The dictionary of a folder.

    Raises:
        ConfigError: its configuration asks for something that is not understood; names it.
        ArtifactError: a file cannot be read.
    """
    config = _configuration(folder, options)
    weights = safetensors_of(folder / WEIGHTS)
    kind = chosen(config.get("architecture", "standard"), (*ARCHITECTURES, *SKIPPING), "architecture")
    chosen(config.get("finetuning_scaling_factor") or False, (False,), "finetuning_scaling_factor")
    scaling = weights.pop("scaling_factor", None)
    if scaling is not None and not bool((scaling == 1).all()):
        raise ConfigError(
            "the weights hold a scaling_factor that is not 1 everywhere, which is not understood."
        )
    transcoder = "transcoder" in kind
    _check(folder, kind, config, weights)
    activation = _activation(kind, config, weights)
    site_in, own, read_of = _site(config, transcoder, options)
    site_out = _out(config, site_in) if transcoder else site_in
    agreeing(
        config,
        {"hook_layer": site_in.layer or 0, "hook_layer_out": site_out.layer or 0},
        str(folder / CONFIG),
    )
    shift = config.get("apply_b_dec_to_input", not transcoder)
    norm, scale = _norm(folder, config, options)
    if transcoder and (norm != "none" or scale is not None or shift):
        raise ConfigError(
            f"{folder / CONFIG} is of a transcoder and changes its input (normalize_activations, or "
            "apply_b_dec_to_input): what of that is undone in its output is not said, so it is not supported."
        )
    hooks = [str(config.get(name) or "") for name in ("hook_name", "hook_name_out")[: 1 + transcoder]]
    n = weights["W_enc"].shape[1]
    found = Dictionary(
        name=str((config.get("interp") or {}).get("name") or folder.name),
        layout="saelens",
        site_in=site_in,
        site_out=site_out,
        encoder=weights.pop("W_enc").T.contiguous(),
        encoder_bias=weights.pop("b_enc", torch.zeros(n)),
        decoder=weights.pop("W_dec").contiguous(),
        decoder_bias=weights["b_dec"],
        activation=activation,
        shift=weights["b_dec"] if shift else None,
        norm=own if own != "none" else norm,
        read=read_of,
        skip=weights.pop("W_skip") if "skip" in kind else None,
        of_module=any(map(is_module, hooks)),
        model_name=str(config.get("model_name") or ""),
        card={key: value for key, value in config.items() if key in TRAINING and value is not None},
    )
    checked(weights, ("b_dec",), str(folder / WEIGHTS))
    if config.get("rescale_acts_by_decoder_norm"):
        # chosen by the features in units of the site, which is what folded features are
        found = replace(found.folded(), activation=TopK(int(config["k"])))
    return (found if scale is None else found.scaled(scale),)


def _configuration(folder: Path, options: Options) -> dict[str, Any]:
    """Keys of all versions under the names of the newest, with the metadata among them."""
    given = {OLD.get(key, key): value for key, value in read_json(folder / CONFIG).items()}
    metadata = given.pop("metadata", None) or {}
    config = {**metadata, **given}
    agreeing(
        given,
        {key: value for key, value in metadata.items() if key in MEANT - HARMLESS and value is not None},
        str(folder / CONFIG),
    )
    if config.get("activation_fn") == "topk":
        chosen(
            config.get("architecture", "standard"),
            ("standard", "topk"),
            "architecture of activation_fn 'topk'",
        )
        config["architecture"] = "topk"
        config.setdefault("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    extra = {key: value for key, value in (config.get("activation_fn_kwargs") or {}).items() if key != "k"}
    checked(extra, (), f"activation_fn_kwargs of {folder / CONFIG}", options)
    checked(config, MEANT | TRAINING | {"interp"}, str(folder / CONFIG), options)
    chosen(config.get("activation_fn", "relu"), ("relu", "topk"), "activation_fn")
    chosen(config.get("hook_head_index"), (None,), "hook_head_index")
    chosen(config.get("hook_head_index_out"), (None,), "hook_head_index_out")
    z = ("hook_z",) if str(config.get("hook_name")).endswith("hook_z") else ()
    chosen(config.get("reshape_activations"), (None, "none", *z), "reshape_activations")
    return config


def _check(folder: Path, kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights without what the architecture needs, and a configuration of others."""
    names = [
        "W_enc",
        "W_dec",
        "b_dec",
        *(one for word, own in TENSORS.items() if word in kind for one in own),
    ]
    if "jumprelu" in kind and "log_threshold" not in weights:
        names.append("threshold")
    needed(weights, names, str(folder / WEIGHTS))
    (d_in, n), d_out = weights["W_enc"].shape, weights["W_dec"].shape[1]
    agreeing(config, {"d_in": d_in, "d_sae": n, "d_out": d_out}, str(folder / CONFIG))
    if kind != "topk" and (config.get("k") or config.get("rescale_acts_by_decoder_norm")):
        raise ConfigError(
            f"{folder / CONFIG} says k or rescale_acts_by_decoder_norm, which are of the architecture "
            f"'topk', and its architecture is {kind!r}: one of them is wrong."
        )


def _activation(kind: str, config: Mapping[str, Any], weights: dict[str, Tensor]) -> Activation:
    if "jumprelu" in kind:
        if "log_threshold" in weights:
            return JumpReLU(weights.pop("log_threshold").exp())
        return JumpReLU(weights.pop("threshold"))
    if kind == "topk":
        if not config.get("k"):
            raise ConfigError("architecture 'topk' without a number k of features.")
        return TopK(int(config["k"]))
    if kind == "gated":
        return Gated(weights.pop("b_gate"), weights.pop("r_mag").exp(), weights.pop("b_mag"))
    return ReLU()


def _site(config: Mapping[str, Any], transcoder: bool, options: Options) -> tuple[Site, str, str]:
    hook = str(config.get("hook_name") or "")
    if transcoder and not hook:
        raise ConfigError(
            "a transcoder whose configuration has no hook_name: it does not say whether it reads a site or "
            "what a norm gives of it."
        )
    try:
        site, norm, read_of = place_of(hook)
    except SiteError:
        if transcoder or "hook_" in hook or options.site is None:
            if hook:
                raise
            raise ConfigError(
                "the configuration has no hook_name; give site='resid_post.8' or the like."
            ) from None
        return options.site, "none", "site"
    return site_or_refuse(site, options, f"hook_name {hook!r}"), norm, read_of


def _out(config: Mapping[str, Any], site_in: Site) -> Site:
    name = config.get("hook_name_out")
    if not name:
        raise ConfigError(
            "a transcoder whose configuration has no hook_name_out: it does not say what it writes."
        )
    return place_of(str(name), site_in.layer)[0]


def _norm(folder: Path, config: Mapping[str, Any], options: Options) -> tuple[str, float | None]:
    """What is done to the input, and the factor that is folded into the weights."""
    asked = config.get("normalize_activations") or "none"
    asked = "expected_average_only_in" if asked is True else asked
    names = {"none": "none", "layer_norm": "layer-norm", "constant_norm_rescale": "constant-norm"}
    if asked != "expected_average_only_in":
        if options.scale is not None or config.get("norm_scaling_factor") not in (None, 1.0):
            raise ConfigError(
                f"a factor on inputs (scale) is given, and normalize_activations is {asked!r}, which has "
                "none: leave it out, or correct the configuration."
            )
        return names[chosen(asked, (*names, "expected_average_only_in"), "normalize_activations")], None
    held = config.get("norm_scaling_factor")
    if held is None and (folder / SCALER).is_file():
        held = read_json(folder / SCALER).get("scaling_factor")
    if held and options.scale not in (None, held):
        raise ConfigError(f"scale={options.scale} asked, and the folder says {held}. Leave scale= out.")
    scale = held or options.scale
    if not scale:
        raise ConfigError(
            "normalize_activations 'expected_average_only_in' multiplies inputs by a factor that the folder "
            "does not hold; give scale=, sqrt(d_in) over the mean norm of the states it was trained on."
        )
    return "none", float(scale)


def write(dictionary: Dictionary, folder: str | Path, *, notes: Mapping[str, Any] | None = None) -> Path:
    """Write an autoencoder so that SAELens and :func:`read` open it.

    Args:
        dictionary: an autoencoder with ReLU, JumpReLU or TopK features.
        folder: where to.
        notes: more for the configuration's ``metadata``, under ``interp``.

    Raises:
        ConfigError: this layout has no place for something of it.
    """
    names = {"relu": "standard", "jumprelu": "jumprelu", "topk": "topk"}
    plain = dictionary.autoencodes and dictionary.norm == "none" and not dictionary.later
    plain = plain and dictionary.skip is None and not dictionary.of_module
    if dictionary.shift is not None and not torch.equal(dictionary.shift, dictionary.decoder_bias):
        raise ConfigError(
            f"{dictionary!r} does not fit the layout of SAELens: what it subtracts from its input is not its "
            "decoder's bias. Fold it: encoder_bias - encoder @ shift, and no shift."
        )
    weighted = getattr(dictionary.activation, "weight", None) is not None
    signed = getattr(dictionary.activation, "signed", False)
    if not plain or weighted or signed or dictionary.activation.name not in names:
        raise ConfigError(f"{dictionary!r} does not fit the layout of SAELens: plain autoencoders do.")
    config: dict[str, Any] = {
        "d_in": dictionary.encoder.shape[1],
        "d_sae": dictionary.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.shift is not None,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "architecture": names[dictionary.activation.name],
        "metadata": {
            "model_name": dictionary.model_name,
            "hook_name": transformer_lens_name(dictionary.site_in),
            "sae_lens_version": "6.0.0",
            "interp": {"name": dictionary.name, **(notes or {})},
        },
    }
    weights = {
        "W_enc": dictionary.encoder.T.contiguous(),
        "b_enc": dictionary.encoder_bias,
        "W_dec": dictionary.decoder,
        "b_dec": dictionary.decoder_bias,
    }
    if isinstance(dictionary.activation, TopK):
        config |= {"k": dictionary.activation.k, "rescale_acts_by_decoder_norm": False}
    if isinstance(dictionary.activation, JumpReLU):
        weights["threshold"] = dictionary.activation.threshold
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return folder
