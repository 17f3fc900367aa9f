"""One call of the command line: what it says and where, how it ends, and libraries kept quiet meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from interp.cli.options import Settings
from interp.cli.pulse import Pulse
from interp.errors import InterpError
from interp.report.escape import one_line

if TYPE_CHECKING:
    from interp.cli.sources import Resolved
    from interp.runs import RunFolder

__all__ = ["CHOSEN", "Outcome", "Session", "quiet"]

S = TypeVar("S", bound=Settings)
CHOSEN = "budget"
"""The origin of a setting that the budget chose."""
STATUS = {0: "ok", 7: "gate-failed", 130: "interrupted"}
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


@dataclass(frozen=True)
class Outcome:
    """What a command came to.

    Attributes:
        data: the result, JSON-able, for ``--json``.
        show: prints the result for people; called only without ``--json``.
        run: the run folder, if one was written.
        artifacts: files written, relative to the run folder.
        error: a failure that still leaves a result (a gate, a failed check).
    """

    data: Any
    show: Callable[[], None]
    run: Path | None = None
    artifacts: Sequence[str] = ()
    error: InterpError | None = None
    status: str = ""


@dataclass
class Session:
    """One call: its arguments, its settings, its warnings, and how loud it is.

    Attributes:
        arguments: as they were typed.
        kinds: gives the settings of every command by name.
        command: the command's name, once it is known.
        resolved: its settings, once they are known.
        run: the run folder that is being written.
        warnings: that were said.
        started: the clock at the start, in seconds.
        before: seconds that the main thread had worked at the start.
    """

    arguments: Sequence[str]
    kinds: Callable[[], Mapping[str, type[Settings]]] = dict
    command: str = ""
    resolved: Resolved | None = None
    run: RunFolder | None = None
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    before: float = field(default_factory=time.thread_time)

    def __post_init__(self) -> None:
        """Read how loud to be straight from the arguments, so that a wrong call is answered in its form."""
        before = (
            list(self.arguments)[: self.arguments.index("--")]
            if "--" in self.arguments
            else list(self.arguments)
        )
        self.pulse = Pulse("interp")
        self.as_json = "--json" in before
        self.quiet = bool({"-q", "--quiet"} & set(before))
        self.verbose = bool({"-v", "--verbose"} & set(before))

    @property
    def line(self) -> str:
        """The shell command that does the same again, as the run keeps it."""
        return self.resolved.command_line(kept=True) if self.resolved is not None else ""

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @property
    def worked(self) -> float:
        """Seconds that the main thread has worked since the start, and not waited."""
        return time.thread_time() - self.before

    @property
    def progress(self) -> bool:
        """Whether progress bars belong on stderr."""
        return not self.quiet and sys.stderr.isatty()

    def note(self, text: str) -> None:
        """Print on stderr what is going on."""
        if not self.quiet:
            click.echo(one_line(text), err=True)

    def say(self, text: str) -> None:
        """Print a line of the result on stdout."""
        click.echo(one_line(text))

    def warn(self, text: str, *, aloud: bool = True) -> None:
        """Print a warning once, on stderr, and put it into the envelope.

        Args:
            text: what.
            aloud: False where the result that is printed says it too.
        """
        if text not in self.warnings:
            self.warnings.append(text)
            if aloud:
                click.echo(f"warning: {one_line(text)}", err=True)
        if self.run is not None:
            self.run.log(text, level="warning")

    def settle(self, settings: S, **chosen: Any) -> S:
        """The settings with what the budget chose, here and in what the run says of itself."""
        settings = dataclasses.replace(settings, **chosen)
        if self.resolved is not None:
            origins = {**self.resolved.origins, **dict.fromkeys(chosen, CHOSEN)}
            self.resolved = dataclasses.replace(self.resolved, settings=settings, origins=origins)
            if self.run is not None:
                facts = {"configuration": self.resolved.configuration, "origins": origins}
                self.run.facts.update(facts)
        return settings

    def end(self, outcome: Outcome) -> None:
        """Print what a command came to, as tables or as an envelope."""
        if not self.as_json:
            outcome.show()
            return
        code = outcome.error.exit_code if outcome.error else 0
        status = outcome.status or STATUS.get(code, "error")
        self.envelope(status, outcome.data, run=outcome.run, artifacts=outcome.artifacts)

    def envelope(
        self, status: str, data: Any, *, run: Path | None = None, artifacts: Sequence[str] = ()
    ) -> None:
        """Print the one JSON object of this call on stdout."""
        from interp._version import __version__
        from interp.results import jsonable

        plain, nulls = jsonable(data)
        content = {
            "schema": "interp.envelope/1",
            "command": self.command,
            "version": __version__,
            "run": None if run is None else run.as_posix(),
            "status": status,
            "data": plain,
            "warnings": [*self.warnings, *nulls],
            "artifacts": list(artifacts),
            "timing": {"seconds": round(self.elapsed, 3)},
        }
        self._enveloped = True
        click.echo(json.dumps(content, indent=2, allow_nan=False))

    _enveloped = False

    def fail(self, message: str, code: int, *, kind: str, error: BaseException | None = None) -> int:
        """Print one line on stderr (and the envelope, where none was printed), and give the exit code."""
        if self.verbose and error is not None:
            click.echo("".join(traceback.format_exception(error)), err=True)
        click.echo(f"{kind}: {one_line(message)}", err=True)
        if self.as_json and not self._enveloped:
            problem = {"type": kind, "message": message, "exit_code": code}
            self.envelope(STATUS.get(code, "error"), {"error": problem})
        return code


class _ToSession(logging.Handler):
    """Pass our own log records on: warnings to the user, the rest with ``-v``."""

    def __init__(self, session: Session) -> None:
        super().__init__(logging.DEBUG)
        self.session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or keep it for the run's log."""
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.session.warn(message)
            return
        if self.session.run is not None:
            self.session.run.log(message, level=record.levelname.lower(), source=record.name)
        if self.session.verbose:
            self.session.note(message)


@contextlib.contextmanager
def quiet(session: Session, *, offline: bool = False) -> Iterator[None]:
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
