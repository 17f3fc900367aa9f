"""Sparsify: ``cfg.json`` and ``sae.safetensors``, a folder per module (EleutherAI/sparsify)."""

from __future__ import annotations

import re
from pathlib import Path

from interp.errors import ConfigError
from interp.features.activations import TopK
from interp.features.dictionary import Dictionary
from interp.features.layouts.reading import (
    Options,
    agreeing,
    checked,
    chosen,
    needed,
    safetensors_of,
    site_or_refuse,
)
from interp.results import read_json
from interp.sites import Site

__all__ = ["matches", "read"]

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
KEYS = (
    *("activation", "expansion_factor", "normalize_decoder", "num_latents", "k", "multi_topk"),
    *("skip_connection", "transcode", "d_in", "signed", "init_b_dec_as_zeros"),
)
TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec", "W_skip")
MODULES = {
    "": "resid_post",
    "mlp": "mlp_out",
    "attn": "attn_out",
    "self_attn": "attn_out",
    "attention": "attn_out",
}
"""What follows the number of the block in a module's name -> the site of its output."""


def matches(folder: Path) -> bool:
    """Whether a folder holds one, or one per module."""
    return bool(_parts(folder))


def _parts(folder: Path) -> list[Path]:
    """The folders of single dictionaries."""
    places = [folder, *sorted(one for one in folder.iterdir() if one.is_dir())]
    return [one for one in places if (one / CONFIG).is_file() and (one / WEIGHTS).is_file()]


def read(folder: Path, options: Options) -> tuple[Dictionary, ...]:
    """The dictionaries of a folder.

    Raises:
        ConfigError: a configuration asks for something that is not understood; names it.
        SiteError: a folder's name is that of no module that is known.
    """
    return tuple(_one(part, options) for part in _parts(folder))


def _one(folder: Path, options: Options) -> Dictionary:
    config = read_json(folder / CONFIG)
    checked(config, KEYS, str(folder / CONFIG), options)
    chosen(config.get("activation", "topk"), ("topk",), "activation")
    weights = safetensors_of(folder / WEIGHTS)
    checked(weights, TENSORS, str(folder / WEIGHTS))
    needed(weights, TENSORS[:-1], str(folder / WEIGHTS))
    needed(config, ("k",), str(folder / CONFIG))
    n, width = weights["encoder.weight"].shape
    # 0 features stand for expansion_factor times the width
    said = {key: value or None for key, value in config.items()}
    agreeing(said, {"num_latents": n, "d_in": width}, str(folder / CONFIG))
    transcodes = bool(config.get("transcode"))
    out = site_or_refuse(_site(folder.name), options, f"the folder's name {folder.name!r}")
    if transcodes and out.kind != "mlp_out":
        raise ConfigError(f"a transcoder of {folder.name!r}: those of MLPs are understood.")
    if bool(config.get("skip_connection")) != ("W_skip" in weights):
        raise ConfigError(f"skip_connection {config.get('skip_connection')!r} and the weights do not agree.")
    signed = bool(config.get("signed"))  # the largest absolute values, with their signs
    return Dictionary(
        name=folder.name,
        layout="sparsify",
        site_in=Site("resid_mid", out.layer) if transcodes else out,
        site_out=out,
        encoder=weights["encoder.weight"],
        encoder_bias=weights["encoder.bias"],
        decoder=weights["W_dec"],
        decoder_bias=weights["b_dec"],
        activation=TopK(int(config["k"]), signed=signed, by_size=signed),
        shift=None if transcodes else weights["b_dec"],
        read="norm" if transcodes else "site",
        skip=weights.get("W_skip"),
        of_module=out.kind in MODULES.values() and out.kind != "resid_post",
    )


def _site(name: str) -> Site | None:
    match = re.fullmatch(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)(?:\.(\w+))?", name)
    if match is None or (match[2] or "") not in MODULES:
        return None
    return Site(MODULES[match[2] or ""], int(match[1]))
