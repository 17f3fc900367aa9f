"""Adapters of PEFT: a model that has some, or folders of them put on a model that is loaded."""

from __future__ import annotations

import copy
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from interp.errors import ConfigError, ModelError
from interp.models.architecture import Architecture
from interp.models.linear import linear_modules

__all__ = [
    "FACTS",
    "active",
    "base_of",
    "low_rank",
    "matrices",
    "merged",
    "with_adapters",
    "without_wrapper",
]

FACTS = "adapter_config.json"


def without_wrapper(source: Any) -> PreTrainedModel | None:
    """The Hugging Face model inside a ``PeftModel``, with its adapters as they are; None for anything else.

    Raises:
        ModelError: its adapters are no part of the modules (prompt tuning and the like).
    """
    kind = getattr(sys.modules.get("peft"), "PeftModel", None)
    if not isinstance(kind, type) or not isinstance(source, kind):
        return None
    inner = getattr(source.base_model, "model", None)
    if isinstance(source.base_model, PreTrainedModel) or not isinstance(inner, PreTrainedModel):
        method = source.peft_config[source.active_adapter].peft_type.value
        raise ModelError(
            f"a {type(source).__name__} with {method} was given, which puts tokens or keys before every "
            "prompt instead of changing the model. Adapters inside the modules, such as LoRA, can be used."
        )
    return inner


def active(hf: PreTrainedModel) -> tuple[str, ...]:
    """The names of the adapters that are on, anywhere in the model."""
    found: dict[str, None] = {}
    for module in hf.modules():
        if "_disable_adapters" in module.__dict__ and not module.__dict__["_disable_adapters"]:
            found.update(dict.fromkeys(getattr(module, "active_adapters", ())))
    return tuple(found)


def base_of(folder: Path) -> str:
    """The base model that an adapter's folder names; "" where it names none."""
    try:
        return str(json.loads((folder / FACTS).read_text(encoding="utf-8"))["base_model_name_or_path"] or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def with_adapters(hf: PreTrainedModel, folders: Sequence[str | os.PathLike[str]]) -> PreTrainedModel:
    """Put the adapters of some folders on a model; all of them are on, and what they add is summed.

    Raises:
        ModelError: PEFT is not installed, or a folder holds no adapter that fits.
        ConfigError: two folders of one name.
    """
    if find_spec("peft") is None:
        raise ModelError("adapter= needs the package peft: pip install peft.")
    from peft import PeftModel

    names = [Path(folder).name.replace(".", "_") or "adapter" for folder in folders]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two of the adapters are called {twice[0]!r}; give their folders different names.")
    outer: Any = None
    for name, folder in zip(names, folders, strict=True):
        try:
            if outer is None:
                with _quiet():
                    outer = PeftModel.from_pretrained(hf, str(folder), adapter_name=name, is_trainable=False)
            else:
                outer.load_adapter(str(folder), adapter_name=name, is_trainable=False)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"the adapter in {str(folder)!r} could not be put on: {line}") from error
    inner = without_wrapper(outer)
    assert inner is not None
    outer.base_model.set_adapter(names)
    return inner.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what transformers says of a name that PEFT still asks for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def merged(hf: PreTrainedModel) -> PreTrainedModel:
    """A copy in which what adapters add is added to the weights; the model itself where it has none.

    Raises:
        ModelError: an adapter that cannot be merged.
    """
    if not active(hf):
        return hf
    copied = copy.deepcopy(hf)
    modules: list[tuple[str, Any]] = list(copied.named_modules())
    for name, module in modules:
        if "_disable_adapters" not in module.__dict__ or not hasattr(module, "get_base_layer"):
            continue
        try:
            module.merge()
        except (AttributeError, NotImplementedError, ValueError) as error:
            raise ModelError(
                f"the adapter on {name!r} cannot be merged into its weights ({error}). Give a model that "
                "holds the change in its own weights."
            ) from error
        parent, _, own = name.rpartition(".")
        setattr(copied.get_submodule(parent), own, module.get_base_layer())
    if hasattr(copied, "peft_config"):
        del copied.peft_config  # else PEFT takes a later adapter for a second one
    return copied.eval().requires_grad_(False)


def matrices(architecture: Architecture) -> list[str]:
    """The names, inside a block, of the matrices that an adapter can be put on.

    Raises:
        ModelError: there are none, or the model has an adapter already.
    """
    if on := active(architecture.hf):
        raise ModelError(
            f"an adapter ({', '.join(on)}) is on the model already, and a second one would be trained on top "
            "of it. Load the base without --adapter, or a merged model."
        )
    found = list(dict.fromkeys(name.rpartition(".")[2] for name in linear_modules(architecture)))
    if not found:
        raise ModelError("no block of this model has matrices that an adapter could be put on.")
    return found


def low_rank(
    hf: PreTrainedModel,
    *,
    layers: Sequence[int],
    modules: Sequence[str],
    rank: int,
    seed: int,
    base: str | None = None,
) -> tuple[Any, PreTrainedModel]:
    """Put an untrained low-rank adapter (LoRA) on a copy of a model, for training.

    Args:
        hf: the model; it stays as it is.
        layers: the blocks whose modules are adapted.
        modules: their names inside a block, such as ``down_proj``.
        rank: of the change of each matrix.
        seed: of the first values.
        base: what the adapter's folder says it belongs to, where that is not the model's own folder.

    Returns:
        The ``PeftModel``, whose ``save_pretrained`` writes the adapter alone, and the model inside.

    Raises:
        ModelError: PEFT is not installed.
    """
    if find_spec("peft") is None:
        raise ModelError("teaching a model needs the package peft: pip install peft.")
    from peft import LoraConfig, get_peft_model

    given = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(modules), layers_to_transform=list(layers)
    )
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        outer: Any = get_peft_model(copy.deepcopy(hf), given)
    inner = without_wrapper(outer)
    assert inner is not None
    if base is not None:
        outer.peft_config[outer.active_adapter].base_model_name_or_path = base
    return outer, inner
