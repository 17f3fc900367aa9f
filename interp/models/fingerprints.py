"""Hashes that tell models and tokenizers apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from interp.models.rounded_cache import cache_bits

__all__ = ["of_tokenizer", "of_weights", "parts", "version"]

_KNOWN: WeakKeyDictionary[nn.Module, tuple[int, str]] = WeakKeyDictionary()
_SWITCH = "_disable_adapters"  # what every layer of PEFT has; asked of __dict__, which is quick
_FUNCTION = (
    "rope",
    "eps",
    "scal",
    "multiplier",
    "act",
    "softcap",
    "window",
    "head",
    "experts",
    "norm",
    "layer_types",
    "parallel",
    "clip",
    "alibi",
    "partial_rotary",
    "max_position_embeddings",
)
"""Parts of the names of settings that change what a model computes from the same weights."""


def of_weights(model: nn.Module, parameters: Sequence[nn.Parameter], modules: Sequence[nn.Module]) -> str:
    """The sha256 over every tensor's name, type, shape and bytes, and over what steers their use.

    That is the configuration's settings of rotation, norms, scales and the like, which adapters are on, and
    whether keys and values are rounded.
    The hash is kept until one of them changes.

    Args:
        model: the model.
        parameters: all of its parameters. Replaced or converted ones and edits in place are noticed; edits of
            a few through ``.data`` are not.
        modules: all of its modules.
    """
    ends = [parameters[0].data_ptr(), parameters[-1].data_ptr()]
    cache = [bits] if (bits := cache_bits(modules)) else []
    steered = json.dumps([_settings(model), _adapters(modules), *cache], default=str, sort_keys=True)
    state = hash((*map(id, parameters), *map(version, parameters), *ends, steered))
    known = _KNOWN.get(model)
    if known is not None and known[0] == state:
        return known[1]
    items = sorted(_state(model).items())
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(_digest, *zip(*items, strict=True)))
    total = hashlib.sha256(b"".join(digests) + steered.encode()).hexdigest()
    _KNOWN[model] = (state, total)
    return total


def version(parameter: Tensor) -> int:
    """How often a tensor was edited in place; 0 for one of inference mode, which does not count."""
    return 0 if parameter.is_inference() else parameter._version


def _settings(model: nn.Module) -> dict[str, Any]:
    """What the configuration says about how the weights are used."""
    config: Any = getattr(model, "config", None)
    facts = config.get_text_config().__dict__ if config is not None else {}
    return {
        name: value
        for name, value in sorted(facts.items())
        if not name.startswith("_") and any(part in name for part in _FUNCTION)
    }


def _adapters(modules: Sequence[nn.Module]) -> list[Any]:
    """Of every layer that has adapters: which are on, which are merged, and how much they count."""
    layers = [module for module in modules if _SWITCH in module.__dict__]
    return [
        (
            bool(layer.__dict__[_SWITCH]),
            getattr(layer, "active_adapters", None),
            layer.__dict__.get("merged_adapters"),
            sorted((layer.__dict__.get("scaling") or {}).items()),
        )
        for layer in layers
    ]


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor; those that accelerate keeps on disk or in memory are fetched from there."""
    found = model.state_dict()
    if not any(tensor.is_meta for tensor in found.values()):
        return found
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    return found | get_state_dict_offloaded_model(model)


def _digest(name: str, tensor: Tensor) -> bytes:
    found = hashlib.sha256(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
    for part in parts(tensor):
        plain = part.detach().cpu().contiguous().reshape(-1)
        found.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
    return found.digest()


def parts(tensor: Tensor) -> list[Tensor]:
    """List the plain tensors that a tensor is made of: itself, unless it is a subclass that holds several."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if type(tensor) in (Tensor, nn.Parameter) or flatten is None:
        return [tensor]
    return [part for name in flatten()[0] for part in parts(getattr(tensor, name))]


def of_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """The sha256 over vocabulary, special tokens and rules; "" for no tokenizer."""
    if tokenizer is None:
        return ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else ""
    parts = [
        sorted(tokenizer.get_vocab().items()),
        str(tokenizer.special_tokens_map),
        rules,
        tokenizer.chat_template,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
