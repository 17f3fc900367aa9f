"""Results as figures, terminal tables and HTML pages. ``interp.plot(result)`` is the front door.

Plot functions return figures and never show them; every figure keeps its numbers as ``.data``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.report.document import Document
    from interp.report.figures import Drawing

__all__ = ["html", "plot", "read"]


def plot(result: Any, name: str = "") -> Drawing:
    """The figure that shows a result best.

    Args:
        result: what an analysis returned, one of its figures, or the path of a run folder.
        name: which of its figures; the best where not given.

    Returns:
        A figure with ``.data``, ``.svg()`` and ``.save(folder, name)``; a notebook displays it.

    Raises:
        ConfigError: for something no figure is known for.
    """
    from interp.report.figures import figure_of

    return figure_of(result, name)


def read(run: str | Path) -> Document:
    """What there is to say about a finished run.

    Raises:
        ArtifactError: when the run is not there, not finished or damaged.
    """
    from interp.report.document import of_run

    return of_run(Path(run))


def html(run: str | Path, out: str | Path | None = None, *, document: Document | None = None) -> Path:
    """Write a finished run as one self-contained HTML page.

    Args:
        run: the run folder.
        out: where to; ``report.html`` in the run where not given.
        document: what there is to say about it, where it has been read already.

    Returns:
        The page's path.
    """
    from interp.report import page

    path = Path(run)
    return page.write(path, document or read(path), None if out is None else Path(out))
