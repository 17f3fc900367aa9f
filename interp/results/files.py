"""JSON without NaN, atomic writes and escaped HTML. Nothing here needs torch, and pandas only for tables."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.addresses import Address, Place
from interp.errors import ArtifactError, ConfigError, DataError

if TYPE_CHECKING:
    import pandas

__all__ = [
    "encode",
    "flush_folder",
    "jsonable",
    "read_json",
    "table_html",
    "write_atomically",
    "write_json",
]


def jsonable(value: Any) -> tuple[Any, tuple[str, ...]]:
    """Turn a value into plain JSON types, and say what JSON could not hold.

    NumPy scalars, arrays and tensors become numbers and lists, tuples and sets become lists, paths and
    dataclasses become text and dictionaries. NaN and infinities become ``None``.

    Args:
        value: anything built of those types.

    Returns:
        The plain value, and one warning per number that had to become ``None``, each naming its place.

    Raises:
        DataError: for an object of another type, naming its place.

    Example:
        >>> jsonable({"score": float("nan"), "layers": (1, 2)})
        ({'score': None, 'layers': [1, 2]}, ('score: nan is not a JSON number, written as null',))
    """
    warnings: list[str] = []
    return _plain(value, "", warnings), tuple(warnings)


def _plain(value: Any, place: str, warnings: list[str]) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return _unsubclassed(value)
    if isinstance(value, float):
        return _number(float(value), place, warnings)
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{place}.{k}".lstrip("."), warnings) for k, v in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        ordered = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(item, f"{place}[{i}]", warnings) for i, item in enumerate(ordered)]
    return _plain(_opened(value, place), place, warnings)


def _unsubclassed(value: Any) -> Any:
    for kind in (bool, int, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _number(value: float, place: str, warnings: list[str]) -> float | None:
    if math.isfinite(value):
        return value
    warnings.append(f"{place or 'value'}: {value} is not a JSON number, written as null")
    return None


def _opened(value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return value.as_posix()
    listed = getattr(value, "tolist", None)  # NumPy scalars and arrays, torch tensors
    if callable(listed):
        return listed()
    raise DataError(
        f"{place or 'value'}: a {type(value).__name__} cannot be written as JSON; "
        "use numbers, text, lists, dictionaries, arrays or dataclasses."
    )


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file so that a reader sees the old bytes or the new ones, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name with
    ``os.replace``.

    Raises:
        ConfigError: when the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}. Choose a folder you may write to."
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(
                f"cannot write {path}: {error.strerror}. Free some space or choose another folder."
            ) from error
        raise
    flush_folder(path.parent)
    return path


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def flush_folder(folder: Path) -> None:
    """Flush a folder itself to the disk, so that a name in it survives a crash."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode(value: Any) -> bytes:
    """Turn a JSON-able value into the bytes this toolkit writes: indented, keys in the order given."""
    plain, _ = jsonable(value)
    return (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def write_json(content: Mapping[str, Any], path: str | Path) -> tuple[str, ...]:
    """Write a mapping as JSON, atomically.

    Numbers that JSON cannot hold are written as null, and listed under ``"warnings"`` in the file.

    Returns:
        Those warnings.
    """
    plain, warnings = jsonable(content)
    if warnings:
        plain = {**plain, "warnings": [*plain.get("warnings", []), *warnings]}
    write_atomically(Path(path), encode(plain))
    return warnings


def read_json(path: str | Place) -> dict[str, Any]:
    """Read what :func:`write_json` wrote.

    Raises:
        ArtifactError: when the file is missing, is not JSON, or does not hold an object.
    """
    path = Path(path) if isinstance(path, str) else path
    try:
        text = path.read().decode() if isinstance(path, Address) else path.read_text(encoding="utf-8")
        value = json.loads(text)
    except OSError as error:
        hint = "Is it a result saved by this toolkit?"
        if path.name != "run.json" and (path.parent / "run.json").is_file():
            hint = (
                "It is the folder of a run: its result is in the folder 'result', and the states of a "
                "capture are read by interp.store.ActivationStore."
            )
        raise ArtifactError(f"cannot read {path}: {error.strerror}. {hint}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is not valid JSON ({error}). Run the command that made it again."
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(
            f"{path} holds a {type(value).__name__}, not an object. Run the command that made it again."
        )
    return value


def table_html(table: pandas.DataFrame, *, caption: str = "", decimals: int = 3) -> str:
    """Write a table as escaped HTML, for ``_repr_html_``: text from data stays text."""
    from html import escape

    body = table.to_html(
        index=False, escape=True, border=0, na_rep="", float_format=f"{{:.{decimals}f}}".format
    )
    style = "margin:0;overflow-x:auto"  # in a narrow window the table scrolls, not the page
    return (
        f'<figure style="{style}">{body}<figcaption>{escape(caption)}</figcaption></figure>'
        if caption
        else body
    )
