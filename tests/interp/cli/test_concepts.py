"""``interp probe --protocol`` and ``interp decode`` on the bundled model."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from interp.analyses.concepts import ConceptResult
from interp.results import load
from tests.interp.cli.conftest import Call


@pytest.fixture
def small() -> tuple[str, ...]:
    return ("--layer", "23", "--limit", "900", "--out", "run")


def test_the_main_job_reads_concepts_and_leaves_a_whole_run(call: Call, small: tuple[str, ...]) -> None:
    answer = call("probe", *small, "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    assert data["about"]["data"]["name"] == "concept-disjoint" and data["schema"] == "interp.concepts/2"
    names = {row["name"] for row in data["tables"]["scores"]["rows"]}
    assert {row["layer"] for row in data["tables"]["scores"]["rows"]} == {23}
    assert {"probe", "permuted-codebook", "random-weights", "ordered-slots", "logit-lens", "chance"} <= names
    files = {path.name for path in Path("run").rglob("*") if path.is_file()}
    assert {"metrics.json", "data.parquet", "report.html", "scores.svg", "codebook.safetensors"} <= files
    rows, found = pandas.read_parquet("run/data.parquet"), load("run/result")
    assert isinstance(found, ConceptResult) and list(rows["text"]) == [item.text for item in found.prompts]
    assert list(rows.loc[rows["split"] == "test", "predicted"]) == list(found.read)
    assert rows["right"].sum() / (rows["split"] == "test").sum() == pytest.approx(found.top1.value)
    page = Path("run/report.html").read_text()
    assert "Belief or truth?" in page and "Is the answer in the state" in page
    shown = call("show", "run")
    assert shown.code == 0 and "permuted-codebook" in shown.out
    read = call("decode", "--layer", "23", "--probe", "run/probes/resid_post.23", "the capital of France is")
    assert read.code == 0 and "similarity" in read.out and "Paris" in read.out
    own = call("decode", "--probe", "run/probes/resid_post.23", "the capital of France is", "--json")
    assert own.envelope["data"]["question"].startswith("Which concepts does layer 23 hold")
    wrong = call("decode", "--layer", "22", "--probe", "run/probes/resid_post.23", "the capital of France is")
    assert wrong.code == 2 and "made for something else" in wrong.err


def test_without_text_no_prompt_is_left_in_the_run(call: Call) -> None:
    answer = call(
        "probe", "--layer", "20", "--limit", "300", "--protocol", "in-context", "--controls", "shuffled",
        "--no-text", "--out", "run", "-q",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    for path in Path("run").rglob("*"):
        if path.suffix in (".json", ".html", ".md", ".svg"):
            assert " has the " not in path.read_text(), path
        elif path.suffix == ".parquet":
            assert " has the " not in pandas.read_parquet(path).to_csv(), path


def test_a_gate_on_a_control_fails_the_call(call: Call) -> None:
    answer = call(
        "probe", "--layer", "20", "--limit", "300", "--protocol", "in-context", "--controls", "bag-of-tokens",
        "--fail-under", "over-bag-of-tokens=1.5", "--out", "run", "-q",
    )  # fmt: skip
    assert answer.code == 7 and "over-bag-of-tokens" in answer.err
    answer = call("probe", "--controls", "bag-of-tokens", "--fail-under", "over-ridge=0")
    assert answer.code == 2 and "over-bag-of-tokens" in answer.err


def test_questions_are_read_before_and_after_they_are_answered(call: Call) -> None:
    Path("q.csv").write_text(
        "question,answer\nthe capital of France is,Paris\nthe capital of Japan is,Tokyo\n"
    )
    answer = call("decode", "--layer", "23", "--questions", "q.csv", "--json")
    assert answer.code == 0, answer.err
    replies = answer.envelope["data"]["tables"]["replies"]["rows"]
    assert [reply["generated"] for reply in replies] == ["Paris .", "Tokyo ."]
    assert replies[0]["before"] == replies[0]["lost"] == "Paris"
    shown = call("decode", "--layer", "23", "--questions", "q.csv", "--statements", "300")
    assert "by luck" in shown.out and "the capital of Japan is" in shown.out


def test_protocols_are_listed_and_planned(call: Call) -> None:
    assert "pair-disjoint" in call("ls", "protocols").out
    answer = call("probe", "--layer", "20", "--protocol", "bridge", "--dry-run")
    assert answer.code == 0 and not Path("runs").exists()
