"""``interp lens``: a picture of one prompt, curves of many, and every wrong call in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from interp.lenses import LensCurves, LensView
from interp.results import load
from tests.interp.cli.conftest import Call

PROMPT = "the capital of France is"


def test_one_prompt_becomes_a_picture(call: Call) -> None:
    answer = call("lens", PROMPT, "--out", "run", "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    found = load("run/result")
    assert isinstance(found, LensView) and found.kind == "logit" and found.verdict() == data["verdict"]
    assert data["numbers"]["first-layer"]["value"] == found.settled()
    page = Path("run/report.html").read_text()
    assert 'class="drawing grid"' in page and page.count("rank of the model") >= 24 * len(found.tokens)
    assert Path("run/figures/lens.svg").is_file() and Path("run/tables/cells.parquet").is_file()
    shown = call("show", "run")
    assert shown.code == 0 and "The model's next word is 'Paris'" in shown.out


def test_without_text_the_run_holds_nothing_of_the_prompt(call: Call) -> None:
    answer = call("lens", PROMPT, "--layers", "20,23", "--no-text", "--out", "run", "-q")
    assert answer.code == 0, answer.err
    for path in Path("run").rglob("*"):
        if path.is_file():
            assert b"Paris" not in path.read_bytes(), path


def test_many_prompts_become_curves_of_several_lenses(call: Call) -> None:
    target = "w01 w02 w01 ?"
    answer = call("lens", "--model", "TINY", "--data", "DATA", "--kind", "logit", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, LensCurves) and set(found.trained) == set(found.untrained) == {"logit"}
    assert len(found.groups) == 160 and len(set(found.groups)) == 40
    assert {"agreement.svg", "untrained.svg", "kl.svg", "rank.svg"} <= {
        path.name for path in Path("run/figures").iterdir()
    }
    assert "agreement-logit" in answer.envelope["data"]["numbers"]
    refused = call("lens", "--model", "TINY", "--data", "DATA", "--kind", "patchscope", "--target", target)
    assert refused.code == 2 and "has no token with '?'" in refused.err


def test_the_file_of_a_published_lens_is_read(call: Call) -> None:
    rows = {layer: torch.eye(32) for layer in (0, 1)}
    torch.save({"J": rows, "source_layers": [0, 1], "n_prompts": 1, "d_model": 32}, "lens.pt")
    answer = call("lens", "w01 w02 w03", "--model", "TINY", "--kind", "lens.pt", "--out", "run", "-q")
    assert answer.code == 0, answer.err
    own = call("lens", "w01 w02 w03", "--model", "TINY", "--out", "own", "-q")
    assert own.code == 0
    read, logit = load("run/result"), load("own/result")
    assert isinstance(read, LensView) and isinstance(logit, LensView)
    assert read.kind == "jacobian" and read.words == logit.words  # the identity reads as the logit lens
    torch.save({"J": {0: torch.eye(8)}}, "lens.pt")
    refused = call("lens", "w01 w02", "--model", "TINY", "--kind", "lens.pt", "--out", "no")
    assert refused.code == 6 and refused.err.count("\n") <= 2 and "of another model" in refused.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "no prompt"),
        ((PROMPT, "--task", "fact-relation"), "not both"),
        ((PROMPT, "--kind", "logjt"), "Did you mean 'logit'?"),
        ((PROMPT, "--kind", "logit,translator"), "one prompt is read by one lens"),
        ((PROMPT, "--target", "a ?"), "add --kind patchscope"),
        ((PROMPT, "--layers", "99"), "layer 99"),
        ((PROMPT, "--kind", "no/lens.pt"), "there is no lens at"),
    ],
)
def test_wrong_calls_end_in_one_line(call: Call, args: tuple[str, ...], message: str) -> None:
    answer = call("lens", *args)
    assert answer.code in (2, 6) and message in answer.err and "Traceback" not in answer.err
