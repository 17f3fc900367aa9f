"""``interp audit`` on the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.analyses.audit import AuditResult
from interp.results import load
from tests.interp.cli.conftest import Call


def test_a_lens_is_audited_and_leaves_a_whole_run(call: Call) -> None:
    answer = call(
        "audit", "--reader", "logit", "--layers", "8,23", "--limit", "240", "--out", "run", "--json"
    )
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    assert data["schema"] == "interp.audit/1" and data["numbers"]["logit-belief"]["value"] > 0.9
    verdicts = {row["layer"]: row["reads"] for row in data["tables"]["layers"]["rows"]}
    assert verdicts == {8: "inconclusive", 23: "the model"}  # 40 facts cannot show that nothing is read
    found = load("run/result")
    assert isinstance(found, AuditResult) and found.of("logit", 23).verdict == "the model"
    page = Path("run/report.html").read_text()
    assert "Does it read the model, the prompt, the world, or nothing?" in page and "Every arm" in page
    assert {"belief.svg", "truth.svg"} <= {path.name for path in Path("run/figures").iterdir()}


def test_readers_are_listed_and_others_refused(call: Call) -> None:
    listed = call("ls", "readers", "--json").envelope["data"]["readers"]
    assert {"logit", "probe", "linear"} <= {row["reader"] for row in listed}
    wrong = call("audit", "--reader", "logits")
    assert wrong.code == 2 and "Did you mean 'logit'?" in wrong.err
    random = call("audit", "--weights", "random")
    assert random.code == 2 and "leave the flag out" in random.err


@pytest.mark.parametrize("flags", [(), ("--limit", "100")])
def test_a_plan_is_printed_and_nothing_written(call: Call, flags: tuple[str, ...]) -> None:
    answer = call("audit", "--layer", "20", "--dry-run", "--json", "--budget", "off", *flags)
    assert answer.code == 0, answer.err
    assert answer.envelope["data"]["prompts"] == (100 if flags else 732)
    assert not Path("runs").exists()


def test_a_plan_teaches_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.analyses.audit.teaching.teach", None)
    answer = call("audit", "--edit", "--steps", "7", "--layer", "20", "--dry-run", "--json")
    assert answer.code == 0, answer.err
    assert answer.envelope["status"] == "planned" and answer.envelope["data"]["prompts"] > 500
    assert "the copy is taught first" in answer.err
