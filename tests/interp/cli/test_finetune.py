"""``interp finetune``: an adapter that other commands take; plans and wrong calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interp.cli.conftest import Call

pytest.importorskip("peft")
PAIRS = [(f"w{at:02d} w{at % 7:02d}", f"w{50 + at % 5:02d}") for at in range(30)]


def test_the_command_leaves_an_adapter_that_others_take(call: Call) -> None:
    lines = [json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in PAIRS]
    Path("pairs.jsonl").write_text("\n".join(lines))
    given = ("finetune", "--model", "TINY", "--data", "pairs.jsonl", "--lora", "2", "--rate", "0.01")
    plan = call(*given, "--steps", "9", "--dry-run", "--json")
    assert plan.code == 0 and plan.envelope["data"]["prompts"] == 72 and not Path("runs").exists()
    assert plan.envelope["data"]["forward_equivalents"] == 3 * 72 + 2 * 30
    answer = call(*given, "--steps", "12", "--out", "tuned", "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    assert data["numbers"]["answers-said-trained"]["value"] is not None
    asked = (
        "compare",
        "--model",
        "TINY",
        "--analyses",
        "behaviour",
        "--limit",
        "8",
        "--json",
    )
    answer = call(*asked, "--with", "tuned/adapter", "--out", "cmp")
    assert answer.code == 0, answer.err
    assert "with tuned" in answer.envelope["data"]["verdict"]
    twin = call(*given, "--steps", "12", "--shuffle", "--out", "twin", "--json")
    assert twin.code == 0 and any("control of what training" in text for text in twin.envelope["warnings"])
    beside = call(
        "compare",
        "--model",
        "TINY",
        "--with",
        "tuned/adapter",
        "--twin",
        "twin/adapter",
        "--analyses",
        "difference",
        "--limit",
        "12",
        "--json",
    )
    assert beside.code == 0, beside.err
    assert "with tuned (trained): on the prompts changed" in beside.envelope["data"]["verdict"]
    assert "no twin" not in beside.envelope["data"]["verdict"]
    lonely = call(*asked, "--twin", "twin/adapter", "--with", "tuned/adapter")
    assert lonely.code == 2 and "stands beside --with MODEL in the analyses difference" in lonely.err
    wrong = call(*asked[:-1], "--with", "tuned/adapter", "--with-weights", "random")
    assert wrong.code == 2 and "holds an adapter" in wrong.err
    none = call("finetune")
    assert none.code == 2 and "give --data FILE" in none.err
    fast = call(*given[:-1], "5")
    assert fast.code == 2 and "a number above 0 and below 1" in fast.err
