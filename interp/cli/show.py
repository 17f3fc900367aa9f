"""``interp show``: print a run, after checking that its files are what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from interp.cli.group import define
from interp.cli.session import Outcome, Session

__all__ = ["command"]


@define(
    "show",
    examples=("interp show runs/x", "interp show runs/x --verify"),
    positional=(click.Argument(["run"], metavar="RUN"),),
)
def command(session: Session, settings: Any) -> Outcome:
    """Print a run; --verify compares every file with its recorded sha256 (exit 6 when one differs)."""
    from interp import report, runs

    path = Path(settings.run)
    facts = runs.verify(path) if settings.verify else runs.open_run(path)
    story = report.read(path)
    files = sorted(runs.files(path))

    def show() -> None:
        report.write(story)
        click.echo(f"{len(files)} files{', each as it was written' if settings.verify else ''} in {path}")

    return Outcome({"run": facts, "result": report.result(path)}, show, run=path, artifacts=files)
