"""Every view on the bundled model: what it shows is safe, and what is copied gives its numbers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import interp
import interp.models
from interp import cli
from interp.errors import ConfigError
from interp.results import load
from interp.serve.calls import Loaded
from interp.serve.forecast import forecast, passes
from interp.serve.requests import conversation, read_request
from interp.serve.views import MEDIATORS, VIEWS
from interp.serve.worker import answer
from tests.certificates import examined_once
from tests.noisy import demo

SMALL: Mapping[str, Mapping[str, Any]] = {
    "tokens": {"draws": 3, "compared": 2},
    "lens": {"layers": "18-23:5"},
    "attention": {"layers": "14", "draws": 3},
    "concepts": {"layers": "20", "top": 2},
    "effects": {"what": "attention and MLP blocks"},
    "edit": {"how": "patch", "token": 4, "draws": 3},
    "exchange": {"layer": "20"},
    "graph": {"followed": 20, "nodes": 4},
    "write": {"new_tokens": 3},
}
SHOWN = ("tokens", "lens", "attention", "effects", "edit", "write")
"""Views whose parts need nothing that is fitted first."""
EACH = [pytest.param(name, marks=pytest.mark.slow) if name == "effects" else name for name in SHOWN]


@cache
def made(name: str) -> dict[str, Any]:
    request = read_request(VIEWS[name].fields, SMALL[name])
    MEDIATORS["attention and MLP blocks"] = ("mlp_out.20,mlp_out.21", "auto")  # of 48, two
    return answer(demo(), Loaded("demo"), name, request)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The bundled model is loaded and checked once for all commands."""
    model = demo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interp, "load", lambda *_, **__: model, raising=False)
    monkeypatch.setattr(interp.models, "load", lambda *_, **__: model, raising=False)
    with examined_once():
        yield


@pytest.mark.parametrize("name", EACH)
def test_the_copied_python_gives_the_same_numbers(name: str, loaded: None) -> None:
    space: dict[str, Any] = {}
    exec(made(name)["python"], space)
    assert {one.name: one.value for one in space["result"].numbers()} == made(name)["numbers"]


