"""``interp patch --baselines``: a run, its plan, and what does not go with it."""

from __future__ import annotations

import pytest

from interp.mediation import Baselines
from interp.results import load
from tests.interp.cli.conftest import Call

LINE = ("patch", "--task", "capitals", "--mediators", "mlp_out.*", "--limit", "8", "--held-out", "8")


def test_a_run_chooses_a_baseline_or_says_that_it_cannot(call: Call) -> None:
    answer = call(*LINE, "--baselines", "10", "--out", "run", "--json")
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
