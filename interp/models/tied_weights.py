"""A second model around the same weights: plain modules, parameters and buffers shared, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from interp.errors import ModelError
from interp.models.rounded_cache import cache_bits

__all__ = ["twin"]


def _itself(module: nn.Module) -> nn.Module:
    return module


def twin(
    hf: PreTrainedModel, *, unwrap: Callable[[nn.Module], nn.Module] = _itself, attention: bool = True
) -> PreTrainedModel:
    """Build the model that a configuration describes, around the weights of one that exists.

    The modules are new, so hooks and replaced ``forward`` functions of the other model are not in the twin,
    and nothing that is done to the twin's modules or configuration reaches the other. An edit in place of a
    weight reaches both; a weight replaced in one does not.

    Args:
        hf: the model whose parameters and buffers are shared.
        unwrap: from a module found in ``hf`` to the Hugging Face module it stands for.
        attention: whether the choice of attention function is copied too; otherwise it is the library's own.

    Raises:
        ModelError: the modules of ``hf`` are not those that its configuration describes.
    """
    if bits := cache_bits([*hf.modules()]):
        raise _unlike(type(hf).__name__, f"its keys and values are rounded to {bits} bits")
    config = copy.deepcopy(hf.config)
    if not attention:
        config._attn_implementation = None
        config.output_attentions = False
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        made: Any = type(hf)(config)
    for path, module in made.named_modules():
        _share(_at(hf, path, unwrap), module, path, type(hf).__name__)
    if (settings := getattr(hf, "generation_config", None)) is not None:
        made.generation_config = copy.deepcopy(settings)
    return made


def _at(root: nn.Module, path: str, unwrap: Callable[[nn.Module], nn.Module]) -> nn.Module | None:
    found: nn.Module | None = unwrap(root)
    for part in path.split(".") if path else ():
        found = found._modules.get(part) if found is not None else None
        found = unwrap(found) if found is not None else None
    return found


def _share(source: nn.Module | None, module: nn.Module, path: str, name: str) -> None:
    """Put the source's tensors and mode into a module that was built without any."""
    if source is None or type(source) is not type(module):
        kind = "nothing" if source is None else f"a {type(source).__name__}"
        raise _unlike(name, f"{path!r} holds {kind}, not a {type(module).__name__}")
    tables = ("_parameters", "_buffers", "__dict__")
    for mine, theirs in ((getattr(module, table), getattr(source, table)) for table in tables):
        for key, tensor in _tensors(mine):
            new = theirs.get(key)
            if not isinstance(new, torch.Tensor) or new.shape != tensor.shape:
                raise _unlike(name, f"'{path}.{key}' is not a tensor of shape {tuple(tensor.shape)}")
            mine[key] = new
    if extra := {key for key, _ in _tensors(source._parameters)} - module._parameters.keys():
        raise _unlike(name, f"{path!r} has a further parameter {min(extra)!r}")
    module.training = source.training


def _tensors(table: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    yield from [(key, value) for key, value in table.items() if isinstance(value, torch.Tensor)]


def _unlike(name: str, what: str) -> ModelError:
    return ModelError(
        f"a {name} was given whose modules are not those that its configuration describes: {what}. "
        "An adapter, a quantization or a replaced module cannot be carried over; load the Hugging Face model "
        "itself, with backend='native'."
    )
