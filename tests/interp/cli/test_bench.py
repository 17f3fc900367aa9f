"""``interp bench``: MIB's areas, its JSON as a file that scores again, and what is not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.mediation import MIBScore
from interp.results import load
from tests.interp.cli.conftest import Call


def test_a_search_is_scored_and_its_file_scores_the_same(call: Call) -> None:
    asked = ("bench", "mib", "--level", "nodes", "--limit", "6", "--json")
    answer = call(*asked, "--out", "run")
    assert answer.code == 0, answer.err
    numbers = answer.envelope["data"]["numbers"]
    assert numbers["cmd"]["value"] < numbers["cmd-random"]["value"]
    assert isinstance(load("run/result"), MIBScore)
    assert Path("run/figures/faithfulness.svg").exists()
    again = call(*asked, "--scores", "run/scores.json", "--out", "again")
    assert again.code == 0, again.err
    for name in ("cpr", "cmd", "cpr-random"):
        assert again.envelope["data"]["numbers"][name]["value"] == pytest.approx(numbers[name]["value"])
    other = call("bench", "mib", "--model", "TINY", "--scores", "run/scores.json")
    assert other.code != 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--task", "mcqa"), "lettered choices"),
        (("--task", "arithmetic_subtraction"), "There are: ioi, arithmetic_addition"),
        (("--task", "ioy"), "--task 'ioy'"),
        (("--search", "exhaustif"), "Did you mean 'exhaustive'?"),
        (("--level", "neurons"), "--level 'neurons'"),
        (("--search", "peap"), "MIB's circuits are of whole edges"),
    ],
)
def test_what_is_not_here_is_refused_with_the_reason(call: Call, flags: tuple[str, ...], reason: str) -> None:
    answer = call("bench", "mib", *flags)
    assert answer.code == 2 and reason in answer.err


def test_another_suite_is_refused(call: Call) -> None:
    answer = call("bench", "glue")
    assert answer.code == 2 and "mib" in answer.err


def test_a_plan_of_scores_forecasts_circuits_and_no_search(call: Call) -> None:
    plain = ("bench", "mib", "--level", "nodes", "--limit", "4", "--dry-run")
    scored = call(*plain, "--scores", "none.json")
    assert scored.code == 0 and scored.out.startswith("about ") and "for the circuits" in scored.out
    searched = call(*plain)
    assert "attribution" in searched.out and "for the circuits" in searched.out


def test_a_plan_runs_nothing(call: Call) -> None:
    answer = call("bench", "mib", "--limit", "4", "--dry-run")
    assert answer.code == 0 and "nothing was run" in answer.out and not Path("runs").exists()
