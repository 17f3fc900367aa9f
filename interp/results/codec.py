"""Results on disk: ``result.json`` by the type hints of the fields, arrays in a safetensors file beside it.

What a field may hold: text, numbers, None; tuples and mappings of what a field may hold; arrays and tensors;
frozen dataclasses; names with ``parse`` whose text says all of them (``head.5.3``); things with
``save(folder)`` and ``load(folder)`` (probes). A field with ``metadata=UNSAVED`` is left out, and has its
default when it is read. Without text, what has ``redacted()`` is written as what that gives, and the names in
a field ``groups``, which can be prompts, become numbers. A file names a schema of ``SCHEMAS``, never a
module: nothing in it is imported or run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from interp.errors import ArtifactError, DataError, InterpError
from interp.results.files import encode, write_atomically
from interp.results.schemas import SCHEMAS

__all__ = ["UNSAVED", "from_json", "read", "to_json", "write"]

UNSAVED = types.MappingProxyType({"saved": False})
"""``field(default=..., metadata=UNSAVED)``: what a result needs while it lives and never writes."""

FACTS, ARRAYS, OBJECTS, CHECKSUM = "result.json", "result.safetensors", "objects", "checksum"
SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write(result: Any, folder: Path, *, text: bool = True, kept: Mapping[str, object] | None = None) -> Path:
    """Write a result into a folder: arrays and objects first, the file that names them last.

    Args:
        result: what is written.
        folder: where to.
        text: False to leave out the prompts.
        kept: objects that are on disk already, by their path from the folder: these are named, not written.

    Raises:
        ConfigError: when the place cannot be written.
        DataError: for a value that no reader could restore, naming its place.
    """
    writer = _Writer(folder, text=text, kept=kept)
    content = writer.plain(result, type(result).__name__)
    arrays = b""
    if writer.arrays:
        from safetensors.torch import save

        arrays = save(writer.arrays)
        write_atomically(folder / ARRAYS, arrays)
    plain = json.loads(encode(content))
    write_atomically(folder / FACTS, encode({**plain, CHECKSUM: _checksum(plain, arrays)}))
    return folder


def _checksum(content: Mapping[str, Any], arrays: bytes) -> str:
    """The sha256 of both files of a result, in hexadecimal."""
    found = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    found.update(arrays)
    return found.hexdigest()


def read(folder: Path) -> Any:
    """Read what :func:`write` wrote.

    Raises:
        ArtifactError: nothing is there, it is damaged, or of a schema that this version does not know.
    """
    if not (folder / FACTS).is_file():
        inside = folder / "result"
        place = f"{inside.as_posix()!r}" if (inside / FACTS).is_file() else "what result.save(folder) wrote"
        raise ArtifactError(f"'{folder}' holds no result ({FACTS} is missing). Give {place}.")
    try:
        content = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        kind, arrays = _class_of(content), b""
        if (folder / ARRAYS).is_file():
            arrays = (folder / ARRAYS).read_bytes()
        wanted = content.pop(CHECKSUM, None)  # results of older versions have none
        if wanted is not None and wanted != _checksum(content, arrays):
            raise ArtifactError("its checksum does not match its content: a file was changed. Save it again.")
        tensors: dict[str, Any] = {}
        if arrays:
            from safetensors.torch import load

            tensors = load(arrays)
        return _Reader(folder, tensors).value(content, kind, type(content).__name__)
    except InterpError as error:
        raise ArtifactError(f"'{folder}': {error}") from error
    except Exception as error:  # a damaged file can fail in any way: whichever it is, it is the file's fault
        raise ArtifactError(
            f"'{folder}' holds no result saved by this toolkit ({type(error).__name__}: {error}). "
            "Save it again with result.save(folder)."
        ) from error


def to_json(value: Any) -> Any:
    """A value without arrays as JSON types, for :func:`from_json`.

    Raises:
        DataError: it holds arrays, or what no reader could restore.
    """
    writer = _Writer(None)
    content = writer.plain(value, type(value).__name__)
    if writer.arrays:
        raise DataError(f"{next(iter(writer.arrays))}: an array cannot be written as JSON.")
    return content


def from_json(content: Any, kind: Any) -> Any:
    """Read what :func:`to_json` gave.

    Raises:
        ArtifactError: it is of something else.
    """
    try:
        return _Reader(Path(), {}).value(content, kind, kind.__name__)
    except Exception as error:  # a damaged file can fail in any way
        raise ArtifactError(f"this is no {kind.__name__} ({type(error).__name__}: {error}).") from error


def _class_of(content: Any) -> type:
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema not in SCHEMAS:
        kind = str(schema).partition("/")[0]
        if known := [one for one in SCHEMAS if one.partition("/")[0] == kind]:
            raise ArtifactError(
                f"it is of schema {schema!r}, and this version of interp reads {known[0]!r}. Make it again, "
                "or read it with the version that wrote it."
            )
        raise ArtifactError(f"schema {schema!r} is not known here; known: {', '.join(SCHEMAS) or 'none'}.")
    module, _, name = SCHEMAS[schema].partition(":")
    return getattr(import_module(module), name)


class _Writer:
    def __init__(
        self, folder: Path | None, *, text: bool = True, kept: Mapping[str, object] | None = None
    ) -> None:
        self.folder, self.text, self.arrays, self.objects = folder, text, {}, 0
        self.kept = {id(one): place for place, one in (kept or {}).items()}
        self.groups: dict[str, str] = {}

    def plain(self, value: Any, place: str) -> Any:
        if isinstance(value, np.generic):
            return self.plain(value.item(), place)
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if _is_array(value):
            return self._array(value, place)
        if (text := _text(value)) is not None:
            return text
        if dataclasses.is_dataclass(value):
            return self._dataclass(value, place)
        if isinstance(value, Mapping):
            return {_key(key, place): self.plain(one, f"{place}/{key}") for key, one in value.items()}
        if isinstance(value, Sequence | set | frozenset):
            ordered = sorted(value, key=str) if isinstance(value, set | frozenset) else value
            return [self.plain(one, f"{place}/{at}") for at, one in enumerate(ordered)]
        if isinstance(value, Path):
            return value.as_posix()
        return self._object(value, place)

    def _array(self, value: Any, place: str) -> dict[str, str]:
        import torch

        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
            raise DataError(f"{place}: an array of {value.dtype} cannot be written.")
        self.arrays[place] = torch.as_tensor(value).detach().cpu().clone().contiguous()
        return {"array": place}

    def _dataclass(self, value: Any, place: str) -> dict[str, Any]:
        if not self.text and hasattr(value, "redacted"):
            value = value.redacted()
        if hasattr(value, "saved"):
            value = value.saved()  # a number, say, in the place of the function that gave it
        schema = {"schema": value.schema} if isinstance(getattr(value, "schema", None), str) else {}
        fields = [one for one in dataclasses.fields(value) if one.init and one.metadata.get("saved", True)]
        return schema | {
            one.name: self.plain(self._field(value, one.name), f"{place}/{one.name}") for one in fields
        }

    def _field(self, value: Any, name: str) -> Any:
        found = getattr(value, name)
        if self.text or name != "groups" or not isinstance(found, tuple):
            return found
        return [self.groups.setdefault(one, f"group {len(self.groups) + 1}") for one in found]

    def _object(self, value: Any, place: str) -> dict[str, int | str]:
        if id(value) in self.kept:
            return {"object": self.kept[id(value)]}
        if self.folder is None or not hasattr(value, "save") or not hasattr(type(value), "load"):
            raise DataError(f"{place}: a {type(value).__name__} cannot be written.")
        number, self.objects = self.objects, self.objects + 1
        value.save(self.folder / OBJECTS / str(number))
        return {"object": number}


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "numpy"))


def _text(value: Any) -> str | None:
    """The text of a name such as ``head.5.3``; None where there is no text that says all of the value."""
    if not hasattr(value, "parse"):
        return None
    try:
        return str(value) if type(value).parse(str(value)) == value else None
    except (KeyError, ValueError, TypeError, InterpError):
        return None


def _key(key: Any, place: str) -> str:
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return str(key)
    text = _text(key)
    if text is None:
        raise DataError(f"{place}: {key!r} cannot be the key of a mapping that is written.")
    return text


class _Reader:
    def __init__(self, folder: Path, arrays: Mapping[str, Any]) -> None:
        self.folder, self.arrays = folder, arrays

    def value(self, value: Any, hint: Any, place: str) -> Any:
        hint = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self._first(value, inner, place)
        if origin is typing.Literal:
            return _checked(value, value in inner, place, hint)
        if _array_hint(hint):
            tensor = self.arrays[value["array"]]
            return tensor.numpy() if _array_hint(hint) is np.ndarray else tensor
        if origin is tuple or origin is list or origin is frozenset:
            return origin(self._items(value, inner, place))
        if isinstance(origin, type) and issubclass(origin, Mapping):
            each = {key: self.value(one, inner[1], f"{place}/{key}") for key, one in value.items()}
            return {_unkey(key, inner[0]): one for key, one in each.items()}
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return tuple(self._items(value, (inner[0], ...), place))
        if origin is not None:
            raise TypeError(f"{place}: {hint} cannot be read")
        return self._single(value, hint, place)

    def _single(self, value: Any, hint: Any, place: str) -> Any:
        if hint is Any or hint is object:
            return value
        if hint in (None, type(None)):
            return _checked(value, value is None, place, hint)
        if hint is float:
            number = isinstance(value, float | int) and not isinstance(value, bool)
            return float(SPECIAL[value] if isinstance(value, str) else _checked(value, number, place, hint))
        if hint in (str, int, bool):
            return _checked(value, type(value) is hint, place, hint)
        if hint is Path:
            return Path(value)
        if isinstance(value, str) and hasattr(hint, "parse"):
            return hint.parse(value)
        if isinstance(value, dict) and isinstance(value.get("object"), int):
            return hint.load(self.folder / OBJECTS / str(value["object"]))
        if isinstance(value, dict) and isinstance(value.get("object"), str):
            return hint.load(self._kept(value["object"], place))
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            return self._dataclass(value, hint, place)
        raise TypeError(f"{place}: {value!r} is no {hint}")

    def _kept(self, name: str, place: str) -> Path:
        """Where a run keeps an object of its result; a file beyond the run's folder is not followed."""
        found, run = self.folder / name, self.folder.resolve().parent
        if not found.resolve().is_relative_to(run):
            raise ArtifactError(f"{place} names {name!r}, which is outside of the run's folder.")
        if not found.exists():
            raise ArtifactError(
                f"{place} is kept in {name}, which is not there. Keep the folder of the run whole, or save "
                "the result by itself: interp.results.load(RUN/result).save(FOLDER)."
            )
        return found

    def _dataclass(self, value: dict[str, Any], hint: Any, place: str) -> Any:
        content = {name: one for name, one in value.items() if name != "schema"}
        if "schema" in value:
            kind = _class_of(value)
            if not issubclass(kind, hint):
                raise TypeError(f"{place}: a {kind.__name__} is no {hint.__name__}")
            hint = kind
        hints = typing.get_type_hints(hint)
        unknown = set(content) - {one.name for one in dataclasses.fields(hint) if one.init}
        if unknown:
            raise TypeError(f"{place}: {hint.__name__} has no field {sorted(unknown)[0]!r}")
        return hint(
            **{name: self.value(one, hints[name], f"{place}/{name}") for name, one in content.items()}
        )

    def _items(self, value: Any, inner: tuple[Any, ...], place: str) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError(f"{place}: {value!r} is no list")
        each = [inner[0]] * len(value) if inner[1:] in ((), (...,)) else list(inner)
        return [
            self.value(one, kind, f"{place}/{at}")
            for at, (one, kind) in enumerate(zip(value, each, strict=True))
        ]

    def _first(self, value: Any, hints: Sequence[Any], place: str) -> Any:
        """Read by the first arm of a union that fits."""
        if value is None and type(None) in hints:
            return None
        for hint in sorted(hints, key=lambda hint: hint is not type(value)):  # 3 is an int before a float
            try:
                return self.value(value, hint, place)
            except (TypeError, KeyError, ValueError, AttributeError, InterpError):
                continue
        raise TypeError(f"{place}: {str(value)[:80]!r} fits none of {hints}")


def _checked(value: Any, fits: bool, place: str, hint: Any) -> Any:
    if not fits:
        raise TypeError(f"{place}: {value!r} is no {hint}")
    return value


def _array_hint(hint: Any) -> Any:
    """``np.ndarray`` or the tensor class behind a hint, or None."""
    kind = getattr(hint, "array_type", hint)  # jaxtyping's Float[Tensor, ...] keeps the class
    tensor = isinstance(kind, type) and (kind.__module__, kind.__name__) == ("torch", "Tensor")
    return kind if kind is np.ndarray or tensor else None


def _unkey(key: str, hint: Any) -> Any:
    if hint is int:
        return int(key)
    return hint.parse(key) if hasattr(hint, "parse") else key
