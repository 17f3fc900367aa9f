"""Control vectors in GGUF files, as llama.cpp and repeng read and write them.

The file's architecture is ``controlvector``; each tensor ``direction.N`` is a float32 vector that llama.cpp
adds, times a strength, to what block N (counted from 0) gives, at every position: our ``resid_post.N``. It
refuses ``direction.0``, so the first block cannot be steered by such a file. Read in llama.cpp,
common/common.cpp and src/llama-adapter.cpp; ``controlvector.model_hint`` and ``controlvector.layer_count``
are written and not used there.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.errors import ArtifactError, ConfigError, ModelError, SiteError
from interp.models.loading import ModelLike, as_model
from interp.sites import Site
from interp.steering.vector import Origin, Vector, checked_dose

__all__ = ["read_control_vector", "write_control_vector"]

KIND, PREFIX = "controlvector", "direction."
HINT, COUNT, FINGERPRINT = (f"{KIND}.{name}" for name in ("model_hint", "layer_count", "fingerprint"))


def write_control_vector(vector: Vector, path: str | Path, *, dose: int | float = 1.0) -> Path:
    """Write a vector as a GGUF file that llama.cpp takes (``--control-vector-scaled FILE 1.0``).

    Args:
        vector: at ``resid_post`` of any blocks but the first.
        path: of the file.
        dose: what strength 1 of the file adds.

    Raises:
        SiteError: a site that such a file has no place for.
        ConfigError: dose 0 or no number; the place cannot be written.
        ModelError: the package gguf is missing.
    """
    amount = checked_dose(dose)
    if amount == 0:
        raise ConfigError("dose 0 asked, and a file of zeros steers nothing; give the dose of strength 1.")
    for site in map(Site.parse, vector.sites):
        if site.kind != "resid_post" or not site.layer:
            raise SiteError(
                f"a control vector file has no place for '{site}': llama.cpp adds to the output of blocks 1 "
                "and later. Fit the vector at resid_post.1 or later."
            )
    path, gguf = Path(path), _gguf()
    writer = gguf.GGUFWriter(None, KIND)
    mine = vector.origin.model
    writer.add_string(HINT, str(mine.get("type", mine.get("hint", ""))))
    writer.add_uint32(COUNT, len(vector.sites))
    writer.add_string("general.name", vector.name)
    writer.add_string(
        "general.description", f"{vector.origin.method}; {vector.dose_words()}; strength 1 is dose {amount:g}"
    )
    writer.add_string(FINGERPRINT, str(mine.get("fingerprint", "")))
    for site, direction in vector.directions.items():
        layer = Site.parse(site).layer
        writer.add_tensor(f"{PREFIX}{layer}", (amount * vector.units[site] * direction).float().numpy())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Choose another place.") from error
    finally:
        writer.close()
    return path


def read_control_vector(path: str | Path, model: ModelLike) -> Vector:
    """Read a GGUF control vector for a model; dose 1 is strength 1 of the file.

    Args:
        path: of the file.
        model: that it is meant for: of the file's width, and with all the blocks that it names. Another
            architecture is a warning of ``Vector.check``: the file has llama.cpp's name of it, which
            is "llama" of Mistral too.

    Raises:
        ArtifactError: no such file, no control vector, or tensors that llama.cpp would refuse.
        ModelError: it is of another width or depth.
    """
    model, path = as_model(model), Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; give a GGUF file of a control vector.")
    try:
        file = _gguf().GGUFReader(path)
    except (ValueError, OSError, IndexError) as error:
        raise ArtifactError(f"{path} is no readable GGUF file: {error}.") from error
    if (kind := _text(file, "general.architecture")) != KIND:
        raise ArtifactError(
            f"{path} holds {kind or 'no architecture'!r}, not a control vector ({KIND}). A model is loaded "
            "by interp.load."
        )
    tensors = _tensors(path, file.tensors)
    for layer, values in tensors.items():
        if len(values) != model.d_model or layer >= model.n_layers:
            raise ModelError(
                f"{path.name} has {PREFIX}{layer} of width {len(values)}; {model.name!r} has layers "
                f"0..{model.n_layers - 1} of width {model.d_model}. It was made for another model."
            )
    known: dict[str, Any] = {"d_model": model.d_model, "n_layers": model.n_layers}
    if hint := _text(file, HINT):
        known["hint"] = hint
    if fingerprint := _text(file, FINGERPRINT):
        known["fingerprint"] = fingerprint
    vectors = {f"resid_post.{layer}": torch.from_numpy(values) for layer, values in tensors.items()}
    origin = Origin("file", {"name": path.name, **known}, f"strength 1 of {path.name}")
    return Vector.of(_text(file, "general.name") or path.stem, vectors, origin)


def _tensors(path: Path, tensors: Any) -> Mapping[int, np.ndarray]:
    """Layer -> direction, checked as llama.cpp checks them; directions of zeros are left out."""
    found: dict[int, np.ndarray] = {}
    for one in tensors:
        number = one.name.removeprefix(PREFIX)
        plain = one.name.startswith(PREFIX) and number.isdecimal() and int(number) > 0
        if not plain or one.tensor_type.name != "F32" or len(one.shape) != 1:
            raise ArtifactError(
                f"{path} holds {one.name!r} ({one.tensor_type.name}, shape {list(map(int, one.shape))}); a "
                f"control vector has float32 vectors {PREFIX}1, {PREFIX}2, ... alone."
            )
        values = np.array(one.data, dtype=np.float32)
        found[int(number)] = found.get(int(number), 0.0) + values
    kept = {layer: values for layer, values in sorted(found.items()) if np.any(values)}
    if not kept:
        raise ArtifactError(f"{path} holds no direction that is not zero; it would steer nothing.")
    return kept


def _text(file: Any, key: str) -> str:
    field = file.get_field(key)
    return "" if field is None else str(field.contents())


def _gguf() -> Any:
    if find_spec("gguf") is None:
        raise ModelError("control vector files need the package gguf: pip install gguf.")
    return import_module("gguf")
