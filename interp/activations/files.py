"""Tensors and facts as files: a reader gets exactly what was written, or an error that names the file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from interp import results
from interp.addresses import Address, Place
from interp.errors import ArtifactError, ConfigError, counted
from interp.results.files import flush_folder

__all__ = ["check_file", "digest_of", "read_facts", "read_tensors", "write_facts", "write_tensors"]

AGAIN = "Capture again, or restore the file from a copy."


def write_tensors(path: Place, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a safetensors file: temporary name in the same folder, flushed to the disk, then renamed.

    At an address it is written in place: what lists it has to be written after it.

    Returns:
        ``{"sha256": ..., "bytes": ...}`` of the file.

    Raises:
        ConfigError: the place cannot be written.
    """
    if isinstance(path, Address):
        content = save(_plain(tensors))
        path.write(content, whole=False)
        return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}. Choose a folder you may write to."
        ) from error
    try:
        save_file(_plain(tensors), temporary)
        return _settle(Path(temporary), path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"cannot write {path}: {error}. Free some space or choose another folder."
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors without gradients, none of which shares memory with another."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != copy.nbytes:
            copy = copy.clone()
        seen.add(copy.untyped_storage().data_ptr())
        plain[name] = copy
    return plain


def _settle(temporary: Path, path: Path) -> dict[str, Any]:
    """Flush a finished temporary file to the disk and give it its name."""
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    digest = digest_of(temporary)
    temporary.chmod(0o644)
    temporary.replace(path)
    flush_folder(path.parent)
    return digest


def digest_of(path: Path) -> dict[str, Any]:
    """A file's sha256 (hexadecimal) and its size in bytes."""
    with path.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": path.stat().st_size}


def check_file(path: Place, digest: Mapping[str, Any]) -> None:
    """Compare a file with its recorded size and sha256.

    Raises:
        ArtifactError: it is missing or differs.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. {AGAIN}")
    size = path.size() if isinstance(path, Address) else path.stat().st_size
    if size != digest["bytes"]:
        raise ArtifactError(f"{path} has {counted(size, 'byte')}, {digest['bytes']:,} were written. {AGAIN}")
    found = (
        hashlib.sha256(path.read()).hexdigest() if isinstance(path, Address) else digest_of(path)["sha256"]
    )
    if found != digest["sha256"]:
        raise ArtifactError(f"{path} is corrupt: its sha256 is not the recorded one. {AGAIN}")


def read_tensors(path: Place, digest: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
    """Read some tensors of a file onto the CPU, after checking every byte of the file.

    Raises:
        ArtifactError: the file is missing, differs from its digest or lacks a tensor.
    """
    if isinstance(path, Address):
        return _fetched(path, digest, names)
    check_file(path, digest)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ArtifactError(f"{path} cannot be read ({error}). {AGAIN}") from error


def _fetched(path: Address, digest: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
    """The same from an address, whose bytes are fetched once."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. {AGAIN}")
    content = path.read()
    if hashlib.sha256(content).hexdigest() != digest["sha256"]:
        raise ArtifactError(f"{path} is corrupt: its sha256 is not the recorded one. {AGAIN}")
    try:
        found = load(content)
        return {name: found[name] for name in names}
    except (SafetensorError, KeyError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). {AGAIN}") from error


def write_facts(path: Place, facts: Mapping[str, Any]) -> None:
    """Write JSON with a checksum of its own content, atomically."""
    plain, _ = results.jsonable(facts)
    content = results.encode({**plain, "checksum": _checksum(plain)})
    if isinstance(path, Address):
        path.write(content)
    else:
        results.write_atomically(path, content)


def read_facts(path: Place, schema: str) -> dict[str, Any]:
    """Read what :func:`write_facts` wrote.

    Raises:
        ArtifactError: the file is missing, damaged, or follows another schema.
    """
    facts = results.read_json(path)
    if facts.get("schema") != schema:
        raise ArtifactError(
            f"{path} has schema {facts.get('schema')!r}; this version reads {schema!r}. {AGAIN}"
        )
    if facts.pop("checksum", None) != _checksum(facts):
        raise ArtifactError(f"{path} is corrupt: its checksum does not match its content. {AGAIN}")
    return facts


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
