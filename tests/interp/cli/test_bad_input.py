"""Wrong calls: each ends with its code and one line that says what is wrong and what to do; nothing stays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interp.cli.conftest import Call

P = ("probe", "--model", "TINY")
ROWS = "".join(f"w{i % 50:02d} w{i % 7:02d},{'a' if i % 2 else 'b'},g{i}\n" for i in range(60))


def text(name: str, content: str) -> Callable[[], None]:
    return lambda: bool(Path(name).write_text(content)) and None


def binary(name: str, content: bytes) -> Callable[[], None]:
    return lambda: bool(Path(name).write_bytes(content)) and None


def folder(name: str) -> Callable[[], None]:
    return lambda: Path(name).mkdir()


def thesis() -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("all my work")


def no_model() -> None:
    Path("no-model").mkdir()
    Path("no-model/notes.txt").write_text("x")


def torn_model() -> None:
    Path("torn").mkdir()
    Path("torn/config.json").write_text('{"model_type": "llama", "num_hidden_layers": ')


def damaged_run() -> None:
    unfinished_run()
    Path("run/manifest.json").write_text("{")


def unfinished_run() -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"schema": "interp.run/1", "command": "probe", "configuration": {}}')


def sealed() -> None:
    Path("sealed").mkdir(mode=0o555)


def rows(*pairs: tuple[str, str]) -> str:
    return "text,label\n" + "".join(f"{t},{label}\n" for t, label in pairs)


LONG = " ".join(["w01"] * 60)
ONE_CLASS = "text,label,group\n" + ROWS.replace(",a,", ",b,")
GOOD = "text,label,group\n" + ROWS
LEAK = "text,label,group,split\n" + "".join(
    f"w{i:02d},{'ab'[i % 2]},same,{['train', 'test'][i // 2 % 2]}\n" for i in range(40)
)
NOTHING = None

# name: (what is there before, the call, exit code, what the line must say)
CALLS: dict[str, tuple[Callable[[], None] | None, tuple[str, ...], int, tuple[str, ...]]] = {
    "no such command": (NOTHING, ("prob",), 2, ("'prob'", "allowed: probe", "Did you mean 'probe'?")),
    "no such flag": (NOTHING, ("probe", "--layr", "3"), 2, ("'--layr'", "Did you mean '--layer'?")),
    "flag without its value": (NOTHING, ("probe", "--layer"), 2, ("--layer", "--help")),
    "argument too many": (NOTHING, ("probe", "20"), 2, ("20", "--help")),
    "argument missing": (NOTHING, ("show",), 2, ("RUN", "--help")),
    "layer too high": (
        NOTHING,
        (*P, "--data", "DATA", "--layer", "99"),
        2,
        ("layer 99", "0..2", "resid_post.2"),
    ),
    "layers backwards": (NOTHING, (*P, "--data", "DATA", "--layers", "2-1"), 2, ("2-1", "backwards", "1-2")),
    "layers no grammar": (NOTHING, (*P, "--data", "DATA", "--layers", "two"), 2, ("'two'", "8-24:4")),
    "layers over 100 per cent": (NOTHING, (*P, "--data", "DATA", "--layers", "150%"), 2, ("150%", "100%")),
    "unknown task": (
        NOTHING,
        ("probe", "--task", "analogy-relatin"),
        2,
        ("--task", "Did you mean 'analogy-relation'?"),
    ),
    "task and data": (
        NOTHING,
        (*P, "--task", "category", "--data", "DATA"),
        2,
        ("--task", "--data", "exclude"),
    ),
    "unknown protocol": (
        NOTHING,
        ("probe", "--protocol", "bridges"),
        2,
        ("--protocol", "Did you mean 'bridge'?"),
    ),
    "protocol and task": (
        NOTHING,
        ("probe", "--protocol", "bridge", "--task", "analogy-relation"),
        2,
        ("--protocol has its own prompts",),
    ),
    "protocol and kind": (
        NOTHING,
        ("probe", "--protocol", "bridge", "--kind", "ridge"),
        2,
        ("leave --kind out",),
    ),
    "protocol and unknown control": (
        NOTHING,
        ("probe", "--layer", "0", "--protocol", "bridge", "--controls", "permuted"),
        2,
        ("--controls", "permuted-codebook"),
    ),
    "gate of another analysis": (
        NOTHING,
        ("probe", "--protocol", "bridge", "--fail-under", "accuracy=0.5"),
        2,
        ("--fail-under", "top1"),
    ),
    "no prompt to decode": (NOTHING, ("decode",), 2, ("no prompt; give one", "--questions facts")),
    "an empty prompt to decode": (NOTHING, ("decode", " "), 2, ("no prompt; give one",)),
    "decode of several layers": (NOTHING, ("decode", "--layer", "1,2", "w01"), 2, ("names 2 layers",)),
    "decode with no such probe": (
        NOTHING,
        ("decode", "--layer", "1", "--probe", "nowhere", "w01"),
        2,
        ("--probe", "no probe in nowhere"),
    ),
    "decode with no number of concepts": (NOTHING, ("decode", "--top", "0", "w01"), 2, ("--top",)),
    "a kind for numbers": (
        NOTHING,
        (*P, "--kind", "ridge-regression", "--data", "DATA"),
        2,
        ("reads numbers", "one label", "logistic", "RidgeRegressionProbe"),
    ),
    "unknown mediator": (NOTHING, ("patch", "--mediators", "haed.*"), 2, ("unknown site 'haed.*'", "head")),
    "unknown search": (NOTHING, ("patch", "--search", "acdcc"), 2, ("--search", "exhaustive, attribution")),
    "unknown metric": (NOTHING, ("patch", "--metric", "logit-dif"), 2, ("Did you mean 'logit-diff'?",)),
    "unknown counterfactual": (
        NOTHING,
        ("patch", "--counterfactual", "country"),
        2,
        ("counterfactual 'country'", "subject, relation, null"),
    ),
    "a task without pairs": (NOTHING, ("patch", "--task", "categroy"), 2, ("'categroy'", "capitals")),
    "workers for a search that they do not share": (
        NOTHING,
        ("patch", "--workers", "2", "--search", "attribution"),
        2,
        ("--workers 2", "Leave --workers out"),
    ),
    "states to no address": (NOTHING, ("capture", "--store", "s3"), 2, ("--store 's3'", "s3://bucket/x")),
    "states to no known system": (
        NOTHING,
        ("capture", "--store", "s4://x/y"),
        2,
        ("s4://x/y", "cannot be used"),
    ),
    "patching nowhere": (NOTHING, ("patch", "--where", "start"), 2, ("--where", "auto, all, each")),
    "prompt and questions": (
        NOTHING,
        ("decode", "--questions", "facts", "the capital of France is"),
        2,
        ("a prompt or --questions", "not both"),
    ),
    "questions without answers": (
        text("q.csv", "question,anwser\nwhere,here\n"),
        ("decode", "--questions", "q.csv"),
        3,
        ("no column 'answer'", "Is 'anwser' meant?"),
    ),
    "unknown kind": (NOTHING, ("probe", "--kind", "logistc"), 2, ("--kind", "Did you mean 'logistic'?")),
    "unknown control": (
        NOTHING,
        ("probe", "--controls", "shufled"),
        2,
        ("--controls", "Did you mean 'shuffled'?"),
    ),
    "position a word": (
        NOTHING,
        ("probe", "--position", "first"),
        2,
        ("--position 'first'", "last", "index"),
    ),
    "position not there": (NOTHING, (*P, "--data", "DATA", "--position", "7"), 3, ("7",)),
    "gate without a value": (
        NOTHING,
        ("probe", "--kind", "ridge", "--fail-under", "accuracy"),
        2,
        ("'='", "accuracy=0.8"),
    ),
    "gate of no metric": (
        NOTHING,
        ("probe", "--kind", "ridge", "--fail-under", "acuracy=1"),
        2,
        ("Did you mean 'accuracy'?",),
    ),
    "gate of no number": (
        NOTHING,
        ("probe", "--kind", "ridge", "--fail-under", "accuracy=high"),
        2,
        ("'high'", "not a number"),
    ),
    "gate of a control left out": (
        NOTHING,
        ("probe", "--kind", "ridge", "--controls", "majority", "--fail-under", "over-shuffled=0"),
        2,
        ("over-shuffled", "over-majority"),
    ),
    "unknown backend": (NOTHING, ("probe", "--backend", "nnsite"), 2, ("nnsite", "Did you mean 'nnsight'?")),
    "unknown scheme": (NOTHING, ("probe", "--scheme", "in4"), 2, ("in4", "rtn8", "Did you mean 'int4'?")),
    "scheme that needs texts": (NOTHING, ("probe", "--scheme", "gptq4"), 2, ("gptq4", "calibration")),
    "unknown device": (NOTHING, ("probe", "--device", "gpu"), 2, ("--device 'gpu'", "cuda")),
    "device not here": (NOTHING, (*P, "--data", "DATA", "--device", "cuda:7"), 2, ("cuda:7", "cpu")),
    "unknown dtype": (NOTHING, ("probe", "--dtype", "float8"), 2, ("--dtype 'float8'", "float16")),
    "seed no number": (NOTHING, ("probe", "--seed", "abc"), 2, ("--seed 'abc'", "whole number")),
    "batch of none": (NOTHING, ("probe", "--batch-size", "0"), 2, ("--batch-size '0'", "auto")),
    "limit below one": (NOTHING, ("probe", "--limit", "0"), 2, ("--limit '0'", "from 1")),
    "set of nothing known": (
        NOTHING,
        ("probe", "--set", "layer=3"),
        2,
        ("'layer'", "Did you mean 'layers'?"),
    ),
    "config not there": (NOTHING, ("probe", "--config", "run.yaml"), 2, ("run.yaml", "not a file")),
    "config no YAML": (text("run.yaml", "a: ["), ("probe", "--config", "run.yaml"), 2, ("run.yaml", "line")),
    "project file wrong": (
        text("interp.yaml", "sede: 1"),
        ("probe",),
        2,
        ("interp.yaml", "Did you mean 'seed'?"),
    ),
    "own code by file": (
        text("interp.yaml", "trust_remote_code: true"),
        ("probe",),
        2,
        ("--trust-remote-code",),
    ),
    "overwrite and resume": (
        NOTHING,
        (*P, "--data", "DATA", "--overwrite", "--resume"),
        2,
        ("exclude each other",),
    ),
    "out is a file": (text("x", ""), (*P, "--data", "DATA", "--out", "x"), 2, ("--out 'x'", "is a file")),
    "out below a file": (
        text("x", ""),
        (*P, "--data", "DATA", "--out", "x/y"),
        2,
        ("--out 'x/y'", "cannot be written"),
    ),
    "out not writable": (
        NOTHING,
        (*P, "--data", "DATA", "--out", "/proc/x"),
        2,
        ("/proc/x", "cannot be written"),
    ),
    "out is someone's work": (
        thesis,
        (*P, "--data", "DATA", "--out", "thesis", "--overwrite"),
        2,
        ("thesis", "left alone"),
    ),
    "out is unfinished": (
        unfinished_run,
        (*P, "--data", "DATA", "--out", "run"),
        2,
        ("unfinished", "--resume"),
    ),
    "sites not there": (
        NOTHING,
        ("capture", "--model", "TINY", "--data", "DATA", "--sites", "resid_pots.1"),
        2,
        ("resid_pots",),
    ),
    "list of nothing known": (NOTHING, ("ls", "task"), 2, ("WHAT 'task'", "Did you mean 'tasks'?")),
    "report onto a folder": (folder("d"), ("report", "nowhere", "--out", "d"), 6, ("nowhere",)),
    "data not there": (NOTHING, (*P, "--data", "word.csv"), 3, ("word.csv", "does not exist")),
    "data a folder": (folder("d.csv"), (*P, "--data", "d.csv"), 3, ("d.csv", "folder")),
    "data of no known kind": (text("d.xlsx", "x"), (*P, "--data", "d.xlsx"), 3, (".xlsx", ".csv")),
    "data empty": (text("d.csv", ""), (*P, "--data", "d.csv"), 3, ("d.csv",)),
    "data of headings only": (text("d.csv", "text,label\n"), (*P, "--data", "d.csv"), 3, ("no rows",)),
    "column missing": (
        text("d.csv", "text,lable\nw01,a\n"),
        (*P, "--data", "d.csv"),
        3,
        ("'label'", "'lable'", "Rename"),
    ),
    "not UTF-8": (
        binary("d.csv", "text,label\né,a\n".encode("latin-1")),
        (*P, "--data", "d.csv"),
        3,
        ("UTF-8", "byte"),
    ),
    "not JSON": (text("d.jsonl", "{\n"), (*P, "--data", "d.jsonl"), 3, ("line 1", "JSON")),
    "a cell empty": (
        text("d.csv", rows(("w01", "a"), ("w02", ""))),
        (*P, "--data", "d.csv"),
        3,
        ("line 3", "'label'"),
    ),
    "one class": (text("d.csv", ONE_CLASS), (*P, "--data", "d.csv"), 3, ("label 'b'", "two labels")),
    "a class of one": (
        text("d.csv", GOOD + "w01,rare,gx\n"),
        (*P, "--data", "d.csv"),
        3,
        ("'rare'", "1 of the 3 groups"),
    ),
    "a label like markup": (
        text("d.csv", GOOD + "w01,[/red]\x1b[31m,gx\n"),
        (*P, "--data", "d.csv"),
        3,
        ("[/red]\\x1b[31m", "1 of the 3 groups"),
    ),
    "a group in two splits": (
        text("d.csv", LEAK),
        (*P, "--data", "d.csv"),
        3,
        ("'same'", "more than one split"),
    ),
    "a split of no known name": (
        text("d.csv", "text,label,split\nw01,a,dev\n"),
        (*P, "--data", "d.csv"),
        3,
        ("'dev'", "validation"),
    ),
    "prompt too long": (
        text("d.csv", GOOD + f"{LONG},a,gz\n"),
        (*P, "--data", "d.csv"),
        3,
        ("60", "48"),
    ),
    "no such model": (NOTHING, ("probe", "--model", "./nowhere", "--data", "DATA"), 4, ("nowhere",)),
    "model a folder of something else": (
        no_model,
        ("probe", "--model", "no-model", "--data", "DATA"),
        4,
        ("config.json", "notes.txt"),
    ),
    "model torn": (torn_model, ("probe", "--model", "torn", "--data", "DATA"), 4, ("torn",)),
    "model a file": (text("m", ""), ("doctor", "--model", "m"), 4, ("'m'", "file")),
    "weights not there": (NOTHING, (*P, "--data", "DATA", "--weights", "edited"), 4, ("edited.safetensors",)),
    "run not there": (NOTHING, ("show", "runs/x"), 6, ("'runs/x'", "nothing there", "interp ls runs")),
    "run damaged": (damaged_run, ("show", "run", "--verify"), 6, ("manifest.json", "not valid JSON")),
    "run unfinished": (unfinished_run, ("report", "run"), 6, ("never finished",)),
    "run of someone else": (thesis, ("show", "thesis"), 6, ("not made by this toolkit",)),
}


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in Path().rglob("*")}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_is_answered_in_one_line_and_leaves_nothing(call: Call, name: str) -> None:
    prepare, arguments, code, parts = CALLS[name]
    if prepare is not None:
        prepare()
    before = everything()
    answer = call(*arguments)
    told = [line for line in answer.err.splitlines() if not line.startswith(("data: ", "model: "))]
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert len(told) == 1, answer.err
    for part in parts:
        assert part in told[0]
    assert told[0].rstrip().endswith((".", "?", ")", "all")) and len(told[0]) < 600
    assert not any(character in answer.err for character in "\x1b\x07")
    assert everything() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(call: Call) -> None:
    sealed()
    answer = call(*P, "--data", "DATA", "--out", "sealed/x")
    assert answer.code == 2 and "Permission denied" in answer.err


@pytest.mark.parametrize(
    "name", ["unknown task", "one class", "no such model", "run not there", "no such flag", "no such command"]
)
def test_with_json_the_envelope_says_the_same(call: Call, name: str) -> None:
    prepare, arguments, code, _ = CALLS[name]
    if prepare is not None:
        prepare()
    answer = call(*arguments, "--json")
    envelope = answer.envelope
    assert (answer.code, envelope["status"], envelope["data"]["error"]["exit_code"]) == (code, "error", code)
    assert envelope["data"]["error"]["message"].split("\n")[0][:20] in answer.err
    assert json.loads(answer.out)["command"] in (arguments[0], "")
