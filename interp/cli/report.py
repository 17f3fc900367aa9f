"""``interp report``: write a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from interp.cli.group import define
from interp.cli.session import Outcome, Session

__all__ = ["command"]


@define(
    "report",
    examples=("interp report runs/x", "interp report runs/x --out page.html"),
    positional=(click.Argument(["run"], metavar="RUN"),),
)
def command(session: Session, settings: Any) -> Outcome:
    """Write a run as one self-contained HTML page, by default into the run."""
    from interp import report

    page = report.html(Path(settings.run), settings.out)
    return Outcome(
        {"page": page.as_posix()}, lambda: click.echo(page), run=Path(settings.run), artifacts=[page.name]
    )
