"""``interp look``, ``interp edit``, ``interp serve``: what they leave, and every wrong call in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas
import pytest

from interp.analyses.looking import CellEdit, Surprise
from interp.cli.main import settings_of_commands
from interp.results import load
from tests.interp.cli.conftest import Call


def test_a_prompt_is_looked_at_and_nothing_of_it_is_kept_without_text(call: Call) -> None:
    words = ("look", "w01 w02 w03 w04", "--model", "TINY", "--draws", "3", "--out", "run", "-q")
    answer = call(*words, "--no-text")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, Surprise) and found.prompt == "" and set(found.tokens) == {""}
    assert nothing_of("w03")
    again = call("look", "--config", "run/run.json", "--out", "again")
    assert again.code == 2 and "no prompt" in again.err and not Path("again").exists()


def nothing_of(word: str) -> bool:
    files = [one for one in Path("run").rglob("*") if one.is_file()]
    said = [one.read_bytes() for one in files if one.suffix != ".parquet"]
    said += [pandas.read_parquet(one).to_csv().encode() for one in files if one.suffix == ".parquet"]
    return len(files) > 5 and not any(word.encode() in one for one in said)


SECRET = {
    "edit": ("--site", "resid_post.1", "--how", "steer", "--source", "w01 w09", "--against", "w09 w01"),
    "generate": ("--max-new-tokens", "3", "--stop", "w09"),
    "lens": ("--layers", "1"),
    "graph": ("--limit", "10", "--foil", "w09", "--answer", "w05", "--instead", "w01 w09 w03"),
}


@pytest.mark.parametrize("name", SECRET)
def test_no_text_that_a_model_reads_is_kept(call: Call, name: str) -> None:
    common = ("w01 w02 w03", "--model", "TINY", "--out", "run", "-q")
    for flags in ((), ("--no-text", "--overwrite")):
        answer = call(name, *common, *SECRET[name], *flags)
        assert answer.code == 0, answer.err
        assert nothing_of("w02") == bool(flags), flags
        assert nothing_of("w09") or not flags


def test_what_a_model_reads_is_marked_as_private_in_every_command_that_can_leave_it_out() -> None:
    marked = {"--prompt"}
    for name, kind in settings_of_commands().items():
        fields = {one.name: one for one in dataclasses.fields(kind)}
        if "text" not in fields:
            continue
        for one in fields.values():
            free = one.metadata["metavar"] in ("TEXT", "WORD") and str(one.type).startswith("str")
            words = one.name in ("prompt", "stop") or (free and not one.metadata["allowed"])
            if words and one.name not in NO_TEXT:
                assert one.metadata["private"], (name, one.name)
                marked.add(one.name)
    assert {"prompt", "source", "against", "target", "answer", "foil", "instead", "stop"} <= marked


NO_TEXT = ("feature", "dictionary", "model", "revision", "weights", "spans", "metric")
"""Settings with free words that no model reads."""


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
        (("look", "w01 w02", "--view", "probe"), "go together"),
        (("serve", "--probes", "nowhere"), "holds no probe"),
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
