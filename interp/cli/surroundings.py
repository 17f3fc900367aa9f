"""Keep other libraries' chatter out of the terminal, and hand our own warnings to the session.

Everything is put back when the command ends. It is done here and not in the library: a notebook's logging is
its owner's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.cli.session import Session

__all__ = ["surroundings"]

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
CHATTY = (
    "transformers",
    "huggingface_hub",
    "torch",
    "torch.utils._pytree",
    "torchao",
    "datasets",
    "matplotlib",
    "fontTools",
)
OURS = ("interp", "probes")


class _ToSession(logging.Handler):
    """Pass our own log records on: warnings to the user, the rest with ``-v``."""

    def __init__(self, session: Session) -> None:
        super().__init__(logging.DEBUG)
        self.session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Say a record, or keep it for the run's log."""
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.session.warn(message)
            return
        if self.session.run is not None:
            self.session.run.log(message, level=record.levelname.lower(), source=record.name)
        if self.session.verbose:
            self.session.note(message)


@contextlib.contextmanager
def surroundings(session: Session, *, offline: bool = False) -> Iterator[None]:
    """Quieten libraries, catch Python warnings, and listen to our own loggers, for the length of a block."""
    with (
        _environment({**QUIET, **(OFFLINE if offline else {})}),
        _levels(),
        _listening(session),
        _no_bars(),
        _python_warnings(session),
    ):
        yield


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Switch off the loading bars of transformers where it is imported; else the environment does it."""
    found = sys.modules.get("transformers.utils.logging")
    if found is None or not found.is_progress_bar_enabled():
        yield
        return
    found.disable_progress_bar()
    try:
        yield
    finally:
        found.enable_progress_bar()


@contextlib.contextmanager
def _levels() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in CHATTY}
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _listening(session: Session) -> Iterator[None]:
    handler = _ToSession(session)
    before = {name: logging.getLogger(name).level for name in OURS}
    for name in OURS:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _python_warnings(session: Session) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("default")

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: object = None,
            line: str | None = None,
        ) -> None:
            if session.verbose:
                session.note(f"{category.__name__}: {message} ({filename}:{lineno})")

        warnings.showwarning = show  # catch_warnings puts the old one back
        yield
