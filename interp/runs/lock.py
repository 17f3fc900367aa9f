"""One writer per folder: a lock file with process id, host and time."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interp.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows has no flock: there the file's mere existence is the lock
    fcntl = None

__all__ = ["LOCK", "Lock"]

LOCK = ".lock"


class Lock:
    """A folder held for writing.

    The file says who holds it; what holds is the system's own lock (``flock``), which ends with the process.
    So a file left by a process that was killed is taken over, and a process id that has been given to
    another program misleads nobody.
    """

    def __init__(self, path: Path, descriptor: int, made: tuple[Path, ...]) -> None:
        """Keep an already taken lock; use :meth:`acquire`."""
        self.path, self._descriptor, self._made = path, descriptor, made

    @classmethod
    def acquire(cls, folder: Path) -> Lock:
        """Make the folder where needed and lock it.

        Raises:
            ConfigError: when another process is writing there, or the place cannot be written.
        """
        made = tuple(p for p in (folder, *folder.parents) if not p.exists())
        try:
            descriptor = _open_locked(folder)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _card())
        except OSError as error:
            remove_empty(made)
            raise ConfigError(
                f"--out {str(folder)!r} cannot be written: {error.strerror}. Choose a folder you may "
                f"write to."
            ) from error
        return cls(folder / LOCK, descriptor, made)

    def release(self) -> None:
        """Remove the lock file, and the folders made for it that are still empty."""
        if self._descriptor < 0:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1
        remove_empty(self._made)


NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""A lock that is a link would overwrite what it points to."""


def remove_empty(folders: tuple[Path, ...]) -> None:
    """Remove those of the folders (deepest first) that exist and are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def now() -> str:
    """The time as text: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _card() -> bytes:
    return json.dumps({"pid": os.getpid(), "host": platform.node(), "time": now()}).encode()


def _open_locked(folder: Path) -> int:
    """Open and lock the file; try again when its holder removed it between our opening and our locking it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | NO_LINK, 0o644)
        except FileNotFoundError:  # the folder was removed by a run that ended in this moment
            continue
        try:
            _lock(descriptor, folder)
            if _same_file(descriptor, folder / LOCK):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    content = os.read(descriptor, 1000)
    holder = _read_card(content)
    if content.strip() and "pid" not in holder:
        raise ConfigError(
            f"--out {str(folder)!r} holds a file {LOCK!r} that is no lock of this toolkit, so it is left "
            "alone. Choose another folder."
        )
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif holder:
            raise BlockingIOError
    except BlockingIOError:
        who = (
            f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('time', '?')}"
        )
        raise ConfigError(
            f"--out {str(folder)!r} is being written by {who}. Wait for it, or choose another folder."
        ) from None
    os.lseek(descriptor, 0, os.SEEK_SET)


def _read_card(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
