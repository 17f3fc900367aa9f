"""``interp finetune``: an adapter that other commands take; plans and wrong calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interp.cli.conftest import Call

pytest.importorskip("peft")
PAIRS = [(f"w{at:02d} w{at % 7:02d}", f"w{50 + at % 5:02d}") for at in range(30)]


def test_the_command_leaves_an_adapter_that_others_take(call: Call) -> None:
    lines = [json.dumps({"prompt": p, "answer": a, "relation": f"r{a[-1]}"[:1]}) for p, a in PAIRS]
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
    seeded = call(*given, "--steps", "12", "--seed", "1", "--out", "again", "--json")
    assert seeded.code == 0, seeded.err
    two = call(
        *("compare", "--model", "TINY", "--with", "tuned/adapter", "--twin", "twin/adapter,again/adapter"),
        *("--analyses", "difference", "--limit", "12", "--json"),
    )
    assert two.code == 0, two.err
    assert "times the twins)" in two.envelope["data"]["verdict"]
    assert "not judged" not in two.envelope["data"]["verdict"]
    assert "(one twin: not judged)" in beside.envelope["data"]["verdict"]
    short = call(*given, "--steps", "6", "--shuffle", "--out", "short", "--json")
    assert short.code == 0, short.err
    unlike = call(
        "compare",
        "--model",
        "TINY",
        "--with",
        "tuned/adapter",
        "--twin",
        "short/adapter",
        "--analyses",
        "difference",
    )
    assert unlike.code == 2 and "trained with steps 12, its twin 'short/adapter' with 6" in unlike.err
    lonely = call(*asked, "--twin", "twin/adapter", "--with", "tuned/adapter")
    assert lonely.code == 2 and "stands beside --with MODEL in the analyses difference" in lonely.err
    wrong = call(*asked[:-1], "--with", "tuned/adapter", "--with-weights", "random")
    assert wrong.code == 2 and "holds an adapter" in wrong.err
    none = call("finetune")
    assert none.code == 2 and "give --data FILE" in none.err
    fast = call(*given[:-1], "5")
    assert fast.code == 2 and "a number above 0 and below 1" in fast.err
