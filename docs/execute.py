"""Run the code blocks of the documents and keep what they print and draw, for the site.

``python docs/execute.py`` runs every page, each in a process and an empty folder of its own. What a page gave
is kept in ``docs/_outputs`` until the page or the code of the project changes.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
OUTPUTS = DOCS / "_outputs"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REPORT = re.compile(r"report: (\S+)/report\.html")
MOST_LINES = 40
BUDGET = "20s"
"""Of each command, where the environment names no other."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def digest(page: Path) -> str:
    """Of the page and of all code that it can call."""
    read = hashlib.sha256(page.read_bytes())
    for path in sorted([*ROOT.glob("interp/**/*.py"), *ROOT.glob("probes/**/*.py"), Path(__file__)]):
        read.update(path.read_bytes())
    return read.hexdigest()


def output_of(page: Path) -> list[dict[str, Any]] | None:
    """What the blocks of a page gave, in order; None where it was not run as it is now."""
    kept = OUTPUTS / f"{page.stem}.json"
    if not kept.is_file():
        return None
    found = json.loads(kept.read_text(encoding="utf-8"))
    return found["blocks"] if found["digest"] == digest(page) else None


def python_block(text: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block as a notebook's cell: what it prints, and what its last expression shows."""
    tree = ast.parse(text)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "block", "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "block", "eval"), names)
    shown, picture = printed.getvalue(), ""
    if value is not None and hasattr(value, "svg"):
        picture = value.svg()
    elif value is not None:
        import pandas as pd

        with pd.option_context("display.width", 110, "display.max_columns", 8, "display.max_rows", 10):
            shown += f"{value if isinstance(value, str) else repr(value)}\n"
    return {"text": shown, "picture": picture}


def shell_block(text: str) -> dict[str, Any]:
    """Run a block's `interp` lines; the picture is that of the last run with one."""
    import interp
    from interp.cli import main
    from interp.errors import InterpError

    shown, picture = "", ""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = main(words[1:])
        if code:
            raise SystemExit(f"exit code {code}: {line}")
        shown += printed.getvalue()
        for run in REPORT.findall(printed.getvalue()):
            with contextlib.suppress(InterpError):
                picture = interp.plot(run).svg()
    return {"text": shown, "picture": picture}


def execute(page: Path) -> list[dict[str, Any]]:
    """Run a page's blocks in one namespace, in the current folder."""
    names: dict[str, Any] = {"__name__": "document"}
    found = []
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        given = python_block(text, names) if language == "python" else shell_block(text)
        lines = [line.rstrip() for line in given["text"].strip("\n").splitlines()]
        if len(lines) > MOST_LINES:
            lines = [*lines[:MOST_LINES], f"... {len(lines) - MOST_LINES} more lines"]
        found.append({"text": "\n".join(lines), "picture": given["picture"]})
    return found


def keep(page: Path) -> int:
    """Run a page in a process of its own and keep what it gave; the process's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = {**ENVIRONMENT, "COLUMNS": "90", "PYTHONPATH": str(ROOT)}
        code = subprocess.run(
            [sys.executable, str(Path(__file__)), "--in-place", str(page)],
            cwd=folder,
            env={"INTERP_BUDGET": BUDGET, **os.environ, **fixed},
            check=False,
        ).returncode
        if not code:
            OUTPUTS.mkdir(exist_ok=True)
            (Path(folder) / "outputs.json").replace(OUTPUTS / f"{page.stem}.json")
    return code


def main(words: list[str]) -> int:
    """All pages, or those named; exit code 1 where a block of one fails."""
    if words[:1] == ["--in-place"]:
        page = Path(words[1])
        found = {"digest": digest(page), "blocks": execute(page)}
        Path("outputs.json").write_text(json.dumps(found), encoding="utf-8")
        return 0
    failed = []
    for page in [Path(word).resolve() for word in words] or sorted(DOCS.glob("*.md")):
        if output_of(page) is None and keep(page):
            failed.append(page.name)
    if failed:
        sys.stderr.write(f"these pages have a block that fails: {', '.join(failed)}\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
