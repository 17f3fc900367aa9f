"""Run the code blocks of a document: Python in one namespace, `interp` lines through the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.certificates import examined_once, loaded_once

__all__ = ["REAL", "Block", "blocks", "run"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line it starts on."""

    language: str
    text: str
    line: int


def blocks(document: str) -> Iterator[Block]:
    """Yield the fenced blocks in order."""
    for match in FENCE.finditer(document):
        yield Block(match[1], match[2], document[: match.start()].count("\n") + 2)


REAL = "--model smollm2"
"""What marks a line that runs SmolLM2, which takes longer, and whose package may not be installed."""


def run(document: Path, *, real: bool = False) -> int:
    """Run a document's blocks in order, in the current folder; the number of those that did something.

    Lines marked by REAL are run with ``real``, and left out without it.
    """
    namespace: dict[str, Any] = {"__name__": "document"}
    done = 0
    for block in blocks(document.read_text(encoding="utf-8")):
        if block.language == "python":
            program = compile("\n" * (block.line - 1) + block.text, str(document), "exec")
            exec(program, namespace)
            done += 1
        elif block.language == "sh":
            for line in block.text.splitlines():
                if real or REAL not in line:
                    command(line)
            done += 1
    return done


def command(line: str) -> None:
    """Run a line `interp ...` in this process; any other line is refused, so that none is left unrun."""
    from interp.cli import main

    words = shlex.split(line, comments=True)
    if not words:
        return
    assert words[0] == "interp", f"not an interp command, so not tested: {line}"
    with examined_once(), loaded_once():
        code = main(words[1:])
    assert code == 0, f"exit code {code}: {line}"
