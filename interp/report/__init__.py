"""Results as figures, terminal tables and HTML pages. ``interp.plot(result)`` is the front door.

Plot functions return figures and never show them; every figure keeps its numbers as ``.data``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interp.report.figures import Figure
    from interp.report.story import Story
    from interp.results import Result

__all__ = ["figure_page", "html", "plot", "read", "result", "story_of", "write"]


def plot(result: Any, name: str = "") -> Figure:
    """Give the figure that shows a result best.

    Args:
        result: what an analysis returned, one of its figures, or the path of a run folder.
        name: which of its figures; the best where not given.

    Returns:
        A figure with ``.data``, ``.plotly()``, ``.svg()`` and ``.save(folder, name)``; a notebook displays
        it.

    Raises:
        ConfigError: for something no figure is known for.
    """
    from interp.report import stories

    return stories.figure(result, name)


def read(run: str | Path) -> Story:
    """Read a finished run and give what there is to say about it.

    Raises:
        ArtifactError: when the run is not there, not finished or damaged.
    """
    from interp.report import stories

    return stories.of_run(Path(run))


def result(run: str | Path) -> dict[str, Any]:
    """Read the result a finished run holds, as a dictionary; empty for a run without one."""
    from interp.report import stories

    return stories.result_of(Path(run))


def write(story: Story) -> None:
    """Print a story on stdout: the verdict, the numbers, the tables."""
    from interp.report import tables

    tables.write(story)


def html(run: str | Path, out: str | Path | None = None, *, story: Story | None = None) -> Path:
    """Write a finished run as one self-contained HTML page.

    Args:
        run: the run folder.
        out: where to; ``report.html`` in the run where not given.
        story: what there is to say about it, where it has been read already.

    Returns:
        The page's path.
    """
    from interp.report import pages

    path = Path(run)
    return pages.write(path, story or read(path), None if out is None else Path(out))


def figure_page(figure: Figure) -> str:
    """A small HTML page of one figure and the numbers behind it."""
    from interp.report import pages

    return pages.figure_page(figure)


def story_of(found: Result, facts: Mapping[str, Any] | None = None) -> Story:
    """What a report shows of a result; ``facts`` are those of its run, as ``run.json`` has them."""
    from interp.report.document import document

    return document(found, facts)
