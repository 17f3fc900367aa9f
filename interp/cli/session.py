"""One call of the command line: what it says, where it says it, and how it ends."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.cli.surroundings import surroundings
from interp.errors import ConfigError, InterpError
from interp.report.text import one_line

if TYPE_CHECKING:
    from interp.config import Resolved
    from interp.runs import RunFolder

__all__ = ["Outcome", "Session"]

STATUS = {0: "ok", 7: "gate-failed", 130: "interrupted"}


@dataclass(frozen=True)
class Outcome:
    """Hold what a command came to.

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
    """Hold one call: its arguments, its warnings, and how loud it is."""

    arguments: Sequence[str]
    command: str = ""
    resolved: Resolved | None = None
    run: RunFolder | None = None
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        """Read how loud to be straight from the arguments, so that a wrong call is answered in its form."""
        before = (
            list(self.arguments)[: self.arguments.index("--")]
            if "--" in self.arguments
            else list(self.arguments)
        )
        self.as_json = "--json" in before
        self.quiet = bool({"-q", "--quiet"} & set(before))
        self.verbose = bool({"-v", "--verbose"} & set(before))

    @property
    def line(self) -> str:
        """Write the shell command that does the same again."""
        return self.resolved.command_line() if self.resolved is not None else ""

    @property
    def progress(self) -> bool:
        """Say whether progress bars belong on stderr."""
        return not self.quiet and sys.stderr.isatty()

    def note(self, text: str) -> None:
        """Say on stderr what is going on."""
        if not self.quiet:
            click.echo(one_line(text), err=True)

    def say(self, text: str) -> None:
        """Print a line of the result on stdout."""
        click.echo(one_line(text))

    def warn(self, text: str) -> None:
        """Say a warning once, on stderr and in the envelope."""
        if text not in self.warnings:
            self.warnings.append(text)
            click.echo(f"warning: {one_line(text)}", err=True)
        if self.run is not None:
            self.run.log(text, level="warning")

    def execute(self, name: str, params: Mapping[str, Any], run: Callable[[Session, Any], Outcome]) -> None:
        """Resolve the settings, run a command in quiet surroundings, and print what it came to."""
        self.command = name
        from interp.config import resolve

        flags = {key: _joined(key, value) for key, value in params.items() if key not in ("config", "set")}
        self.resolved = resolve(name, flags=flags, sets=params.get("set") or (), config=params.get("config"))
        settings = self.resolved.settings
        self.as_json, self.quiet, self.verbose = settings.as_json, settings.quiet, settings.verbose
        _check_scheme(getattr(settings, "scheme", "none"))
        with surroundings(self, offline=getattr(settings, "offline", False)):
            outcome = run(self, settings)
        self._print(outcome)
        if outcome.error is not None:
            raise outcome.error

    def _print(self, outcome: Outcome) -> None:
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
        from interp.results import jsonable
        from interp.runs.identity import own_version

        plain, nulls = jsonable(data)
        content = {
            "schema": "interp.envelope/1",
            "command": self.command,
            "version": own_version(),
            "run": None if run is None else run.as_posix(),
            "status": status,
            "data": plain,
            "warnings": [*self.warnings, *nulls],
            "artifacts": list(artifacts),
            "timing": {"seconds": round(time.perf_counter() - self.started, 3)},
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


def _check_scheme(text: str) -> None:
    """Refuse an unknown scheme before anything is read or written."""
    if text == "none":
        return
    from interp.quantization.schemes import Scheme

    if Scheme.parse(text).needs_calibration:
        raise ConfigError(
            f"--scheme {text!r} chooses its rounding on texts (calibration), which this command does not "
            "take. Use `interp compare`, or interp.quantization.quantize(model, scheme, calibration=texts)."
        )


def _joined(key: str, value: Any) -> Any:
    """Turn a repeated flag into one value; a flag that was not given is ``None``."""
    if not isinstance(value, tuple):
        return value
    if not value:
        return None
    return value if key == "fail_under" else ",".join(value)
