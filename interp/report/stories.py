"""Which story each command's run tells, and which figure each result has: one row per command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import results, runs
from interp.errors import ConfigError
from interp.report import concepts, document
from interp.report.figures import Figure, drawing
from interp.report.story import Story

if TYPE_CHECKING:
    import pandas

__all__ = ["FIGURES", "STORIES", "figure", "figures", "of_run", "result_of"]

STORIES: dict[str, Callable[[dict[str, Any], dict[str, Any], Any], Story]] = {
    "probe": concepts.story,
}
"""Command, or the result's schema -> (run.json, metrics.json, data.parquet or None) -> story."""

FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    concepts.SCHEMA: concepts.main_figure,
}
"""Schema of a result -> its main figure."""


def of_run(path: Path) -> Story:
    """Read a finished run and give its story."""
    facts = runs.open_run(path)
    found = document.of_run(path, facts)
    if found is not None:
        return found
    command = str(facts.get("command"))
    if command not in STORIES:
        raise ConfigError(
            f"{str(path)!r} is a run of `interp {command}`, which has no report; those that have: "
            f"{', '.join(STORIES)}."
        )
    result = result_of(path)
    return STORIES[command]({**facts, "path": path.as_posix()}, result, _rows(path))


def result_of(path: Path) -> dict[str, Any]:
    """Read ``metrics.json`` of a run, where it has one."""
    return results.read_json(path / "metrics.json") if (path / "metrics.json").is_file() else {}


def _rows(path: Path) -> pandas.DataFrame | None:
    import pandas

    return pandas.read_parquet(path / "data.parquet") if (path / "data.parquet").is_file() else None


def figures(command: str, result: dict[str, Any], rows: pandas.DataFrame | None) -> dict[str, Figure]:
    """Give the figures of a command's result by file name."""
    return concepts.figures(result) if result.get("schema") == concepts.SCHEMA else {}


def figure(result: Any, name: str = "") -> Figure:
    """Give the figure of a result, of its dictionary, or of a run folder."""
    if isinstance(result, str | Path) and (Path(result) / "result" / "result.json").is_file():
        result = results.load(Path(result) / "result")
    if isinstance(result, results.Figure):
        return drawing(result)
    if isinstance(result, results.Result):
        return drawing(result.figure(name))
    if isinstance(result, str | Path):
        content = result_of(Path(result))
    elif isinstance(result, dict):
        content = result
    elif isinstance(result, results.OldResult):
        content = result.to_dict()
    else:
        raise ConfigError(
            f"no figure is known for a {type(result).__name__}; give a result of an analysis, or a run "
            f"folder."
        )
    schema = str(content.get("schema"))
    if schema not in FIGURES:
        raise ConfigError(
            f"no figure is known for a result of the schema {schema!r}; known: {', '.join(FIGURES)}."
        )
    return FIGURES[schema](content)
