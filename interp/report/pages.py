"""Write the HTML page of a run, and its figures."""

from __future__ import annotations

from pathlib import Path

from interp import runs
from interp.errors import ConfigError
from interp.report import page, tables
from interp.report.figures import Figure
from interp.report.story import Story
from interp.results import write_atomically

__all__ = ["figure_page", "write"]


def write(run: Path, story: Story, out: Path | None = None) -> Path:
    """Render the story of a finished run; into the run (keeping its manifest true) or to another file."""
    content = page.render(story).encode("utf-8", "backslashreplace")
    if out is None:
        return runs.replace(run, "report.html", content)
    if out.is_dir():
        raise ConfigError(f"--out {str(out)!r} is a folder. Give the name of an HTML file.")
    return write_atomically(out, content)


def figure_page(figure: Figure) -> str:
    """Give a small page of one figure and the numbers behind it."""
    table = tables.of_frame(figure.data, "The numbers behind the figure")
    return page.render(
        Story("interp", figure.title, figure.caption, tables=(table,), figures=(figure,)), interactive=False
    )
