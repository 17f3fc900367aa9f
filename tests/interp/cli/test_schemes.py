"""``--scheme`` from the shell: the commands run at another precision, and say so; ``interp ls schemes``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.interp.cli.conftest import Call

PROBE = ("probe", "--model", "TINY", "--data", "DATA", "--layer", "1", "-q")


def run(folder: str) -> dict[str, object]:
    return json.loads(Path(folder, "run.json").read_text())


def test_a_run_says_at_which_precision_it_was(call: Call) -> None:
    scheme = "int4-g32"
    full, small = (
        call(*PROBE, *extra, "--out", name) for name, extra in (("a", ()), ("b", ("--scheme", scheme)))
    )
    assert full.code == small.code == 0, small.err
    before, after = json.dumps(run("a")), json.dumps(run("b"))
    assert f'"scheme": "{scheme}"' in after
    assert f'"scheme": "{scheme}"' not in before
    facts = run("b")["model"]
    assert isinstance(facts, dict)
    assert facts["quantization"]["scheme"] == scheme
    assert facts["fingerprint"] != run("a")["model"]["fingerprint"]  # type: ignore[index]
    assert facts["quantization"]["base"] == run("a")["model"]["fingerprint"]  # type: ignore[index]


def test_the_doctor_examines_the_quantized_model(call: Call) -> None:
    answer = call("doctor", "--model", "TINY", "--scheme", "int8")
    assert answer.code == 0, answer.err
    assert "int8" in answer.out + answer.err


def test_a_scheme_that_is_none_is_answered_before_anything_is_loaded(call: Call) -> None:
    answer = call("probe", "--model", "nowhere", "--scheme", "rtn8-g32")
    assert answer.code == 2
    assert "rtn8 has no group size" in answer.err
