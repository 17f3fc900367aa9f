"""Runs and results as stories and figures: what ``interp.report`` and ``interp.plot`` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp import results, runs
from interp.errors import ConfigError
from interp.report import document
from interp.report.figures import Figure, drawing
from interp.report.story import Story

__all__ = ["figure", "of_run", "result_of"]


def of_run(path: Path) -> Story:
    """Read a finished run and give its story.

    Raises:
        ConfigError: its result is of an older version.
    """
    facts = runs.open_run(path)
    found = document.of_run(path, facts)
    if found is None:
        raise ConfigError(
            f"{str(path)!r} is a run of `interp {facts.get('command')}` by an older version, which this one "
            "cannot read. Run it again: its run.json has the command line."
        )
    return found


def result_of(path: Path) -> dict[str, Any]:
    """Read ``metrics.json`` of a run, where it has one."""
    return results.read_json(path / "metrics.json") if (path / "metrics.json").is_file() else {}


def figure(result: Any, name: str = "") -> Figure:
    """A figure of a result, of a run folder, or of what is one already.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(result, str | Path) and (Path(result) / "result" / "result.json").is_file():
        result = results.load(Path(result) / "result")
    if isinstance(result, results.Result):
        result = result.figure(name)
    if not isinstance(result, results.Figure):
        raise ConfigError(
            f"no figure is known for a {type(result).__name__}; give a result of an analysis, or a run."
        )
    return drawing(result)
