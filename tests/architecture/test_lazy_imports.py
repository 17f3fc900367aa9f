"""Importing the packages and asking for help load nothing heavy: each checked in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.syntax import ROOT

HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "transformers",
    "scipy",
    "sklearn",
    "rich",
    "matplotlib",
    "jinja2",
    "transformer_lens",
    "nnsight",
)
HELP = """
import contextlib, io
from interp.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    assert main(["--help"]) == 0
"""


def loaded(program: str) -> list[str]:
    """Run a program in a fresh process and list the heavy packages that it has loaded."""
    ask = f"{program}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.mark.parametrize(
    "program",
    [
        "import interp",
        "import probes",
        "import interp.models, interp.sites",
        "from interp import tasks",
        HELP,
    ],
)
def test_nothing_heavy_is_loaded(program: str) -> None:
    assert loaded(program) == []


def test_a_heavy_import_is_seen() -> None:
    found = loaded("import interp\ninterp.load, interp.models.as_model")
    assert "torch" in found
    assert "transformer_lens" not in found
    assert "nnsight" not in found


def test_modules_that_are_no_public_names_are_found_when_they_are_asked_for() -> None:
    asked = "interp.results.load, interp.store.ActivationStore, interp.report.html"
    assert loaded(f"import interp\n{asked}, interp.analyses.concepts.generation.probe_generation") != []
    with pytest.raises(AssertionError, match="no attribute 'nonsense'"):
        loaded("import interp\ninterp.nonsense")


def test_import_interp_writes_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import interp, probes"],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    "loads",
    ["interp.load('demo')", "interp.results.codec._class_of({'schema': 'interp.comparison/3'})"],
)
def test_nothing_is_printed_by_the_libraries_that_are_loaded(loads: str) -> None:
    program = f"import logging, interp; {loads}; print(logging.getLogger('torchao').level)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stderr == "" and run.stdout.strip() == "0", "and the user's levels are as they were"
