"""``interp surgery`` and ``interp decode --replace``: what they write, and wrong calls in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.analyses.surgery import Surgery, surgery_under
from interp.errors import ConfigError
from interp.results import load
from tests.interp.cli.conftest import Call
from tests.noisy import demo


def test_surgery_leaves_a_run(call: Call) -> None:
    answer = call("surgery", "--layer", "20", "--limit", "300", "--swaps", "24", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    found = load("run/result")
    assert isinstance(found, Surgery)
    assert found.verdict() == data["verdict"]
    assert data["numbers"]["new-first"]["value"] > 0.6
    assert data["numbers"]["random-first"]["value"] < 0.1


def test_one_prompt_is_edited(call: Call) -> None:
    answer = call("decode", "--replace", "Paris=Rome", "--at", "20", "the capital of France is", "--json")
    assert answer.code == 0, answer.err
    assert "says 'Rome' instead of 'Paris'" in answer.envelope["data"]["verdict"]


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        (("claims", "--claims", "parts", "--limit", "600"), 2 * 600),
        (("claims", "--claims", "parts,entities", "--limit", "600"), (2 + 2.2) * 600),
        (("claims", "--claims", "parts,alphabet", "--limit", "600"), (2 + 0.5 + 0.4) * 600 + 2 * 1000),
        (("surgery", "--writer", "probe", "--limit", "300"), 3 * 300),
        (("surgery", "--limit", "300"), 3 * 300 + 1000),
    ],
)
def test_a_plan_counts_passes_and_first_fits_and_runs_nothing(
    call: Call, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], passes: float
) -> None:
    """As if fitting one translator took 1,000 passes."""
    for command in ("claims", "surgery"):
        monkeypatch.setattr(f"interp.cli.{command}.fit_passes", lambda *_: 1000.0)
    monkeypatch.setattr("interp.cli.claims.twin_fit_passes", lambda *_: 2000.0)
    answer = call(*line, "--layer", "20", "--dry-run", "--json")
    assert answer.code == 0 and answer.envelope["status"] == "planned"
    assert answer.envelope["data"]["prompts"] == int(line[line.index("--limit") + 1])
    assert answer.envelope["data"]["forward_equivalents"] == pytest.approx(passes)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("decode", "--replace", "Paris", "a b"), "is no pair of names; give OLD=NEW"),
        (("decode", "--replace", "=Rome", "a b"), "is no pair of names"),
        (("decode", "--replace", "Paris=Paris", "the capital of France is"), "another new one"),
        (("decode", "--at", "20", "a b"), "give --replace"),
        (("decode", "--replace", "Paris=Rome", "--layers", "20", "a b"), "leave --layer"),
        (("decode", "--replace", "Paris=Rome", "--at", "23", "the capital of France is"), "is the last"),
        (("surgery", "--writer", "pen"), "translator"),
        (("surgery", "--protocol", "in-context", "--limit", "60"), "concepts can be written under"),
        (("surgery", "--swaps", "0"), "--swaps"),
    ],
)
def test_wrong_calls_say_what_to_do(call: Call, line: tuple[str, ...], words: str) -> None:
    answer = call(*line)
    assert answer.code == 2, answer.out
    assert words in answer.err
    assert "Traceback" not in answer.err


def test_a_model_that_knows_nothing_is_refused_before_anything_is_fitted(call: Call) -> None:
    answer = call("surgery", "--weights", "random", "--limit", "60")
    assert answer.code == 3, answer.out
    assert "answers 0 of 60 prompts right" in answer.err


def test_the_writer_and_protocol_are_checked_in_python_too() -> None:
    with pytest.raises(ConfigError, match="writer 'pen'"):
        surgery_under(demo(), layer=20, writer="pen")
    with pytest.raises(ConfigError, match="protocol 'in-context'"):
        surgery_under(demo(), "in-context", layer=20)


def test_a_probe_writes_too() -> None:
    found = surgery_under(demo(), layer=20, writer="probe", n=20, sizes=(500, 100, 120))
    assert found.works
