"""A sign of life at a terminal: what is being done and for how long, wherever nothing else is being said."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from interp.report.escape import one_line

__all__ = ["Pulse"]

FIRST = 0.5
"""Seconds of silence after which the first line comes."""
NEXT = 2.0
"""Seconds of silence after which it comes again, once something was said."""
STEP = 0.2
ERASE = "\r\x1b[K"
WIDE = 12
"""Letters of the bar."""


class _Stream:
    """A stream to the terminal that takes the line of the pulse away before anything else is written."""

    def __init__(self, stream: Any, pulse: Pulse) -> None:
        self._stream, self._pulse = stream, pulse

    def write(self, text: str) -> int:
        return self._pulse.passed(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Pulse:
    """The line, drawn by a thread; it leaves bars, half lines and everything that is piped alone.

    Args:
        label: what is being done.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._lock, self._end = threading.RLock(), threading.Event()
        self._started = self._last = time.monotonic()
        self._shown = self._said = self._open = False
        self._stream: Any = None

    @contextmanager
    def beating(self) -> Iterator[Pulse]:
        """Beat for the length of a block, where stderr is a terminal."""
        before = sys.stdout, sys.stderr
        if not before[1].isatty():
            yield self
            return
        self._stream = before[1]
        ours = [_Stream(one, self) if one.isatty() else one for one in before]
        sys.stdout, sys.stderr = ours  # type: ignore[assignment]
        thread = threading.Thread(target=self._beat, name="interp-pulse", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            sys.stdout, sys.stderr = before

    def phase(self, label: str, *, now: bool = False) -> None:
        """Say what is being done from here on.

        Args:
            label: in a few words.
            now: draw it at once: what follows may keep the thread from its turn, as loading a library does.
        """
        self.label, self._started = label, time.monotonic()
        if now and self._stream is not None and not self._open and not self._end.is_set():
            self._draw()

    def stop(self) -> None:
        """Beat no more, and take the line away."""
        self._end.set()
        with self._lock:
            self._erase()

    def passed(self, stream: Any, text: str) -> int:
        """Write what somebody else says.

        Args:
            stream: where to.
            text: what.
        """
        with self._lock:
            self._erase()
            self._last, self._said = time.monotonic(), True
            if text:
                self._open = not text.endswith(("\n", "\r"))
            return stream.write(text)

    def _erase(self) -> None:
        if self._shown:
            self._shown = False
            self._stream.write(ERASE)
            self._stream.flush()

    def _beat(self) -> None:
        while not self._end.wait(STEP):
            quiet = time.monotonic() - self._last
            if not self._open and quiet >= (NEXT if self._said else FIRST):
                self._draw()

    def _draw(self) -> None:
        seconds = time.monotonic() - self._started
        at = int(seconds / STEP) % (2 * WIDE - 4)
        at = min(at, 2 * WIDE - 4 - at)
        bar = f"[{' ' * at}=={' ' * (WIDE - 2 - at)}]"
        columns = min(80, shutil.get_terminal_size().columns) - 1
        with self._lock:
            if not self._end.is_set():
                line = f"{bar} {one_line(self.label)}, {seconds:.0f} s"
                self._stream.write(f"{ERASE}{line[:columns]}\r")
                self._stream.flush()
                self._shown = True
