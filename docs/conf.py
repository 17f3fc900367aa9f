"""The site: the pages of this folder, what their blocks gave, and the public names from docstrings."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import execute  # noqa: E402

from interp._version import __version__  # noqa: E402
from interp.report.glossary import GLOSSARY  # noqa: E402

project = "interp"
author = "The interp authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_outputs"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
html_theme = "furo"
html_title = f"interp {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
autodoc_default_options = {"members": True}
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True


def with_outputs(app: Any, name: str, source: list[str]) -> None:
    """Put below every block what it gave when the page was run."""
    page = DOCS / f"{name}.md"
    found = execute.output_of(page) if page.is_file() else None
    if found:
        given = iter(found)
        source[0] = execute.BLOCK.sub(lambda match: match[0] + shown(next(given)), source[0])
    if name == "glossary":
        terms = "".join(f"\n{term}\n: {meaning}\n" for term, meaning in sorted(GLOSSARY.items()))
        source[0] += terms


def shown(block: dict[str, str]) -> str:
    """A block's output as Markdown: text as it was printed, a picture as it was drawn."""
    text, picture = block["text"], block["picture"]
    pieces = []
    if text:
        pieces.append(f'```{{raw}} html\n<pre class="output">{html.escape(text)}</pre>\n```')
    if picture:
        drawn = re.sub(r"^\s*<\?xml.*?\?>|<!DOCTYPE.*?>", "", picture, flags=re.DOTALL).replace("\n\n", "\n")
        pieces.append(f'```{{raw}} html\n<div class="picture">{drawn}</div>\n```')
    return "".join(f"\n\n{piece}" for piece in pieces)


def list_for_programs(app: Any, failed: Exception | None) -> None:
    """Write llms.txt: every page with its title and first sentence."""
    if failed is None:
        rows = [f"# {project} {version}\n", (DOCS / "index.md").read_text().split("\n\n")[1] + "\n"]
        for page in sorted(DOCS.glob("*.md")):
            text = page.read_text(encoding="utf-8")
            title = text.split("\n", 1)[0].lstrip("# ")
            plain = [part for part in text.split("\n\n")[1:] if part[:1] not in "`|#:!<"]
            first = re.split(r"(?<=[.:?]) ", " ".join(plain[0].split()))[0] if plain else ""
            rows.append(f"- [{title}]({page.stem}.html): {first}")
        Path(app.outdir, "llms.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def setup(app: Any) -> None:
    """Register both steps."""
    app.connect("source-read", with_outputs)
    app.connect("build-finished", list_for_programs)
