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


QUIET = """
import logging, sys
{program}
print(logging.getLogger("torchao").level, file=sys.stderr)
"""


def said(program: str) -> tuple[list[str], str]:
    """What a program in a fresh process prints, and that the libraries it loads print and set nothing."""
    quiet = QUIET.format(program=program)
    run = subprocess.run([sys.executable, "-c", quiet], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split(), run.stderr.strip()


SEEN = "print(*[name for name in ('torch', 'transformer_lens', 'nnsight') if name in sys.modules])"


def test_a_heavy_import_is_seen_and_prints_nothing() -> None:
    """Nothing is printed by the libraries that are loaded, and the user's levels are as they were."""
    program = f"import interp.models.model\nimport torchao\n{SEEN}\ninterp.load('demo')"
    assert said(program) == (["torch"], "0")


SPOKEN = """
import logging, interp
logging.lastResort.setFormatter(logging.Formatter("%(name)s: %(message)s"))
for name, line in {lines!r}:
    logging.getLogger(name).warning(line, *["<enum 'A'>"] * line.count("%s"))
"""


def test_only_the_lines_about_missing_parts_are_dropped() -> None:
    """The same loggers say anything else, and other loggers say those very lines."""
    lines = [
        ("torchao", "Failed to load _C.so: no such library"),
        ("torchao.kernel.intmm", "Warning: Detected no triton, on systems without"),
        ("torch.utils._pytree", "%s is an Enum subclass and is now natively supported"),
        ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward from somewhere: %s."),
        ("torchao", "the weights are wrong"),
        ("torch.utils._pytree", "%s is registered twice"),
        ("torch", "Failed to load the weights"),
    ]
    _, printed = said(SPOKEN.format(lines=lines))
    assert printed.splitlines() == [
        "torchao: the weights are wrong",
        "torch.utils._pytree: <enum 'A'> is registered twice",
        "torch: Failed to load the weights",
        "0",
    ]


def test_modules_that_are_no_public_names_are_found_when_they_are_asked_for() -> None:
    asked = "interp.results.load, interp.store.ActivationStore, interp.report.html"
    more = "interp.analyses.concepts.generation.probe_generation"
    assert "torch" in loaded(f"import interp\n{asked}, {more}")
    with pytest.raises(AssertionError, match="no attribute 'nonsense'"):
        loaded("import interp\ninterp.nonsense")


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("sys.stderr.write('a warning, ')", "a warning, 0"),
        ("logging.getLogger('torchao').setLevel(40)", "40"),
    ],
)
def test_what_is_printed_or_set_is_seen(program: str, printed: str) -> None:
    assert said(program) == ([], printed)


def test_import_interp_writes_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import interp, probes"],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


@pytest.mark.parametrize(("first", "warned"), [("import interp", False), ("pass", True)])
def test_in_a_notebook_nothing_is_said_of_missing_widgets(first: str, warned: bool) -> None:
    """tqdm itself says it, where the widgets are missing; a stand-in makes them so."""
    program = (
        "import sys\nsys.modules['ipywidgets'] = None\nimport IPython, ipykernel.zmqshell\n"
        f"{first}\nimport tqdm.auto\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr
    assert ("IProgress not found" in run.stderr) is warned
