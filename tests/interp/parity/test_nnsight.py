"""nnsight, measured in one process of its own: the same numbers, and the user's model left as it was."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.architecture.syntax import ROOT
from tests.interp.parity.measure import FAMILIES, MEASURES

REFUSED = {
    "edits": r"holds edits.*Call clear_edits\(\)",
    "a part": "wraps a GPT2Block, not a Hugging Face model",
    "no weights": r"has no weights yet. Call its dispatch\(\) first",
    "read only": "'pattern.0' can be read but not written",
    "nowhere": "fired nowhere",
}


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Run the other process."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.interp.parity.nnsight_process", *FAMILIES],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_backend_gives_the_native_numbers(measured: dict[str, Any], family: str, measure: str) -> None:
    errors = dict(measured["families"][family][measure])
    assert errors.pop("control") > 1e-3
    assert {name: error for name, error in errors.items() if not error <= 1e-5} == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_capture_is_what_a_trace_by_hand_gives(measured: dict[str, Any], family: str) -> None:
    found = measured["families"][family]
    assert found["by hand"] <= 1e-6
    assert found["by hand, another layer"] > 1e-3
    assert found["traces"] == 1
    assert found["disabled beyond the native"] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_the_user_is_taken_and_stays_as_it_was(measured: dict[str, Any], family: str) -> None:
    held = measured["families"][family]["held"]
    assert [name for name, true in held.items() if not true] == []


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_is_refused_with_the_remedy(measured: dict[str, Any], case: str) -> None:
    assert re.search(REFUSED[case], measured["refused"][case])
