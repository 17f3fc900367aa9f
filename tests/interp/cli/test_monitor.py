"""``interp monitor``: fit, watch messages and an answer, the recipe; wrong calls in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

import interp
from interp.analyses.monitoring import Talks
from interp.errors import DataError
from interp.results import load
from tests.interp.analyses.monitored import TEMPLATE, talks
from tests.interp.cli.conftest import Call

RECIPE = ("--recipe", "evaluation-awareness")


def write(path: str, data: Talks) -> None:
    rows = zip(data.prompts, data.labels, data.groups, data.sources, strict=True)
    lines = [
        {"messages": list(prompt), "label": label, "group": group, "source": source}
        for prompt, label, group, source in rows
    ]
    Path(path).write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def chats(call: Call) -> Call:
    """Conversations on disk, and a tiny model with a chat template ("talker")."""
    from tests.tiny import build, tokenizer

    words = copy.deepcopy(tokenizer())  # others use the same object
    words.chat_template = TEMPLATE
    build("llama").save_pretrained("talker")
    words.save_pretrained("talker")
    write("chats.jsonl", talks(72))
    return call


def test_it_is_fitted_and_watches(chats: Call) -> None:
    fit = (
        "--data",
        "chats.jsonl",
        "--alarm",
        "bad",
        "--layer",
        "0",
        "--fpr",
        "0.2",
        "--out",
        "fit",
        "--json",
    )
    made = chats("monitor", "--model", "talker", *fit)
    assert made.code == 0, made.err
    assert load("fit/result").verdict() == made.envelope["data"]["verdict"]
    given = ("--model", "talker", "--with", "fit/monitor")
    found = chats("monitor", *given, "--data", "chats.jsonl", "--limit", "5", "--out", "seen")
    assert found.code == 0, found.err
    lines = [json.loads(line) for line in found.out.splitlines() if line.startswith("{")]
    assert [line["conversation"] for line in lines] == list(range(5))
    assert {"score", "probability", "alarm", "peak", "role"} <= set(lines[0])
    spoken = chats("monitor", *given, "w01 w02", "--tokens", "4", "--out", "spoken")
    assert spoken.code == 0, spoken.err
    lines = [json.loads(line) for line in spoken.out.splitlines() if line.startswith("{")]
    assert [line["tokens"] for line in lines] == list(range(1, len(lines) + 1))
    assert load("spoken/result").lines[0].score == pytest.approx(lines[-1]["score"])


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ((), 2, "nothing to do: fit a monitor with --data FILE --alarm LABEL"),
        (("--data", "words.jsonl"), 2, "--data needs --alarm, the label that raises an alarm"),
        (("--data", "a.jsonl", "--alarm", "x", "--fpr", "0"), 2, "allowed: a number above 0 and below 1"),
        (("--data", "a.jsonl", "--alarm", "x", "--fpr", "2"), 2, "allowed: a number above 0 and below 1"),
        (("--data", "a.jsonl", "--alarm", "x", "--pooling", "most"), 2, "the poolings are: last, mean, max"),
        (("--data", "a.jsonl", "--alarm", "x", "--pooling", "max:2"), 2, "max has no size; write 'max'"),
        (("--data", "a.jsonl", "--alarm", "x", "--kind", "mlp"), 2, "it is a linear probe, one of: logistic"),
        (("--with", "m", "--recipe", "evaluation-awareness"), 2, "exclude each other"),
        (("--recipe", "awareness"), 2, "evaluation-awareness"),
        (("--steer", "--data", "a.jsonl", "--alarm", "x"), 2, "--steer belongs to --recipe"),
        (("hello there",), 2, "a prompt"),
        (("--with", "no-such", "hello"), 6, "holds no monitor (monitor.json is missing)"),
    ],
)
def test_wrong_calls_say_what_to_do(call: Call, line: tuple[str, ...], code: int, words: str) -> None:
    answer = call("monitor", "--model", "TINY", *line)
    assert answer.code == code, answer.err
    assert words in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(("line", "layers"), [((), "50%"), (("--layers", "all"), "all")])
def test_all_layers_are_all(
    chats: Call, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], layers: str
) -> None:
    asked: list[str] = []

    def fit(*_: object, layers: str, **__: object) -> None:
        asked.append(layers)
        raise DataError("enough")

    monkeypatch.setattr("interp.analyses.monitoring.fit_monitor", fit)
    chats("monitor", "--model", "talker", "--data", "chats.jsonl", "--alarm", "bad", *line)
    assert asked == [layers]


def test_a_dry_run_counts_what_would_be_read_and_writes_nothing(chats: Call) -> None:
    asked = ("monitor", "--model", "talker", "--data", "chats.jsonl", "--alarm", "bad", "--layers", "all")
    made = chats(*asked, "--out", "fit", "--dry-run", "--json")
    assert made.code == 0, made.err
    model = interp.load("talker")
    lengths = model.tokenize([list(prompt) for prompt in talks(72).prompts]).lengths
    found = made.envelope["data"]
    assert (found["prompts"], found["tokens"], found["sites"]) == (72, sum(lengths), model.n_layers)
    assert found["forward_equivalents"] == 72 and not Path("fit").exists()
    less = chats(*asked[:-1], "0", "--limit", "24", "--dry-run", "--json").envelope["data"]
    assert less["prompts"] == 24 and less["forward_equivalents"] == pytest.approx(24 / model.n_layers)
    recipe = ("monitor", "--model", "talker", *RECIPE, "--data", "chats.jsonl", "--alarm", "bad")
    told = [chats(*recipe, *more, "--dry-run", "--json").envelope["data"] for more in ((), ("--steer",))]
    assert told[0]["prompts"] == 72
    passes = [one["forward_equivalents"] for one in told]
    assert passes[1] > 3 * passes[0] > 3 * 72 * 2  # of the model and its untrained twin; then it is asked
    spoken = chats("monitor", "--model", "talker", "--with", "fit", "w01", "--dry-run")
    assert spoken.code == 2 and "--dry-run has no plan for one answer" in spoken.err


@pytest.mark.parametrize(
    ("line", "n", "words"),
    [
        ((*RECIPE, "--alarm", "bad"), 72, "144 prompts would take about"),
        (("--data", "chats.jsonl", "--alarm", "bad", "--fpr", "0.4"), 20, "72 prompts would take about"),
    ],
)
def test_a_budget_takes_fewer_conversations(
    chats: Call, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], n: int, words: str
) -> None:
    monkeypatch.setattr("interp.cli.frame.pass_seconds", lambda *_: 10.0)
    monkeypatch.setattr("interp.analyses.awareness.bundled", lambda: talks(144))
    made = chats("monitor", "--model", "talker", *line, "--budget", "1s", "--dry-run", "--json")
    assert made.code == 0 and words in made.err, made.err
    assert made.envelope["data"]["prompts"] == n
    whole = chats("monitor", "--model", "talker", *line, "--full", "--dry-run", "--json")
    assert whole.envelope["data"]["prompts"] > n and words not in whole.err
