"""Write a document as one self-contained HTML page: no network, no script but our own, data never markup.

The page carries a content-security policy that allows exactly its own script (by hash) and nothing from
outside, so that even a fault in the escaping could not run anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from interp import runs
from interp.errors import ConfigError
from interp.report.document import Cell, Document, ShownTable
from interp.report.escape import printable
from interp.report.figures import FAINT, INK, PALETTE, Drawing
from interp.results import write_atomically

__all__ = ["environment", "figure_page", "fragment", "policy", "render", "text_of", "write"]

HERE = Path(__file__).resolve().parent / "templates"


def render(document: Document) -> str:
    """The page as HTML text."""
    script = text_of("page.js")
    return (
        environment()
        .get_template("page.html")
        .render(
            document=document,
            style=text_of("page.css"),
            script=script,
            policy=policy(script),
            figures=[_figure(figure, number) for number, figure in enumerate(document.figures, 1)],
        )
    )


def fragment(document: Document) -> str:
    """What was found as a part of another page: no script, and no style that a strict policy would refuse.

    Args:
        document: of a result.
    """
    figures = [_figure(figure, number) for number, figure in enumerate(document.figures, 1)]
    figures = [{**one, "svg": type(one["svg"])(_unstyled(one["svg"]))} for one in figures]
    return environment().get_template("fragment.html").render(document=document, figures=figures)


def _unstyled(svg: str) -> str:
    """An SVG of ours whose styles have become attributes, which mean the same."""
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)
    return re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), svg)


def _attributes(style: str) -> str:
    pairs = [part.partition(":") for part in style.split(";") if part.strip()]
    known = {name.strip(): value.strip() for name, _, value in pairs}
    if size := re.match(r"[\d.]+px", known.pop("font", "")):
        known["font-size"] = size[0]
    return "".join(f' {name}="{value}"' for name, value in known.items())


def write(run: Path, document: Document, out: Path | None = None) -> Path:
    """Write the page of a finished run; into the run (keeping its manifest true) or to another file."""
    content = render(document).encode("utf-8", "backslashreplace")
    if out is None:
        return runs.replace(run, "report.html", content)
    if out.is_dir():
        raise ConfigError(f"--out {str(out)!r} is a folder. Give the name of an HTML file.")
    return write_atomically(out, content)


def figure_page(figure: Drawing) -> str:
    """A small page of one figure and the numbers behind it."""
    rows = tuple(tuple(_plain(value) for value in row) for row in figure.data.itertuples(index=False))
    table = ShownTable("The numbers behind the figure", tuple(map(str, figure.data.columns)), rows)
    return render(Document("interp", figure.title, figure.caption, tables=(table,), figures=(figure,)))


@lru_cache(maxsize=1)
def environment() -> Any:
    """What fills the templates: it escapes all data."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(HERE)
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(shown=printable, cell=_cell)
    return made


@lru_cache(maxsize=8)
def text_of(name: str) -> str:
    """A file of the templates.

    Args:
        name: of the file.
    """
    return (HERE / name).read_text(encoding="utf-8")


def policy(script: str) -> str:
    """What the page may do: run this script, and nothing else.

    Args:
        script: of the page.
    """
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    )


def _figure(figure: Drawing, number: int) -> dict[str, Any]:
    from markupsafe import Markup

    svg = figure.svg()
    for name, colour in _colours().items():
        svg = svg.replace(colour, f"var({name})")
    svg = re.sub(
        r'(id="|href="#|url\(#)', rf"\1f{number}-", svg
    )  # ids of two figures in one page must differ
    return {
        "number": number,
        "form": f"{figure.form} lines" if figure.lines else figure.form,
        "title": figure.title,
        "caption": figure.caption,
        "svg": Markup(svg),
    }


def _colours() -> dict[str, str]:
    return {**{f"--series-{i}": colour for i, colour in enumerate(PALETTE)}, "--faint": FAINT, "--ink": INK}


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return "\u2013"
    return f"{value:.3f}" if isinstance(value, float) else printable(value)


def _plain(value: Any) -> Cell:
    value = value if isinstance(value, str) or not hasattr(value, "item") else value.item()
    return value if isinstance(value, str | int | float) or value is None else str(value)
