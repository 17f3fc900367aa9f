"""Pairs and mediators that cannot be patched: each ends with its code and a line that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from interp.mediation import Subspace
from tests.interp.cli.conftest import Call
from tests.tiny import build, tokenizer

GOOD = {"clean": "w01 w02 w03", "corrupt": "w04 w02 w03", "answer": "w10", "foil": "w11"}
PATCH = ("patch", "--model", "TINY", "--data", "pairs.jsonl")


def written(*changes: dict[str, str]) -> None:
    lines = [json.dumps(GOOD | change) for change in changes]
    Path("pairs.jsonl").write_text("\n".join(lines) + "\n")


CASES = {
    "lengths": (
        {"corrupt": "w04 w02 w03 w05"},
        "AlignmentError: pair 1: clean has 3 tokens, corrupt has 4; they first differ at token 0",
        "misaligned='drop'",
    ),
    "answer is foil": (
        {"foil": "w10"},
        "pair 1: the answer 'w10' and the foil 'w10' are the same",
        "no metric can tell",
    ),
    "first tokens": (
        {"answer": "w10 w12", "foil": "w10 w13"},
        "pair 1: the answer 'w10 w12' and the foil 'w10 w13' start with the same token",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pairs_that_cannot_be_measured(call: Call, case: str) -> None:
    change, found, remedy = CASES[case]
    written({}, change)
    answer = call(*PATCH)
    assert answer.code == 3
    assert found in answer.err and remedy in answer.err
    assert len(answer.err.strip().splitlines()) <= 2


def test_a_total_effect_of_zero(call: Call) -> None:
    written({"corrupt": GOOD["clean"]}, {"clean": "w05 w02 w03", "corrupt": "w05 w02 w03"})
    answer = call(*PATCH)
    assert answer.code == 3
    assert "the total effect is zero: clean and corrupt prompt are the same in all 2 pairs" in answer.err
    assert "Give corrupt prompts that differ" in answer.err
    written({})
    assert call(*PATCH, "--out", "run").code == 0


def test_whole_answers_are_measured_as_the_message_says(call: Call) -> None:
    change = {"answer": "w10 w12", "foil": "w10 w13"}
    written(change, change | {"clean": "w05 w02 w03"}, change | {"clean": "w06 w02 w03"})
    answer = call(*PATCH)
    assert answer.code == 3 and "(--metric answer-log-odds)" in answer.err
    answer = call(*PATCH, "--metric", "answer-log-odds", "--json")
    assert answer.code == 0, answer.err


def test_settings_that_would_be_ignored_are_refused(call: Call) -> None:
    written({})
    answer = call(*PATCH, "--counterfactual", "name")
    assert answer.code == 2 and "--data brings its own corrupt prompts. Give one of them" in answer.err
    answer = call("compare", "--model", "TINY", "--analyses", "all,typo")
    assert answer.code == 2 and "--analyses 'typo' is not known; allowed: all," in answer.err


def test_a_subspace_of_another_width(call: Call) -> None:
    written({}, {"clean": "w05 w02 w03"})
    Subspace.of(torch.eye(16)[:2], "narrow").save("narrow.safetensors")
    answer = call(*PATCH, "--mediators", "subspace:narrow.safetensors@resid_post.1")
    assert answer.code == 2
    assert "subspace 'narrow' has width 16, but 'resid_post.1'" in answer.err
    assert "has width 32" in answer.err and "Give a subspace found at that site" in answer.err
    missing = call(*PATCH, "--mediators", "subspace:nowhere.safetensors@resid_post.1")
    assert missing.code == 3
    assert "nowhere.safetensors" in missing.err


def test_a_mediator_that_a_parallel_block_does_not_have(call: Call) -> None:
    written({}, {"clean": "w05 w02 w03"})
    build("gpt_neox").save_pretrained("neox")
    tokenizer().save_pretrained("neox")
    answer = call("patch", "--model", "neox", "--data", "pairs.jsonl", "--mediators", "resid_mid.*")
    assert answer.code == 2
    assert "gpt_neox runs attention and MLP in parallel, so it has no 'resid_mid'" in answer.err
    edge = call("patch", "--model", "neox", "--data", "pairs.jsonl", "--mediators", "edge.head.0.1->mlp.0")
    assert edge.code == 2
    assert "head.0.1" in edge.err


def test_files_and_tasks_of_another_command_name_it(call: Call) -> None:
    """Pairs given to probe, a table given to patch, and a task that has no pairs; each remedy works."""
    written({}, {})
    answer = call("probe", "--model", "TINY", "--data", "pairs.jsonl")
    assert answer.code == 3 and "Give it to `interp patch --data`" in answer.err
    assert call(*PATCH, "--out", "run").code == 0
    Path("table.csv").write_text("clean,corrupt,answer,foil\nw01 w02,w03 w02,w10,w11\n")
    answer = call("patch", "--model", "TINY", "--data", "table.csv")
    assert answer.code == 3 and '.jsonl file of one object per line, such as {"clean"' in answer.err
    answer = call("patch", "--model", "TINY", "--task", "fact-relation")
    assert answer.code == 2 and "`interp ls pairs`" in answer.err


def test_pairs_of_which_none_lines_up_name_the_flag_that_shows_why(call: Call) -> None:
    written({"corrupt": "w04 w02"})
    answer = call(*PATCH, "--misaligned", "drop")
    assert answer.code == 3 and "(--misaligned refuse)" in answer.err
    assert "they first differ at token" in call(*PATCH, "--misaligned", "refuse").err
