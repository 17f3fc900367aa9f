"""Hashes that tell models and tokenizers apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

__all__ = ["of_tokenizer", "of_weights", "parts"]

_VERSION = attrgetter("_version")
_KNOWN: WeakKeyDictionary[nn.Module, tuple[int, str]] = WeakKeyDictionary()


def of_weights(model: nn.Module, parameters: Sequence[nn.Parameter]) -> str:
    """Return the sha256 over every tensor's name, type, shape and bytes; kept until a parameter changes.

    Args:
        model: the model.
        parameters: all of its parameters. Replaced or converted ones and edits in place are noticed; edits of
            a few through ``.data`` are not.
    """
    ends = [parameters[0].data_ptr(), parameters[-1].data_ptr()]
    state = hash((*map(id, parameters), *map(_VERSION, parameters), *ends))
    known = _KNOWN.get(model)
    if known is not None and known[0] == state:
        return known[1]
    items = sorted(model.state_dict().items())
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(_digest, *zip(*items, strict=True)))
    total = hashlib.sha256(b"".join(digests)).hexdigest()
    _KNOWN[model] = (state, total)
    return total


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
    """Return the sha256 over vocabulary, special tokens and rules; "" for no tokenizer."""
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