@pytest.mark.parametrize("name", EACH)
def test_the_copied_command_gives_the_same_numbers(name: str, loaded: None) -> None:
    *files, line = made(name)["command"].splitlines()
    for text in files:  # printf '%s\n' CONTENT > FILE
        _, _, content, _, place = shlex.split(text)
        Path(place).write_text(content + "\n")
    assert cli.main([*shlex.split(line)[1:], "--out", "run", "-q"]) == 0
    found = load("run/result")
    found = getattr(found, "effects", found)
    numbers = {one.name: one.value for one in found.numbers()}
    assert numbers == pytest.approx(made(name)["numbers"], rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", EACH)
def test_a_view_brings_no_script_and_no_style(name: str) -> None:
    html = made(name)["html"]
    assert (
        "<script" not in html
        and "style=" not in html
        and "<style" not in html
        and " on" + "click" not in html
    )
    assert "verdict" in html


@pytest.mark.parametrize("name", ["tokens", "lens", "attention"])
def test_every_mark_of_a_picture_has_its_place(name: str) -> None:
    for places, figure in zip(made(name)["places"], made(name)["html"].split("<figure")[1:], strict=True):
        start = figure.index('-tip-0">')
        group = figure[start : figure.index("</g>", start)]
        assert len(places) == group.count("<title>") > 0
        for place, text in zip(places, group.split("<title>")[1:], strict=True):
            words = text.replace(",", " ").split()
            if name == "lens":  # layer 20, token of the prompt 4 ('France'): ...
                assert place["site"] == f"resid_post.{words[1]}" and place["token"] == int(words[6])
            else:
                assert place["token"] == int(words[1])


def test_a_hostile_prompt_stays_text() -> None:
    prompt = "</svg><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[31m capital"
    for name in ("tokens", "lens"):
        request = read_request(VIEWS[name].fields, {**SMALL[name], "prompt": prompt})
        html = answer(demo(), Loaded("demo"), name, request)["html"]
        assert "<script" not in html and "<img" not in html and "\u202e" not in html and "\x1b" not in html


def test_conversations() -> None:
    assert conversation("Hello: you") == [{"role": "user", "content": "Hello: you"}]
    found = conversation("system: Be brief.\nUser: Hi\nthere\nassistant: Yes?")
    assert [one["role"] for one in found] == ["system", "user", "assistant"]
    assert found[1]["content"] == "Hi\nthere"


def test_pairs_are_lines_of_both_prompts() -> None:
    request = read_request(VIEWS["effects"].fields, {"prompt": "a\nb", "other": "c"})
    with pytest.raises(ConfigError, match="2 lines of prompts and 1 line of second"):
        VIEWS["effects"].recipe(demo(), request)


def test_effects_say_what_is_compared_and_how_many_pairs_a_verdict_takes() -> None:
    request = read_request(VIEWS["effects"].fields, {"foil": "Rome"})
    words, few = VIEWS["effects"].recipe(demo(), request).notes
    assert "'Paris' against 'Rome'" in words and "what the model says next" in words
    n = len(demo().expand(["head.*"]))
    needed = int(few.partition("at least ")[2].split()[0])
    assert f"one of {n:,} places" in few and 2 / 2**needed * n <= 0.05 < 4 / 2**needed * n
    many = {name: "\n".join([f"the capital of {a} is"] * needed) for name, a in PAIR.items()}
    enough = read_request(VIEWS["effects"].fields, many)
    assert len(VIEWS["effects"].recipe(demo(), enough).notes) == 1


PAIR = {"prompt": "France", "other": "Italy"}


def test_what_takes_long_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    request = read_request(VIEWS["tokens"].fields, {"draws": 10, "compared": 3})
    n = demo().tokenize([request["prompt"]]).lengths[0]
    assert passes(demo(), "tokens", request, n) == 1 + 10 * (3 * n - 6) / n  # prefixes of n - 1, n - 2, n - 3
    monkeypatch.setattr("interp.serve.forecast.pass_seconds", lambda *_: 1.0)
    monkeypatch.setattr("interp.serve.forecast.fit_passes", lambda *_: 90.0)
    assert forecast(demo(), "tokens", request).startswith("about 2")
    assert forecast(demo(), "lens", read_request(VIEWS["lens"].fields, {})) == ""
    said = forecast(demo(), "concepts", read_request(VIEWS["concepts"].fields, {}))
    assert "4 layers are fitted first, once for this model (about 1.5 min)" in said
    assert forecast(demo(), "concepts", read_request(VIEWS["concepts"].fields, {"layers": "99"})) == ""


def test_no_probe_is_read_that_was_not_given_at_the_start() -> None:
    loaded = Loaded("demo", probes=("runs/a/probes/resid_post.20", "other"))
    for asked, found in (("", loaded.probes[0]), ("resid_post.20", loaded.probes[0]), ("other", "other")):
        assert loaded.chosen({"colour": "probe", "probe": asked})["probe"] == found
    for asked in ("/etc", "../x", "resid_post.2"):
        with pytest.raises(ConfigError, match=r"there are: runs/a/probes/resid_post\.20, other"):
            loaded.chosen({"colour": "probe", "probe": asked})
    with pytest.raises(ConfigError, match="--probes FOLDER"):
        Loaded("demo").chosen({"colour": "probe", "probe": ""})


def test_how_a_model_was_loaded_is_copied() -> None:
    loaded = Loaded("gpt2", {"dtype": "float16", "adapter": ["a", "b"]}, "int8", ("f",))
    assert loaded.flags() == shlex.split(
        "--model gpt2 --dtype float16 --adapter a --adapter b --features f --scheme int8"
    )
    assert "model = interp.load('gpt2', dtype='float16', adapter=['a', 'b'])" in loaded.python()
