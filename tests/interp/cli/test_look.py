"""``interp look``, ``interp edit``, ``interp serve``: what they leave, and every wrong call in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.analyses.looking import CellEdit, Surprise
from interp.results import load
from tests.interp.cli.conftest import Call


def test_a_prompt_is_looked_at_and_nothing_of_it_is_kept_without_text(call: Call) -> None:
    words = ("look", "w01 w02 w03 w04", "--model", "TINY", "--draws", "3", "--out", "run", "-q")
    answer = call(*words, "--no-text")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, Surprise) and found.prompt == "" and set(found.tokens) == {""}
    said = ("run.json", "report.html")  # which hold the command, as it was typed
    for path in (one for one in Path("run").rglob("*") if one.is_file() and one.name not in said):
        assert b"w03" not in path.read_bytes(), path


def test_a_place_is_edited(call: Call) -> None:
    words = ("edit", "w01 w02 w03", "--model", "TINY", "--site", "mlp_out.1", "--token", "1", "--draws", "3")
    answer = call(*words, "--how", "patch", "--source", "w01 w09 w03", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, CellEdit) and (found.site, found.position, found.how) == (
        "mlp_out.1",
        1,
        "patch",
    )
    assert answer.envelope["data"]["numbers"]["kl"]["value"] == found.kl


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("look",), "no prompt"),
        (("look", "w01 w02", "--limit", "2"), "--limit counts prompts"),
        (("look", "w01 w02", "--view", "heads"), "--view 'heads' is not allowed"),
        (("edit", "w01 w02"), "no --site"),
        (("edit", "w01 w02", "--site", "embed", "--how", "zerro"), "Did you mean 'zero'?"),
        (("edit", "w01 w02", "--site", "embed", "--model", "TINY", "--how", "patch"), "needs source"),
        (("serve", "nowhere"), "is no folder"),
        (("serve", "--port", "80"), "1024 to 65535"),
        (("serve", "--time-limit", "0"), "a number above 0"),
    ],
)
def test_wrong_calls_end_in_one_line(call: Call, args: tuple[str, ...], message: str) -> None:
    answer = call(*args)
    assert answer.code in (2, 4) and message in answer.err and "Traceback" not in answer.err, answer.err
