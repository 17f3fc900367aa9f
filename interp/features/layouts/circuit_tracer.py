"""circuit-tracer (safety-research/circuit-tracer): ``config.yaml`` and transcoders, per layer or cross-layer.

Per layer: ``layer_0.safetensors`` ... with W_enc, b_enc, W_dec, b_dec. Across layers: ``W_enc_0.safetensors``
and ``W_dec_0.safetensors`` ..., where a feature of layer l writes to layer l and all later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import ArtifactError, ConfigError
from interp.features.activations import Activation, JumpReLU, ReLU, TopK
from interp.features.dictionary import Dictionary
from interp.features.layouts.reading import (
    Options,
    checked,
    chosen,
    is_module,
    needed,
    place_of,
    safetensors_of,
)

__all__ = ["matches", "read"]

CONFIG = "config.yaml"
KINDS = ("transcoder_set", "cross_layer_transcoder")
KEYS = (
    *("model_name", "model_kind", "feature_input_hook", "feature_output_hook", "scan", "scan_name"),
    *("transcoders", "activation", "k", "repo_id", "revision", "subfolder"),
)


def matches(folder: Path) -> bool:
    """Whether a folder holds a set."""
    return (folder / CONFIG).is_file()


def read(folder: Path, options: Options) -> tuple[Dictionary, ...]:
    """The transcoders of a folder, one per layer.

    Raises:
        ConfigError: its configuration asks for something that is not understood; names it.
        ArtifactError: a file is missing or damaged.
    """
    import yaml

    try:
        config: Any = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ArtifactError(f"{folder / CONFIG} is no readable YAML file: {error}.") from None
    if not isinstance(config, Mapping):
        raise ArtifactError(f"{folder / CONFIG} holds no keys.")
    checked(config, KEYS, str(folder / CONFIG), options)
    kind = chosen(config.get("model_kind"), KINDS, "model_kind")
    crossing = kind == "cross_layer_transcoder"
    first = "W_enc_0.safetensors" if crossing else "layer_0.safetensors"
    pattern = "W_enc_*.safetensors" if crossing else "layer_*.safetensors"
    n = len(list(folder.glob(pattern)))
    if not n or not (folder / first).is_file():
        raise ArtifactError(
            f"{folder} holds no {first}. Files that {CONFIG} names elsewhere are fetched first."
        )
    one = _crossing if crossing else _single
    return tuple(one(folder, config, layer, n) for layer in range(n))


def _places(config: Mapping[str, Any], layer: int) -> dict[str, Any]:
    """The fields of a dictionary that its hooks say."""
    site_in, norm, read_of = place_of(str(config.get("feature_input_hook")), layer)
    site_out, _, _ = place_of(str(config.get("feature_output_hook")), layer)
    return {
        "layout": "circuit-tracer",
        "site_in": site_in,
        "site_out": site_out,
        "norm": norm,
        "read": read_of,
        "model_name": str(config.get("model_name") or ""),
        "of_module": is_module(str(config.get("feature_output_hook"))),
    }


def _single(folder: Path, config: Mapping[str, Any], layer: int, n: int) -> Dictionary:
    path = folder / f"layer_{layer}.safetensors"
    weights = safetensors_of(path)
    known = ("W_enc", "b_enc", "W_dec", "b_dec", "W_skip", "activation_function.threshold", "k")
    checked(weights, known, str(path))
    needed(weights, known[:4], str(path))
    return Dictionary(
        name=f"{folder.name}/layer_{layer}",
        encoder=weights["W_enc"],
        encoder_bias=weights["b_enc"],
        decoder=weights["W_dec"],
        decoder_bias=weights["b_dec"],
        skip=weights.get("W_skip"),
        activation=_activation(config, weights, weights.get("activation_function.threshold")),
        **_places(config, layer),
    )


def _activation(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], threshold: Tensor | None
) -> Activation:
    asked = chosen(config.get("activation"), (None, "relu", "topk", "jump_relu", "jumprelu"), "activation")
    given = [int(one["k"]) for one in (config, weights) if one.get("k") is not None]
    topk = asked == "topk" or (asked is None and "k" in weights)
    if (topk and threshold is not None) or (given and not topk) or len(set(given)) > 1:
        raise ConfigError(
            f"activation {asked!r}, k {given or None} and {'a' if threshold is not None else 'no'} "
            "threshold do not belong together: one of them is wrong."
        )
    if topk:
        if not given:
            raise ConfigError("activation 'topk' without a number k of features.")
        return TopK(given[0], signed=True)
    if threshold is not None and asked == "relu":
        raise ConfigError("activation 'relu', and the weights hold a threshold: one of them is wrong.")
    if threshold is not None:
        return JumpReLU(threshold.flatten(), signed=True)
    if asked in ("jump_relu", "jumprelu"):
        raise ConfigError(f"activation {asked!r}, and the weights hold no threshold.")
    return ReLU()


def _crossing(folder: Path, config: Mapping[str, Any], layer: int, n: int) -> Dictionary:
    path = folder / f"W_enc_{layer}.safetensors"
    weights = safetensors_of(path)
    names = [f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec", "threshold")]
    checked(weights, names, str(path))
    needed(weights, names[:3], str(path))
    held = safetensors_of(folder / f"W_dec_{layer}.safetensors")
    needed(held, (f"W_dec_{layer}",), f"W_dec_{layer}.safetensors")
    written = held[f"W_dec_{layer}"]
    if written.shape[1] != n - layer:
        raise ArtifactError(
            f"W_dec_{layer} writes to {written.shape[1]} layers, and {n - layer} of {n} are left there."
        )
    decoders = [one.contiguous() for one in written.unbind(dim=1)]
    return Dictionary(
        name=f"{folder.name}/layer_{layer}",
        encoder=weights[f"W_enc_{layer}"],
        encoder_bias=weights[f"b_enc_{layer}"],
        decoder=decoders[0],
        decoder_bias=weights[f"b_dec_{layer}"],
        later=tuple(decoders[1:]),
        activation=_activation(config, {}, weights.get(f"threshold_{layer}")),
        **_places(config, layer),
    )
