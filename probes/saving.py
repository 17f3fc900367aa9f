"""Saved probes: a folder with ``probe.safetensors``, ``probe.json`` and ``README.md``. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.numpy import load as arrays_from_bytes
from safetensors.numpy import save as bytes_from_arrays

from probes.base import Probe
from probes.cards import ProbeCard, ProbeFileError, mismatches, readme
from probes.table import PROBES

__all__ = ["SCHEMA", "load", "read", "require", "save"]

SCHEMA = "probes.probe/1"
TENSORS, RECORD, CARD = "probe.safetensors", "probe.json", "README.md"

Kind = TypeVar("Kind", bound=Probe)
_log = logging.getLogger(__name__)


def save(probe: Probe, folder: Path, card: ProbeCard) -> Path:
    """Write a fitted probe; the record that names the other files' contents is written last."""
    arrays, facts = probe.arrays(), probe.facts()
    tensors = bytes_from_arrays(arrays)
    record = {
        "schema": SCHEMA,
        "kind": probe.kind,
        "parameters": probe.parameters(),
        "learned": facts,
        "width": probe.width,
        "sha256": hashlib.sha256(tensors).hexdigest(),
        "card": card.to_dict(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    words = readme(probe.kind, PROBES[probe.kind].description, facts.get("classes", []), probe.width, card)
    folder.mkdir(parents=True, exist_ok=True)
    probe.save_parts(folder)
    for name, content in ((TENSORS, tensors), (CARD, words.encode()), (RECORD, text.encode())):
        _write(folder / name, content)
    probe.card_ = card
    return folder


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(
    folder: str | Path,
    *,
    fingerprint: str | None = None,
    site: str | None = None,
    scheme: str | None = None,
    width: int | None = None,
    codebook: str | None = None,
    allow_mismatch: bool = False,
) -> Probe:
    """Read a saved probe, checked against what it will be used on.

    Args:
        folder: what :meth:`Probe.save` wrote.
        fingerprint: sha256 of the weights of the model it will read (``model.fingerprint``).
        site: where the activations come from, for example ``"resid_post.20"``.
        scheme: the quantization they were captured under, ``"none"`` for full precision.
        width: their number of columns.
        codebook: fingerprint of the codebook that a Hyperdimensional Probe must have been trained on.
        allow_mismatch: load all the same, and log what differs.

    Returns:
        The fitted probe; its card is ``probe.card_``.

    Raises:
        ProbeFileError: the files are missing or corrupt, or the probe was made for something else.
    """
    folder = Path(folder)
    record = read(folder)
    card = ProbeCard.from_dict(record["card"])
    found = {
        "fingerprint": card.fingerprint,
        "site": card.site,
        "scheme": card.scheme,
        "width": record["width"],
        "codebook": record["learned"].get("codebook", "none"),
    }
    asked = {"fingerprint": fingerprint, "site": site, "scheme": scheme, "width": width, "codebook": codebook}
    differences = "; ".join(mismatches(found, asked))
    if differences and not allow_mismatch:
        raise ProbeFileError(
            f"the probe in {folder} was made for something else: {differences}. "
            "Train one here, or pass allow_mismatch=True if you know why."
        )
    if differences:
        _log.warning("the probe in %s was made for something else: %s", folder, differences)
    probe = _rebuilt(record, _arrays(folder, record), folder)
    try:
        probe.load_parts(folder, record["learned"])
    except ValueError as error:
        raise ProbeFileError(str(error)) from error
    probe.card_ = card
    return probe


def _rebuilt(record: dict[str, Any], arrays: dict[str, Any], folder: Path) -> Probe:
    parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in record["parameters"].items()}
    try:
        return PROBES[record["kind"]].load()(**parameters).restore(arrays, record["learned"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeFileError(
            f"{folder / RECORD} does not fit a {record['kind']} probe here ({error}). Save it again."
        ) from error


def read(folder: Path) -> dict[str, Any]:
    """Read and check ``probe.json``.

    Raises:
        ProbeFileError: it is missing, no JSON, of another schema, or of a kind of probe this version does not
            know.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProbeFileError(
            f"no probe in {folder}: {error.strerror} ({RECORD}). Give a folder that save() wrote."
        ) from error
    except ValueError as error:
        raise ProbeFileError(f"{path} is not valid JSON ({error}). Save the probe again.") from error
    keys = {"kind", "parameters", "learned", "width", "sha256", "card"}
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not keys <= set(record):
        raise ProbeFileError(f"{path} is no record of schema {SCHEMA}. Save the probe with this version.")
    if record["kind"] not in PROBES:
        known = ", ".join(PROBES)
        raise ProbeFileError(f"{path} holds a {record['kind']!r} probe; this version knows: {known}.")
    return record


def _arrays(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    path = folder / TENSORS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProbeFileError(f"cannot read {path}: {error.strerror}. Save the probe again.") from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise ProbeFileError(
            f"{path} is not the file that {RECORD} names: its sha256 differs. Save it again."
        )
    try:
        return arrays_from_bytes(content)
    except SafetensorError as error:
        raise ProbeFileError(f"{path} is no safetensors file ({error}). Save the probe again.") from error


def require(probe: Probe, kind: type[Kind], folder: Path) -> Kind:
    """Give the probe as the class asked for.

    Raises:
        ProbeFileError: it is of another class.
    """
    if isinstance(probe, kind):
        return probe
    raise ProbeFileError(
        f"{folder} holds a {type(probe).__name__}, asked for a {kind.__name__}; "
        f"use {type(probe).__name__}.load, or probes.load for any kind."
    )
