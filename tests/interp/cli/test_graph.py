"""``interp graph``: a run with a page whose nodes open, JSON for Neuronpedia, and wrong calls in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp.mediation import AttributionGraph
from interp.results import load
from tests.interp.cli.conftest import Call

PROMPT = "w05 w06 w07"


def test_a_graph_becomes_a_run_with_a_page(call: Call) -> None:
    answer = call("graph", PROMPT, "--model", "TINY", "--out", "run", "--neuronpedia", "g.json", "--json")
    assert answer.code == 0, answer.err
    data, found = answer.envelope["data"], load("run/result")
    assert isinstance(found, AttributionGraph) and found.verdict() == data["verdict"]
    page = Path("run/graph.html").read_text()
    assert page.count('class="card"') == len(found.nodes) and "w06" in page
    assert Path("run/figures/graph.svg").is_file()
    again = call("graph", "--read", "g.json", "--model", "TINY", "--out", "again", "-q")
    read = load("again/result")
    assert again.code == 0 and isinstance(read, AttributionGraph) and read.edges == found.edges
    content = json.loads(Path("g.json").read_text())
    assert len(content["nodes"]) == len(found.nodes) and len(content["links"]) == len(found.edges)


def test_a_dry_run_says_what_a_graph_takes_and_writes_nothing(call: Call) -> None:
    answer = call("graph", PROMPT, "--model", "TINY", "--limit", "200", "--dry-run", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    assert answer.envelope["data"]["parts"] == 200 and not Path("run").exists()


def test_without_text_the_run_holds_nothing_of_the_prompt(call: Call) -> None:
    answer = call("graph", PROMPT, "--model", "TINY", "--no-text", "--out", "run", "-q")
    assert answer.code == 0, answer.err
    for path in Path("run").rglob("*"):
        if path.is_file():
            assert b"w06" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "no prompt"),
        ((PROMPT, "--foil", "w08"), "give both"),
        ((PROMPT, "--read", "g.json"), "not both"),
        (("--read", "nowhere.json"), "is no attribution graph"),
        ((PROMPT, "--keep", "1.5"), "--keep"),
        ((PROMPT, "--no-text", "--neuronpedia", "g.json"), "Give one of them"),
        ((PROMPT, "--features", "nowhere"), "there is no folder 'nowhere'"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(call: Call, args: tuple[str, ...], message: str) -> None:
    answer = call("graph", *args, "--model", "TINY", "--out", "run", "-q")
    assert answer.code not in (0, 1) and message in answer.err and answer.err.count("\n") <= 2
