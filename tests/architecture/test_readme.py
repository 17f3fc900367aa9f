"""The README runs, in order, as a reader would run it; in a file of its own, beside the other documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.documents import run
from tests.architecture.syntax import ROOT
from tests.architecture.test_documents import needs_demo


@needs_demo
def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_BUDGET", "1s")  # every command takes its least size, on any machine
    assert run(ROOT / "README.md") >= 4
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
