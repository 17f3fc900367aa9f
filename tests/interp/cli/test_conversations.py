"""Commands over conversations: what is stored, and what is shown of it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import torch

from interp.store import ActivationStore
from interp.tasks import read_labelled
from tests.chats import chats, tiny_chat
from tests.interp.cli.conftest import Call

SITE = "resid_post.1"


def test_capture_and_show_at_a_selector(tmp_path: Path, call: Call) -> None:
    model = tiny_chat()
    model.hf.save_pretrained(tmp_path / "tiny")
    assert model.tokenizer is not None
    model.tokenizer.save_pretrained(tmp_path / "tiny")
    data, out = chats(tmp_path / "chats.jsonl", 6), tmp_path / "x"
    asked = ("capture", "--model", str(tmp_path / "tiny"), "--data", str(data), "--sites", SITE)
    answer = call(*asked, "--positions", "role:assistant & content", "--out", str(out))
    assert answer.code == 0, answer.err
    acts = ActivationStore(out).load()
    expected = model.capture(list(read_labelled(data).prompts), SITE, "answer")
    assert acts.positions == expected.positions and acts.asked == "role:assistant & content"
    torch.testing.assert_close(acts[SITE], expected[SITE])
    shown = call("show", str(out), "--positions")
    assert (
        shown.code == 0 and "user\nIs 0 it?" in shown.out.replace("\\n", "\n") and "\u27e7\u27e6" in shown.out
    )
    wrong = call(*asked, "--positions", "role:asistant", "--out", str(tmp_path / "y"))
    assert wrong.code == 3 and "its roles are 'user', 'assistant'" in wrong.err
    wrong = call(*asked, "--positions", "roles:user", "--out", str(tmp_path / "y"))
    assert wrong.code == 2 and "--positions 'roles:user' is not a position; allowed: last, all" in wrong.err


def asks(place: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Is {place} big?"}]


def test_patch_reads_conversations(tmp_path: Path, call: Call) -> None:
    model = tiny_chat("tools")
    model.hf.save_pretrained(tmp_path / "tiny")
    assert model.tokenizer is not None
    model.tokenizer.save_pretrained(tmp_path / "tiny")
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    places = ["Paris", "France", "it", "is", "the", "own"]
    rows = [
        {"clean": asks(a), "corrupt": asks(b), "answer": "the", "foil": "own", "tools": tools}
        for a, b in zip(places, [*places[1:], places[0]], strict=True)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    asked = ("patch", "--model", str(tmp_path / "tiny"), "--data", str(data), "--mediators", "resid_post.*")
    answer = call(*asked, "--positions", "role:user & content", "--out", str(tmp_path / "x"), "--json")
    assert answer.code == 0, answer.err
    table = pandas.read_parquet(tmp_path / "x" / "data.parquet")
    texts = {str(text) for text in table["clean"]}
    assert len(texts) == 6 and all("weather" in text and "<|open|>user\nIs " in text for text in texts)
