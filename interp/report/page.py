"""Write a story as one self-contained HTML page: no network, no script but our own, data never markup.

The page carries a content-security policy that allows exactly its own scripts (by hash) and nothing from
outside, so that even a fault in the escaping could not run anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from interp.report.figures import FAINT, INK, PALETTE, Figure
from interp.report.story import Story
from interp.report.text import printable

__all__ = ["render"]

HERE = Path(__file__).resolve().parent / "templates"


def render(story: Story, *, interactive: bool = True) -> str:
    """Give the page as HTML text.

    Args:
        story: what to show.
        interactive: put plotly into the page (4.8 MB), so that figures can be explored; their SVG is always
            there.
    """
    scripts = _scripts(interactive and bool(story.figures))
    return _template().render(
        story=story,
        style=_text("page.css"),
        scripts=scripts,
        policy=_policy(scripts),
        figures=[_figure(figure, number, interactive) for number, figure in enumerate(story.figures, 1)],
    )


@lru_cache(maxsize=1)
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(HERE)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(shown=printable, cell=_cell)
    return environment.get_template("page.html")


@lru_cache(maxsize=8)
def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _scripts(interactive: bool) -> list[str]:
    if not interactive:
        return [_text("page.js")]
    from plotly.offline import get_plotlyjs

    return [get_plotlyjs().replace("</script", "<\\/script"), _text("page.js")]


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts
    )
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {hashes}; "
        f"base-uri 'none'; form-action 'none'"
    )


def _figure(figure: Figure, number: int, interactive: bool) -> dict[str, Any]:
    from markupsafe import Markup

    svg = figure.svg()
    for name, colour in _colours().items():
        svg = svg.replace(colour, f"var({name})")
    svg = re.sub(
        r'(id="|href="#|url\(#)', rf"\1f{number}-", svg
    )  # ids of two figures in one page must differ
    return {
        "number": number,
        "title": figure.title,
        "caption": figure.caption,
        "svg": Markup(svg),
        "plotly": json.loads(figure.plotly().to_json()) if interactive else None,
    }


def _colours() -> dict[str, str]:
    return {**{f"--series-{i}": colour for i, colour in enumerate(PALETTE)}, "--faint": FAINT, "--ink": INK}


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return "\u2013"
    return f"{value:.3f}" if isinstance(value, float) else printable(value)
