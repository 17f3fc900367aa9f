"""Saved codebooks: ``codebook.safetensors`` and ``codebook.json``, checked against each other."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from probes.vsa.codebook import Codebook
from probes.vsa.errors import CodebookError
from probes.vsa.projection import Projection
from probes.vsa.table import ALGEBRAS

__all__ = ["content", "load", "save"]

SCHEMA = "probes.codebook/1"
TENSORS, RECORD = "codebook.safetensors", "codebook.json"


def content(codebook: Codebook) -> npt.NDArray[Any]:
    """Give the vectors as they are stored: one bit per coordinate where they are bipolar, else float32."""
    real = codebook.algebra.as_real(codebook.vectors).float().cpu().numpy()
    return np.packbits(real < 0, axis=1) if codebook.bipolar else np.ascontiguousarray(real)


def save(codebook: Codebook, folder: Path) -> Path:
    """Write a codebook; the record, which names the fingerprint, is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"vectors": content(codebook)}
    if codebook.projection is not None:
        arrays["centre"] = codebook.projection.centre.cpu().numpy()
    save_file(arrays, folder / TENSORS)
    record = {
        "schema": SCHEMA,
        "algebra": codebook.algebra.name,
        "dimension": codebook.algebra.dimension,
        "seed": codebook.seed,
        "source": codebook.source,
        "fingerprint": codebook.fingerprint,
        "names": list(codebook.names),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def load(folder: Path) -> Codebook:
    """Read a codebook back, and refuse one whose vectors are not those that were saved."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        arrays = load_file(folder / TENSORS)
    except OSError as error:
        raise CodebookError(f"no codebook in {folder}: {error}. Give a folder that save() wrote.") from error
    except (ValueError, SafetensorError) as error:
        raise CodebookError(f"the codebook in {folder} cannot be read ({error}). Save it again.") from error
    try:
        found = _rebuilt(record, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CodebookError(f"{folder / RECORD} is no record of schema {SCHEMA} ({error}).") from error
    if found.fingerprint != record["fingerprint"]:
        raise CodebookError(
            f"the vectors in {folder} are not those that {RECORD} names: their fingerprint differs. Save "
            f"it again."
        )
    return found


def _rebuilt(record: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Codebook:
    algebra = ALGEBRAS[record["algebra"]](record["dimension"])
    stored = arrays["vectors"]
    if stored.dtype == np.uint8:
        bits = torch.from_numpy(np.unpackbits(stored, axis=1, count=algebra.width).astype(bool))
        vectors = bits if algebra.dtype == torch.bool else torch.where(bits, -1.0, 1.0)
    elif algebra.dtype == torch.complex64:
        real, imaginary = torch.from_numpy(stored).chunk(2, dim=1)
        vectors = torch.complex(real.contiguous(), imaginary.contiguous())
    else:
        vectors = torch.from_numpy(stored)
    centre = arrays.get("centre")
    projection = None if centre is None else Projection(torch.from_numpy(centre), record["seed"])
    return Codebook(algebra, tuple(record["names"]), vectors, record["seed"], record["source"], projection)
