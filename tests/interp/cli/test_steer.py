"""``interp steer``: what a fit leaves, what a vector adds to a prompt, and wrong calls in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp.analyses.steering import Steered, SteeringResult
from interp.results import load
from interp.steering import Vector, read_control_vector
from tests.interp.cli.conftest import Call
from tests.noisy import demo

NAMES = ("France", "Japan", "Italy", "Spain", "Egypt", "Peru", "China", "India", "Cuba", "Chile")


def pairs(path: str = "pairs.jsonl", n: int = len(NAMES)) -> str:
    rows = [
        {"positive": f"the capital of {name} is", "negative": f"the currency of {name} is"}
        for name in NAMES[:n]
    ]
    Path(path).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_fit_leaves_an_evaluated_vector_that_another_call_adds(call: Call) -> None:
    line = ("--layer", "20", "--doses", "0.5", "--draws", "3", "--words", "Lima,Rome", "--gguf", "v.gguf")
    Path("neutral.txt").write_text("\n".join(f"the dog of {name} is brown" for name in NAMES[:4]))
    line = (*line, "--score", "log-odds", "--neutral", "neutral.txt")
    answer = call("steer", "--fit", pairs(), *line, "--out", "v", "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    found, vector = load("v/result"), Vector.load("v")
    assert isinstance(found, SteeringResult)
    assert found.verdict() == data["verdict"] == vector.origin.evaluated["verdict"]
    assert len(found.items) == 4
    assert vector.origin.positive == 6
    assert data["numbers"]["effect"]["value"] > 1
    read = read_control_vector("v.gguf", demo())
    assert read.unit == pytest.approx(vector.unit)
    for given in ("v", "v.gguf"):
        line = ("--with", given, "--dose", "0.7", "--max-new-tokens", "3", "the currency of Peru is")
        answer = call("steer", *line, "--out", f"texts-{given}")
        assert answer.code == 0, answer.err
        made = load(f"texts-{given}/result")
        assert isinstance(made, Steered)
        assert [one.dose for one in made.written] == [0, 0.7, -0.7, 0.7]
        assert made.written[0].text != made.written[1].text
        assert made.written[1].text in answer.out
        assert ("was not evaluated" in answer.out) == (given == "v.gguf")


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ((), 2, "give --fit FILE to fit"),
        (("--fit", "pairs.jsonl", "--with", "v"), 2, "not both"),
        (("--with", "v"), 2, "no prompt"),
        (("--fit", "pairs.jsonl", "a b"), 2, "--fit takes no prompt"),
        (("--fit", "pairs.jsonl", "--method", "pls"), 2, "mean-difference"),
        (("--fit", "pairs.jsonl", "--score", "lexicon"), 2, "needs --words"),
        (("--fit", "pairs.jsonl", "--doses", "-1,2"), 2, "positive ones"),
        (("--fit", "pairs.jsonl", "--doses", "much"), 2, "are not numbers"),
        (("--fit", "few.jsonl"), 3, "Give more"),
        (("--with", "nothing", "a b"), 6, "holds no steering vector"),
        (("--with", "v", "--dose", "much", "a b"), 2, "--dose"),
    ],
)
def test_wrong_calls_say_what_to_do(call: Call, line: tuple[str, ...], code: int, words: str) -> None:
    pairs()
    pairs("few.jsonl", 5)
    answer = call("steer", *line)
    assert answer.code == code, answer.out + answer.err
    assert words in answer.err
    assert "Traceback" not in answer.err
