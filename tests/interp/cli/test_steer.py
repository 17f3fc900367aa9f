"""``interp steer``: what a fit leaves, what a vector adds to a prompt, and wrong calls in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from interp.analyses.steering import Steered, SteeringResult
from interp.cli.steer import SteerSettings, _job
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


@pytest.mark.parametrize("score", ["texts", pytest.param("lexicon", marks=pytest.mark.slow)])
def test_what_a_fit_takes_is_the_tokens_that_the_model_reads(
    call: Call, monkeypatch: pytest.MonkeyPatch, score: str
) -> None:
    """The announcement counts passes of one prompt; the oracle counts every token that enters the model.

    A token that is drawn costs more than one that is read, by ``DRAWN``; here it enters alone, as one.
    """
    read: list[int] = []
    hook = demo().hf.register_forward_pre_hook(
        lambda _, args, given: read.append(_tokens(args, given)), with_kwargs=True
    )
    line = ("--doses", "0.5,1", "--score", score, "--words", "Lima,Rome", "--layer", "20")
    monkeypatch.setattr("interp.cli.steer.DRAWN", 0.0)
    monkeypatch.setattr("interp.models.load", lambda *_, **__: demo())
    found = {}
    try:
        for draws in (3, 6):
            read.clear()
            answer = call("steer", "--fit", pairs(), *line, "--draws", f"{draws}", "--out", f"v{draws}")
            assert answer.code == 0, answer.err
            found[draws] = sum(read)
    finally:
        hook.remove()
    settings = SteerSettings(fit=pairs(), doses=("0.5", "1"), score=score, words=("Lima", "Rome"), layer="20")
    job, mean = _job(demo(), settings), sum(demo().tokenize(_job(demo(), settings).texts).lengths) / 8
    assert len(job.texts) == 8 and (job.least, job.whole) == (3, 8)
    for draws, tokens in found.items():
        assert job.passes(draws) * mean == pytest.approx(tokens, rel=0.4)
    more = (job.passes(6) - job.passes(3)) * mean
    assert more == pytest.approx(found[6] - found[3], rel=0.4)
    assert job.settings(3) == {"draws": 3} and job.shown(3) == "3 random directions"


def _tokens(args: tuple[object, ...], given: dict[str, object]) -> int:
    """Positions of all rows of one forward pass, padding among them."""
    ids = given.get("input_ids", args[0] if args else None)
    return ids.numel() if isinstance(ids, torch.Tensor) else 0
