"""``interp patch --baselines``: a run, its plan, and what does not go with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp.mediation import Baselines
from interp.results import load
from tests.interp.cli.conftest import Call

LINE = ("patch", "--task", "capitals", "--mediators", "mlp_out.*", "--limit", "8", "--held-out", "8")


def test_a_run_chooses_a_baseline_or_says_that_it_cannot(call: Call) -> None:
    same = {"answer": "w11", "foil": "w49"}  # told apart by the last word in every pair
    rows = [
        same | {"clean": f"w{at} w02 w44", "corrupt": f"w{at} w02 w03", "group": f"{at}"}
        for at in range(10, 26)
    ]
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    line = ("patch", "--model", "TINY", "--data", "pairs.jsonl", "--mediators", "mlp_out.*")
    answer = call(*line, "--baselines", "10", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, Baselines)
    assert found.verdict() == answer.envelope["data"]["verdict"]
    assert len(found.picks) == 10
    assert {"cmd-bandit", "uniform-less-bandit", "best-fixed-less-bandit"} <= set(
        answer.envelope["data"]["numbers"]
    )


def test_a_plan_runs_nothing(call: Call) -> None:
    answer = call(*LINE, "--baselines", "10", "--dry-run", "--json")
    assert answer.code == 0, answer.err
    assert answer.envelope["status"] == "planned" and answer.envelope["data"]["forwards"] > 100


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--baselines", "3"), "each baseline is tried twice"),
        (("--baselines", "20", "--search", "exhaustive"), "not taken with --baselines"),
        (("--baselines", "20", "--goal", "edit"), "not taken with --baselines"),
    ],
)
def test_wrong_calls(call: Call, line: tuple[str, ...], said: str) -> None:
    answer = call(*LINE, *line)
    assert answer.code == 2 and said in answer.err
