"""dictionary_learning: ``config.json`` and ``ae.pt``, a pickle of tensors (saprmarks/dictionary_learning).

The pickle is read with ``weights_only=True``, which builds tensors and refuses anything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import ArtifactError, ConfigError
from interp.features.activations import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from interp.features.dictionary import Dictionary
from interp.features.layouts.reading import (
    Options,
    agreeing,
    as_tensor,
    checked,
    chosen,
    site_or_refuse,
)
from interp.results import read_json
from interp.sites import Site

__all__ = ["matches", "read"]

CONFIG, WEIGHTS = "config.json", "ae.pt"
CLASSES = {
    "AutoEncoder": ("encoder.weight", "encoder.bias", "decoder.weight", "bias"),
    "AutoEncoderNew": ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"),
    "AutoEncoderTopK": ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k", "threshold"),
    "BatchTopKSAE": ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k", "threshold"),
    "MatryoshkaBatchTopKSAE": ("W_enc", "b_enc", "W_dec", "b_dec", "k", "threshold", "group_sizes"),
    "JumpReluAutoEncoder": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "GatedAutoEncoder": (
        *("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"),
    ),
}
"""Class of the dictionary -> the tensors of its file."""
SUBMODULES = {
    "resid_post": "resid_post",
    "resid_pre": "resid_pre",
    "mlp_out": "mlp_out",
    "attention_out": "attn_out",
}
_TRAINING = """
trainer_class wandb_name device seed steps lr l1_penalty warmup_steps sparsity_warmup_steps decay_start
resample_steps auxk_alpha threshold_beta threshold_start_step top_k_aux bandwidth target_l0 sparsity_penalty
sparsity_function initial_sparsity_penalty p_start p_end anneal_start anneal_end sparsity_queue_length
n_sparsity_updates group_fractions group_weights group_sizes
"""
TRAINER = frozenset(
    (
        *_TRAINING.split(),
        "dict_class",
        "activation_dim",
        "dict_size",
        "k",
        "layer",
        "lm_name",
        "submodule_name",
    )
)
"""What its trainers write: how it was trained, then what it is."""
BUFFER = (
    *("d_submodule", "io", "n_ctxs", "ctx_len", "refresh_batch_size", "out_batch_size", "device"),
    *("remove_bos", "dtype"),
)
SHIFTED = ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "GatedAutoEncoder")
"""Classes that subtract the decoder's bias from their input."""


def matches(folder: Path) -> bool:
    """Whether a folder holds one."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read(folder: Path, options: Options) -> tuple[Dictionary, ...]:
    """The dictionary of a folder.

    Raises:
        ConfigError: another class, or one whose threshold was never learned.
        ArtifactError: a file cannot be read, or holds more than tensors.
        SiteError: the configuration does not say which site it is of.
    """
    config = read_json(folder / CONFIG)
    checked(config, ("trainer", "buffer"), str(folder / CONFIG), options)
    trainer: Mapping[str, Any] = config.get("trainer") or {}
    buffer: Mapping[str, Any] = config.get("buffer") or {}
    checked(trainer, TRAINER, f"trainer of {folder / CONFIG}", options)
    checked(buffer, BUFFER, f"buffer of {folder / CONFIG}", options)
    chosen(buffer.get("io"), (None, "out"), "io of the buffer: what of the submodule was stored")
    kind = chosen(trainer.get("dict_class"), tuple(CLASSES), "dict_class")
    weights = _tensors(folder / WEIGHTS)
    checked(weights, CLASSES[kind], str(folder / WEIGHTS))
    if missing := [name for name in CLASSES[kind] if name not in weights and name not in ("k", "threshold")]:
        raise ArtifactError(f"{folder / WEIGHTS} lacks {', '.join(missing)} of a {kind}.")
    encoder = weights["W_enc"].T.contiguous() if "W_enc" in weights else weights["encoder.weight"]
    decoder = weights["W_dec"] if "W_dec" in weights else weights["decoder.weight"].T.contiguous()
    bias = next(
        weights[name] for name in ("b_dec", "decoder_bias", "decoder.bias", "bias") if name in weights
    )
    n, width = encoder.shape
    agreeing(trainer, {"activation_dim": width, "dict_size": n}, f"trainer of {folder / CONFIG}")
    agreeing(buffer, {"d_submodule": width}, f"buffer of {folder / CONFIG}")
    zero = torch.zeros(n)
    own = next((weights[name] for name in ("b_enc", "encoder.bias") if name in weights), zero)
    site = site_or_refuse(_site(trainer), options, f"submodule_name {trainer.get('submodule_name')!r}")
    found = Dictionary(
        name=folder.name,
        layout="dictionary-learning",
        site_in=site,
        site_out=site,
        encoder=encoder,
        encoder_bias=own,
        decoder=decoder,
        decoder_bias=bias,
        activation=_activation(kind, trainer, weights, n),
        shift=bias if kind in SHIFTED else None,
        of_module=site.kind in ("mlp_out", "attn_out"),
        model_name=str(trainer.get("lm_name") or ""),
    )
    # That library itself measures features of its plain class by decoder rows of length 1.
    return (found.folded() if kind == "AutoEncoder" else found,)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is refused is raised as an error of pickle, and damage as any other
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(
            f"{path} cannot be read as tensors alone ({first}). Nothing of it was executed; save its "
            "state_dict again."
        ) from None
    if not isinstance(held, Mapping) or not all(isinstance(one, Tensor) for one in held.values()):
        raise ArtifactError(f"{path} holds no state_dict of tensors. Save the state_dict alone.")
    return {str(name): as_tensor(one) for name, one in held.items()}


def _activation(kind: str, trainer: Mapping[str, Any], weights: Mapping[str, Tensor], n: int) -> Activation:
    if kind == "AutoEncoderTopK":
        held = int(weights["k"]) if "k" in weights else None
        asked = trainer.get("k", held)
        if not asked or (held is not None and held != asked):
            raise ConfigError(f"k is {trainer.get('k')!r} in the configuration and {held!r} in the weights.")
        return TopK(int(asked))
    if kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        threshold = float(weights.get("threshold", torch.tensor(-1.0)))
        if threshold < 0:
            raise ConfigError(
                f"{kind} is used with a threshold, and this one's ({threshold:g}) was never learned: "
                "training ended before threshold_start_step."
            )
        return BatchTopK(torch.full((n,), threshold))
    if kind == "JumpReluAutoEncoder":
        return JumpReLU(weights["threshold"])
    if kind == "GatedAutoEncoder":
        return Gated(weights["gate_bias"], weights["r_mag"].exp(), weights["mag_bias"])
    return ReLU()


def _site(trainer: Mapping[str, Any]) -> Site | None:
    match = re.fullmatch(
        r"(resid_post|resid_pre|mlp_out|attention_out)_layer_(\d+)", str(trainer.get("submodule_name"))
    )
    if match is None:
        return None
    agreeing(trainer, {"layer": int(match[2])}, "the trainer's configuration")
    return Site(SUBMODULES[match[1]], int(match[2]))
