"""Read a checkpoint with transformers, and refuse one whose tensors are not all there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from interp.errors import ConfigError, ModelError, out_of_memory

__all__ = ["checkpoint", "first_line", "placement", "reason", "silent", "unreachable"]


def placement(
    source: Any, weights: str, device: Any, device_map: Any, attn_implementation: str | None
) -> dict[str, Any]:
    """The further arguments with which transformers loads a checkpoint.

    Raises:
        ConfigError: they go with a checkpoint that is loaded by name, a device map without a device.
        ModelError: accelerate is not installed.
    """
    found = {"device_map": device_map, "attn_implementation": attn_implementation}
    found = {name: value for name, value in found.items() if value is not None}
    if found and isinstance(source, PreTrainedModel):
        raise ConfigError(
            f"{next(iter(found))}= goes with a model loaded by name; a loaded model stays where and as it is."
        )
    if "device_map" not in found:
        return found
    if device != "auto":
        raise ConfigError(f"device {device!r} and a device_map were asked; give one of them.")
    if weights == "random":
        raise ConfigError("device_map places the weights of a checkpoint, and weights='random' reads none.")
    if find_spec("accelerate") is None:
        raise ModelError("device_map= needs the package accelerate: pip install accelerate.")
    return found


def checkpoint(
    maker: Any, origin: str, name: str, dtype: Any, given: dict[str, Any], warnings: list[str]
) -> Any:
    """Load what a folder or the hub holds, and refuse one whose tensors are not all there.

    Raises:
        ModelError: it cannot be read, or lacks tensors of the model, which would be filled with random ones.
    """
    try:
        with silent():
            found: Any = maker.from_pretrained(origin, dtype=dtype, output_loading_info=True, **given)
            hf, info = found
    except Exception as error:  # a broken file fails in many ways, each with an error class of its own
        if out_of_memory(error):
            raise
        raise ModelError(f"{name!r} could not be loaded: {reason(error)}") from error
    missing, unexpected = (sorted(map(str, info[key])) for key in ("missing_keys", "unexpected_keys"))
    if missing:
        raise ModelError(_incomplete(name, missing, unexpected))
    if unexpected:
        warnings.append(
            f"the checkpoint holds {_count(unexpected)} that this model does not have, left out: "
            f"{_some(unexpected)}."
        )
    return hf


def unreachable(origin: str, revision: str | None) -> Exception | None:
    """Why the hub cannot be asked for a model that its cache does not hold; None where it answers.

    It is asked once: transformers asks six times, with pauses, before it says so.

    Args:
        origin: a name on the hub.
        revision: branch, tag or commit.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if isinstance(try_to_load_from_cache(origin, "config.json", revision=revision), str):
            return None
        get_hf_file_metadata(hf_hub_url(origin, "config.json", revision=revision))
    except (HfHubHTTPError, HFValidationError):  # an answer, or no name that is asked for
        return None
    except Exception as error:  # no network, no such host, a time-out: each with a class of its own
        return error
    return None


_WRAPPED = {
    "_orig_mod.": "it was saved through torch.compile: save model._orig_mod",
    "module.": "it was saved through DataParallel or DDP: save model.module",
    "base_model.model.": "it was saved through PEFT: save model.merge_and_unload()",
}
"""What saving through a wrapper puts before every name, and what to save instead."""


def _incomplete(name: str, missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Why a checkpoint cannot be used, and what is likely wrong with it."""
    text = (
        f"{name!r} lacks {_count(missing)} of the model, which would be filled with random numbers: "
        f"{_some(missing)}."
    )
    prefix = next((key[: -len(one)] for one in missing for key in unexpected if key.endswith(f".{one}")), "")
    if prefix:
        why = _WRAPPED.get(prefix, "save the model itself, or rename its tensors")
        return f"{text} Its own names begin with {prefix!r}; {why} with save_pretrained."
    if any(".base_layer." in key or ".lora_" in key for key in unexpected):
        return f"{text} It holds an adapter's names; save model.merge_and_unload() with save_pretrained."
    if unexpected:
        return f"{text} It holds others instead: {_some(unexpected)}. Is config.json that of these weights?"
    if all("lm_head" in one or "embed_out" in one for one in missing):
        return (
            f"{text} If the head shares its weights with the embedding, set tie_word_embeddings in "
            "config.json; a model that only embeds texts has no head and cannot be used."
        )
    return f"{text} Save or download it again, whole."


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) != 1 else ''}"


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def reason(error: Exception) -> str:
    """The first line of an error; its class where the line alone would say little."""
    line = first_line(error)
    if isinstance(error, OSError | ValueError | RuntimeError | ImportError):
        return line
    if type(error).__name__ == "UnpicklingError":
        return (
            "its weights are a pickle that holds more than tensors, which is not opened because it could run "
            "code. Convert it to safetensors where you trust it."
        )
    return f"{type(error).__name__}: {line}"


@contextmanager
def silent() -> Iterator[None]:
    """Keep transformers from drawing and reporting inside the block, and restore the user's choice after it.

    Its report on tensors that do not fit is said by our own errors and warnings.
    """
    shown, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    try:
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
