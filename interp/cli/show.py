"""``interp show`` and ``interp report``: a finished run at the terminal, and as one HTML page."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import click

from interp.cli.frame import Work, command
from interp.cli.options import Settings, flag
from interp.cli.session import Outcome
from interp.errors import counted

__all__ = ["report", "show"]


@dataclass(frozen=True, kw_only=True)
class ShowSettings(Settings):
    """Print a run; --verify compares every file with its recorded sha256 (exit 6 when one differs).

    --positions prints prompts with the tokens that were read marked, instead.
    """

    run: str = flag(dataclasses.MISSING, "The run folder.", given="position")
    verify: bool = flag(False, "Compare every file with its recorded sha256.", group="Run")
    positions: bool = flag(False, "Print prompts with the tokens that were read marked.")


@command(
    ShowSettings,
    examples=("interp show runs/x", "interp show runs/x --verify", "interp show runs/x --positions"),
)
def show(work: Work, settings: ShowSettings) -> Outcome:
    """Print a run, after checking that its files are what was written."""
    from interp import report, results, runs
    from interp.report import terminal
    from interp.report.selections import read_selection, write_selection

    path = Path(settings.run)
    facts = runs.verify(path) if settings.verify else runs.open_run(path)
    if settings.positions:
        chosen = read_selection(path)
        told = {"selector": chosen.selector, "positions": [list(row) for row in chosen.positions]}
        return Outcome({"run": facts, **told}, lambda: write_selection(chosen), run=path)
    document, metrics = report.read(path), path / "metrics.json"
    found = results.read_json(metrics) if metrics.is_file() else {}
    files = sorted(runs.files(path))

    def tell() -> None:
        terminal.write(document)
        click.echo(
            f"{counted(len(files), 'file')}{', each as it was written' if settings.verify else ''} in {path}"
        )

    return Outcome({"run": facts, "result": found}, tell, run=path, artifacts=files)


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Settings):
    """Write a run as one self-contained HTML page, by default into the run."""

    run: str = flag(dataclasses.MISSING, "The run folder.", given="position")
    out: str | None = flag(None, "The folder or file to write.", group="Run", metavar="PATH", part="call")


@command(ReportSettings, examples=("interp report runs/x", "interp report runs/x --out page.html"))
def report(work: Work, settings: ReportSettings) -> Outcome:
    """Write the page of a run."""
    from interp.report import html

    run = Path(settings.run)
    page = html(run, settings.out)
    return Outcome({"page": page.as_posix()}, lambda: click.echo(page), run=run, artifacts=[page.name])
