"""``interp probe --protocol`` and ``interp decode`` on the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interp.cli.conftest import Call


@pytest.fixture
def small() -> tuple[str, ...]:
    return ("--layer", "23", "--limit", "900", "--out", "run")


def test_the_main_job_reads_concepts_and_leaves_a_whole_run(call: Call, small: tuple[str, ...]) -> None:
    answer = call("probe", *small, "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["result"] if "result" in answer.envelope else answer.envelope["data"]
    assert data["protocol"] == "concept-disjoint" and data["layer"] == 23
    names = {row["name"] for row in data["scores"]}
    assert {"probe", "permuted-codebook", "random-weights", "ordered-slots", "logit-lens", "chance"} <= names
    files = {path.name for path in Path("run").rglob("*") if path.is_file()}
    assert {"metrics.json", "data.parquet", "report.html", "scores.svg", "codebook.safetensors"} <= files
    page = Path("run/report.html").read_text()
    assert "Belief or truth?" in page and "Is the answer in the state" in page
    shown = call("show", "run")
    assert shown.code == 0 and "permuted-codebook" in shown.out
    read = call("decode", "--layer", "23", "--probe", "run/probes/resid_post.23", "the capital of France is")
    assert read.code == 0 and "similarity" in read.out and "Paris" in read.out
    wrong = call("decode", "--layer", "22", "--probe", "run/probes/resid_post.23", "the capital of France is")
    assert wrong.code == 2 and "made for something else" in wrong.err


def test_without_text_no_prompt_is_left_in_the_run(call: Call) -> None:
    answer = call(
        "probe", "--layer", "20", "--limit", "300", "--protocol", "in-context", "--controls", "shuffled",
        "--no-text", "--out", "run", "-q",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert " has the " not in Path("run/metrics.json").read_text()


def test_a_gate_on_a_control_fails_the_call(call: Call) -> None:
    answer = call(
        "probe", "--layer", "20", "--limit", "300", "--protocol", "in-context", "--controls", "bag-of-tokens",
        "--fail-under", "over-bag-of-tokens=1.5", "--out", "run", "-q",
    )  # fmt: skip
    assert answer.code == 7 and "over-bag-of-tokens" in answer.err


def test_questions_are_read_before_and_after_they_are_answered(call: Call) -> None:
    Path("q.csv").write_text(
        "question,answer\nthe capital of France is,Paris\nthe capital of Japan is,Tokyo\n"
    )
    answer = call("decode", "--layer", "23", "--questions", "q.csv", "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["result"] if "result" in answer.envelope else answer.envelope["data"]
    assert [reply["generated"] for reply in data["replies"]] == ["Paris .", "Tokyo ."]
    assert data["replies"][0]["before"] == ["Paris"]
    shown = call("decode", "--layer", "23", "--questions", "q.csv")
    assert "lost: Paris" in shown.out and "with another question's" in shown.out


def test_protocols_are_listed_and_planned(call: Call) -> None:
    assert "pair-disjoint" in call("ls", "protocols").out
    answer = call("probe", "--layer", "20", "--protocol", "bridge", "--dry-run")
    assert answer.code == 0 and not Path("runs").exists()
