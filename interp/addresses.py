"""Files at the addresses of fsspec (``s3://bucket/states``, ``memory://x``), named as pathlib names them.

What a store relies on, and what stands for it where there is neither a rename nor a lock of the system's:

- A record is written under another name and moved, so that it is there whole or not at all. Tensors are
  written in place: they count once the record that lists them is there, and that is written last.
- One writer: an object ``.lock`` that can only be made once. Who died leaves it behind; on the same machine
  it is taken over, from another one it has to be removed by hand.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from interp.errors import ArtifactError, ConfigError

__all__ = ["Address", "AddressLock", "Place", "place"]


@dataclass(frozen=True)
class Address:
    """A file or a folder somewhere.

    Attributes:
        system: an fsspec file system.
        path: within it.
    """

    system: Any
    path: str

    def __str__(self) -> str:
        """The address as it is typed."""
        return self.system.unstrip_protocol(self.path)

    def __truediv__(self, name: str) -> Address:
        """What is below this folder."""
        return Address(self.system, f"{self.path.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.path).stem

    @property
    def parent(self) -> Address:
        """The folder that holds it."""
        return Address(self.system, self.path.rpartition("/")[0])

    def with_suffix(self, suffix: str) -> Address:
        """The same with another suffix."""
        return self.parent / f"{self.stem}{suffix}"

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return bool(self.system.isfile(self.path))

    def size(self) -> int:
        """Bytes of the file."""
        return int(self.system.size(self.path))

    def read(self) -> bytes:
        """All bytes.

        Raises:
            ArtifactError: there is no such file, or it cannot be read.
        """
        try:
            return self.system.cat_file(self.path)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"cannot read {self}: {error or type(error).__name__}.") from error

    def write(self, content: bytes, *, whole: bool = True) -> Address:
        """Write a file.

        Args:
            content: its bytes.
            whole: a reader sees all of it or nothing.

        Raises:
            ConfigError: the place cannot be written.
        """
        first = self.parent / f".{self.name}.{os.getpid()}.tmp" if whole else self
        try:
            self.system.makedirs(self.parent.path, exist_ok=True)
            self.system.pipe_file(first.path, content)
            if whole:
                self.system.mv(first.path, self.path)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot write {self}: {error or type(error).__name__}. Choose a place you may write to."
            ) from error
        return self

    def replace(self, target: Address) -> None:
        """Move the file to another name."""
        self.system.makedirs(target.parent.path, exist_ok=True)
        self.system.mv(self.path, target.path)

    def unlink(self) -> None:
        """Remove the file, where it is there."""
        if self.is_file():
            self.system.rm_file(self.path)

    def remove(self) -> None:
        """Remove it with all that is below."""
        if self.system.exists(self.path):
            self.system.rm(self.path, recursive=True)

    def glob(self, pattern: str) -> Iterator[Address]:
        """The files below that match, as they are now."""
        self.system.invalidate_cache()
        return (Address(self.system, path) for path in sorted(self.system.glob(f"{self.path}/{pattern}")))


Place = Path | Address
"""Where files are: here, or at an address."""


def place(folder: str | Path | Address) -> Place:
    """A folder of this machine (``file://`` is one), or an address where there is ``://``.

    Raises:
        ConfigError: no file system of that name, or the package that it needs is not installed.
    """
    if isinstance(folder, Address):
        return folder
    if "://" not in str(folder):
        return Path(folder)
    if isinstance(folder, Path):
        raise ConfigError(f"{str(folder)!r} is a path; give an address as text.")
    if folder.startswith("file://"):
        return Path(unquote(urlsplit(folder).path))
    import fsspec.core

    try:
        system, path = fsspec.core.url_to_fs(folder)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{folder!r} cannot be used: {error}.") from None
    return Address(system, path.rstrip("/"))


class AddressLock:
    """An address held for writing, by an object that can only be made once."""

    def __init__(self, path: Address, card: bytes) -> None:
        """Keep an already taken lock; use :meth:`acquire`."""
        self._path, self._card = path, card

    @classmethod
    def acquire(cls, folder: Address) -> AddressLock:
        """Lock a folder.

        Raises:
            ConfigError: another process is writing there, or left its lock, or the place cannot be written.
        """
        path = folder / ".lock"
        moment = datetime.now(UTC).isoformat(timespec="microseconds")
        card = json.dumps({"pid": os.getpid(), "host": platform.node(), "time": moment}).encode()
        for _ in range(2):
            try:
                folder.system.makedirs(folder.path, exist_ok=True)
                folder.system.pipe_file(path.path, card, mode="create")
            except FileExistsError:
                _refuse_living(folder, path)
                path.unlink()
            except (OSError, ValueError) as error:
                why = error or type(error).__name__
                raise ConfigError(
                    f"cannot write {folder}: {why}. Choose a place you may write to."
                ) from error
            else:
                return cls(path, card)
        raise ConfigError(f"{folder} was taken by another process in this moment. Choose another place.")

    def release(self) -> None:
        """Remove the lock, if it is still ours."""
        if self._path.is_file() and self._path.read() == self._card:
            self._path.unlink()


def _refuse_living(folder: Address, path: Address) -> None:
    try:
        holder = json.loads(path.read())
    except (ArtifactError, ValueError):  # removed in this moment, or half written
        holder = {}
    if holder.get("host") == platform.node() and not _lives(int(holder.get("pid", 0))):
        return
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('time', '?')}"
    raise ConfigError(
        f"{folder} is being written by {who}. Wait for it; if it has ended without a word, remove {path}."
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
