"""A tiny model and a labelled file on disk, and the command line called in this process."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import examined_once, loaded_once


@dataclass(frozen=True)
class Answer:
    """Hold how a call ended, and what it said where."""

    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


Call = Callable[..., Answer]


def _lines() -> list[str]:
    """Write 160 prompts in 40 groups; the last word decides the label, the others are noise."""
    rng = random.Random(0)
    return [
        f"w{rng.randrange(60):02d} w{rng.randrange(60):02d} w{row % 4:02d},"
        f"{'low' if row % 4 < 2 else 'high'},g{row // 4}"
        for row in range(160)
    ]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a tiny llama ("tiny") and prompts that it can tell apart ("words.csv")."""
    from tests.tiny import build, tokenizer

    folder = tmp_path_factory.mktemp("place")
    build("llama").save_pretrained(folder / "tiny")
    tokenizer().save_pretrained(folder / "tiny")
    (folder / "words.csv").write_text("\n".join(["text,label,group", *_lines()]) + "\n")
    return folder


@pytest.fixture(scope="session", autouse=True)
def certificates() -> Iterator[None]:
    with examined_once(), loaded_once():
        yield


@pytest.fixture
def call(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """Call the command line in an empty folder; ``TINY`` and ``DATA`` stand for the model and the file."""
    from interp.cli import main

    monkeypatch.chdir(tmp_path)
    names = {"TINY": str(place / "tiny"), "DATA": str(place / "words.csv")}

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main([names.get(argument, argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    yield run
