"""The site: every page is in it, tables of lines run, and a block is shown with what it gave."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.architecture.documents import blocks
from tests.architecture.syntax import ROOT
from tests.architecture.test_documents import needs_demo

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def execute() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute", DOCS / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(
        r"```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL
    )
    names = " ".join(listed).split()
    assert len(set(names)) == len(names)
    assert {*names, "index"} == {page.stem for page in DOCS.glob("*.md")}


def lines_of(document: str) -> list[str]:
    """The calls in the last column of a document's tables."""
    rows = re.findall(r"^\| .* \| (.*) \|$", document, re.MULTILINE)
    return [cell for row in rows for cell in re.findall(r"`([^`]+)`", row) if "=" in cell or "(" in cell]


@needs_demo
def test_lines_that_replace_those_of_other_tools_run() -> None:
    text = (DOCS / "coming-from.md").read_text()
    names: dict[str, Any] = {}
    exec(next(block.text for block in blocks(text) if block.language == "python"), names)
    lines = lines_of(text)
    assert len(lines) > 20
    for line in lines:
        if not line.startswith("method="):
            exec(compile(line, line, "exec"), names)


def test_names_that_replace_those_of_other_tools_exist() -> None:
    import interp
    from interp import features

    rows = re.findall(r"^\| .* \| (.*) \|$", (DOCS / "coming-from.md").read_text(), re.MULTILINE)
    named = [cell for row in rows for cell in re.findall(r"`((?:interp|features)\.[\w.]+)`", row)]
    assert len(named) >= 5
    for name in named:
        found: Any = {"interp": interp, "features": features}[name.split(".")[0]]
        for part in name.split(".")[1:]:
            found = getattr(found, part)


PAGE = """# A page

```python
x = 3
print("said")
x + 4
```

text

```python
class Drawing:
    def svg(self):
        return "<svg></svg>"


Drawing()
```
"""


def test_a_page_is_shown_with_what_its_blocks_gave(execute: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert execute.execute(page) == [
        {"text": "said\n7", "picture": ""},
        {"text": "", "picture": "<svg></svg>"},
    ]


def test_long_output_is_cut_and_says_so(execute: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nfor i in range(99):\n    print(i)\n```\n")
    lines = execute.execute(page)[0]["text"].splitlines()
    assert lines[-2:] == ["39", "... 59 more lines"]


def test_output_of_another_version_of_a_page_is_not_shown(
    execute: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "OUTPUTS", tmp_path / "kept")
    page = tmp_path / "page.md"
    page.write_text("```python\n1 + 1\n```\n")
    assert execute.output_of(page) is None
    assert execute.keep(page) == 0
    assert execute.output_of(page) == [{"text": "2", "picture": ""}]
    page.write_text("```python\n1 + 2\n```\n")
    assert execute.output_of(page) is None


def test_a_page_with_a_block_that_fails_is_named(
    execute: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(execute, "OUTPUTS", tmp_path / "kept")
    page = tmp_path / "broken.md"
    page.write_text("```python\n1 / 0\n```\n")
    assert execute.main([str(page)]) == 1
    assert "broken.md" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
