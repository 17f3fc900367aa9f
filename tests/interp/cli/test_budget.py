"""Sizes that fit a time: what is chosen, what is said, and that the run can be made again exactly."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.analyses import ANALYSES
from interp.cli import budget
from interp.cli.budget import Job, choose_size, in_words, pass_seconds, read_time
from tests.interp.cli.conftest import Call
from tests.noisy import demo

CAPTURE = ("capture", "--model", "TINY", "--data", "DATA", "--sites", "resid_post.1")


def job(whole: int, least: int, per: float, fixed: float) -> Job:
    """A job whose cost is known."""
    return Job(whole, least, ["w01"], lambda n: per * n, lambda n: f"{n} prompts", lambda n: fixed)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60.0), ("5m", 300.0), ("1.5h", 5400.0), ("off", None), ("0.5s", 0.5)]
)
def test_times_are_read(text: str, seconds: float | None) -> None:
    assert read_time(text) == seconds


@pytest.mark.parametrize("text", ["60", "", "m", "0s", "-5m", "5 days", "nans", "infm"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_time(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (40.4, "40 s"), (360.0, "6 min"), (125.0, "2.1 min"), (9000.0, "2.5 h")],
)
def test_times_are_said_roughly(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@settings(deadline=None)
@given(
    whole=st.integers(1, 5000),
    least=st.integers(1, 300),
    per=st.floats(0.01, 3.0),
    fixed=st.floats(0.0, 50.0),
    each=st.floats(0.001, 2.0),
    time=st.floats(1.0, 500.0),
)
def test_the_largest_size_that_fits_is_chosen(
    whole: int, least: int, per: float, fixed: float, each: float, time: float
) -> None:
    """Oracle: all sizes tried one by one; two digits are kept, so that up to a tenth may be left out."""
    least = min(least, whole)
    found = choose_size(job(whole, least, per, fixed), each, time)
    fitting = [n for n in range(1, whole + 1) if n * per * each + fixed <= time]
    best = max([least, *fitting])
    assert least <= found.n <= best
    assert found.n == whole if best == whole else found.n > 0.9 * best
    assert found.seconds == pytest.approx(found.n * per * each + fixed)
    assert found.whole_seconds == pytest.approx(whole * per * each + fixed)


class Clocked:
    """A model whose passes take a known time, and a clock that knows it."""

    def __init__(self, alone: float, more: float, device: str = "cpu") -> None:
        self.now, self.alone, self.more, self.batches = 0.0, alone, more, list[int]()
        self.hf = torch.nn.Linear(1, 1, device=device)

    def logits(self, texts: list[str], *, batch_size: Any) -> Any:
        self.batches.append(len(texts))
        slow = 10.0 if len(self.batches) == 2 else 0.0  # something else on the machine
        self.now += self.alone + self.more * (len(texts) - 1) + slow
        return torch.zeros(1)


def test_a_pass_is_measured_in_a_batch_that_is_not_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for alone, more, batch in ((0.02, 0.01, 16), (0.25, 0.2, 4), (30.0, 30.0, 1)):
        model: Any = Clocked(alone, more)
        monkeypatch.setattr(budget.time, "thread_time", lambda model=model: model.now)
        found = pass_seconds(model, [f"w{at:02d}" for at in range(40)])
        assert model.batches == [1, batch, batch]
        assert found == pytest.approx((alone + more * (batch - 1)) / batch)


@pytest.mark.parametrize(("device", "counts"), [("cpu", False), ("meta", True)])
def test_waiting_counts_only_where_something_else_works_meanwhile(device: str, counts: bool) -> None:
    """As on a loaded machine, or beside a GPU: a pass that works for hardly any time of a second."""

    class Waits(Clocked):
        def logits(self, texts: list[str], *, batch_size: Any) -> Any:
            time.sleep(0.05)
            return torch.zeros(1)

    model: Any = Waits(0.0, 0.0, device)
    found = 2 * pass_seconds(model, ["w01", "w02"])  # two in the pass that is measured
    assert found >= 0.05 if counts else found < 0.02


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine on which a pass takes a second; counts how often it was measured."""
    measured: list[int] = []

    def second(model: Any, texts: Any, batch_size: Any) -> float:
        measured.append(len(texts))
        return 1.0

    monkeypatch.delenv("INTERP_BUDGET")
    monkeypatch.setattr("interp.cli.frame.pass_seconds", second)
    monkeypatch.setattr("interp.cli.frame.CHECKS", 0)
    return measured


def run_json(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "run.json").read_text())


def test_a_size_that_was_chosen_is_recorded_and_made_again_exactly(call: Call, slow: list[int]) -> None:
    answer = call(*CAPTURE, "--budget", "2m", "--out", "x")
    assert answer.code == 0
    assert "160 prompts would take about 2.7 min; using " in answer.err and "--full" in answer.err
    facts = run_json("x")
    n = facts["configuration"]["limit"]
    assert 30 <= n <= 120 and facts["origins"]["limit"] == "budget"
    assert f"--limit {n}" in facts["command_line"] and slow == [160]
    again = call("capture", "--config", "x/run.json", "--budget", "1h", "--out", "y")
    assert again.code == 0 and len(slow) == 1, "nothing was measured again"
    name = "activations/resid_post.1/00000.safetensors"
    assert Path("x", name).read_bytes() == Path("y", name).read_bytes()
    assert run_json("y")["configuration"]["limit"] == n


def test_the_whole_is_taken_where_it_fits_and_that_is_recorded_too(call: Call, slow: list[int]) -> None:
    answer = call(*CAPTURE, "--budget", "10m", "--out", "x")
    assert "160 prompts: about 2.7 min" in answer.err
    facts = run_json("x")
    assert (facts["configuration"]["limit"], facts["configuration"]["full"]) == (None, True)
    assert facts["data"]["n"] == 160 and "--full" in facts["command_line"]


def test_own_prompts_are_left_out_only_where_a_time_was_asked_for(call: Call, slow: list[int]) -> None:
    answer = call(*CAPTURE, "--out", "x")
    assert run_json("x")["data"]["n"] == 160 and slow == [160]
    assert "160 prompts: about 2.7 min (" in answer.err and "--limit" in answer.err


@pytest.mark.parametrize("size", [("--limit", "8"), ("--full",), ("--budget", "off")])
def test_a_size_that_was_asked_for_wins(call: Call, slow: list[int], size: tuple[str, ...]) -> None:
    assert call(*CAPTURE, *size, "--out", "x").code == 0
    assert slow == [] and run_json("x")["data"]["n"] == (8 if "--limit" in size else 160)


def test_two_sizes_are_refused(call: Call) -> None:
    answer = call(*CAPTURE, "--full", "--limit", "8")
    assert answer.code == 2 and "--full and --limit exclude each other" in answer.err
    assert "allowed: a time such as 60s" in call(*CAPTURE, "--budget", "soon").err


def test_an_unfinished_run_goes_on_with_the_size_that_was_chosen(
    call: Call, slow: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.store import ActivationStore

    append, to_do, count = ActivationStore.append, ActivationStore.to_do, iter(range(9))
    monkeypatch.setattr(ActivationStore, "to_do", lambda self, total, size: to_do(self, total, size=40))

    def stops(self: Any, part: Any) -> int:
        if next(count) == 1:
            raise KeyboardInterrupt
        return append(self, part)

    with monkeypatch.context() as patched:
        patched.setattr(ActivationStore, "append", stops)
        answer = call(*CAPTURE, "--budget", "2m", "--out", "x")
    assert answer.code == 130
    n = run_json("x")["configuration"]["limit"]
    assert f"--limit {n}" in answer.err
    assert call(*CAPTURE, "--budget", "1h", "--out", "x", "--resume").code == 0
    facts = run_json("x")
    assert facts["configuration"]["limit"] == facts["data"]["n"] == n and len(slow) == 1


def test_items_of_single_analyses() -> None:
    from interp.cli.compare import CompareSettings
    from interp.errors import ConfigError

    asked = CompareSettings(analyses=("patch", "behaviour", "cost"), items=("patch=3",), limit=50)
    assert asked.sizes() == {"patch": 3, "behaviour": 50, "cost": 0}
    for wrong in ("patch", "patch=0", "patch=x", "recall=4", "cost=3"):
        with pytest.raises(ConfigError, match="--items"):
            CompareSettings(analyses=("patch", "cost"), items=(wrong,)).sizes()


def test_what_every_command_takes_grows_with_its_size() -> None:
    """On the bundled model."""
    from interp.cli import compare, decode, patch, probe
    from interp.cli.frame import Work
    from interp.cli.session import Session

    model = demo()

    def work(settings: Any) -> Work:
        found = Work(Session(["--quiet"]), settings)
        found.__dict__["model"] = model
        return found

    one_layer, every = probe.ProbeSettings(layers="20"), probe.ProbeSettings(layers="all")
    label = probe.ProbeSettings(task="name-order", layers="all")
    pairs = patch.PatchSettings(task="ioi", mediators=("head.20.*",))
    compared = compare.CompareSettings(analyses=("behaviour", "patch"), schemes=("int8",))
    jobs = {
        "concepts": probe._job(work(one_layer), one_layer),
        "concepts, all layers": probe._job(work(every), every),
        "label": probe._job(work(label), label),
        "patch": patch._job(work(pairs), pairs),
        "compare": compare._job(model, compared),
        "decode": decode._job(model, decode.DecodeSettings(prompt="x"), 20),
    }
    for name, one in jobs.items():
        sizes = [one.least, (one.least + one.whole) // 2, one.whole]
        times = [one.seconds(n, 0.01) for n in sizes]
        assert times == sorted(times) and times[0] < times[-1], name
        assert 0 < one.least < one.whole and all(isinstance(text, str) and text for text in one.texts), name
    assert jobs["concepts"].seconds(900, 0.01) < jobs["concepts, all layers"].seconds(900, 0.01)
    assert (jobs["patch"].whole, jobs["label"].shown(5)) == (32, "5 prompts")
    wide = compare._job(model, replace(compared, effects="all"))
    other = jobs["compare"].otherwise
    assert wide.otherwise is None and other is not None, "effects that were asked for are never exchanged"
    words, changed, fewer = other()
    assert changed == {"effects": "largest"} and "--effects all" in words
    assert fewer.seconds(1, 0.01) < jobs["compare"].seconds(1, 0.01) and fewer.otherwise is None
    bound = compare._analyses(replace(compared, effects="largest"), [])
    assert [one.keywords.get("largest") for one in bound.values()] == [None, 16]  # type: ignore[attr-defined]
    assert jobs["compare"].settings(50) == {"items": ("behaviour=100", "patch=16")}
    assert jobs["compare"].settings(1) == {"items": ("behaviour=60", "patch=8")}


def test_what_takes_no_items_is_counted_and_has_no_floors() -> None:
    """One scheme: the reference and its copy, each timed; control: what has findings runs its floors too."""
    from interp.cli import compare

    model = demo()
    alone = compare.CompareSettings(analyses=("cost",), schemes=("int8",))
    job, made = compare._job(model, alone), 2 * compare.MADE
    assert job.passes(1) == 2 * ANALYSES["cost"].cost.fixed + made > made
    assert choose_size(job, 1.0, 1.0).n == job.whole, "there is no smaller size to choose"
    both = compare._job(model, replace(alone, analyses=("geometry", "cost")))
    each = ANALYSES["geometry"].cost.each * ANALYSES["geometry"].n
    assert both.passes(both.whole) - job.passes(1) == pytest.approx(each * (1 + compare.FLOORS))
    quick = compare._analyses(replace(alone, effects="largest"), [])["cost"]
    assert quick.keywords == {"seed": 0, **ANALYSES["cost"].less}  # type: ignore[attr-defined]


@pytest.mark.parametrize("missing", [True, False])
def test_translators_that_are_fitted_first_are_counted(
    monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    """As seldom as they are fitted: where one is kept, or none is used, nothing is added."""
    from interp.cli import claims, surgery
    from interp.cli.frame import Work
    from interp.cli.session import Session

    monkeypatch.setattr("interp.lenses.translator.missing", lambda *_, **__: [20] if missing else [])
    monkeypatch.setattr(budget, "pass_seconds", lambda *_: 1.0)

    def passes(module: Any, settings: Any) -> float:
        work = Work(Session(["--quiet"]), settings)
        work.__dict__["model"] = demo()
        return module._job(work, settings).passes(0)

    edits = surgery.SurgerySettings(layer="20")
    found = passes(surgery, edits)
    assert (found > 1000) == missing and passes(surgery, replace(edits, writer="probe")) == 0
    asked = claims.ClaimsSettings(layer="20", claims=("failures",))
    assert passes(claims, asked) == pytest.approx(found, rel=0.3)
    assert passes(claims, replace(asked, claims=("alphabet",))) == 2 * passes(claims, asked)
    assert passes(claims, replace(asked, claims=("parts", "bindings"))) == 0
    said = budget.fit_note(demo(), [20], ["w01"])
    assert ("fitting translators of 1 layer " in said) == missing == bool(said)


def test_the_forecast_of_a_difference_counts_twins_translators_and_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from interp.cli.compare import CompareSettings, _job

    gone: list[int] = []
    monkeypatch.setattr("interp.lenses.translator.missing", lambda *_, **__: gone)
    settings = CompareSettings(with_="x", analyses=("difference",))
    alone, twice = (_job(demo(), replace(settings, twin=names)) for names in ((), ("a", "b")))
    one = ANALYSES["difference"].cost
    each = 100 * one.each + one.fixed  # of the third of 300 facts, the fewest, in every model
    assert twice.passes(1) - alone.passes(1) == pytest.approx(2 * each)
    assert alone.passes(1) > 3 * each  # the base, the model, the base in bfloat16
    wide = replace(settings, analyses=("geometry",))
    assert twice.besides(1) > alone.besides(1) > _job(demo(), wide).besides(1)
    known = alone.passes(1)
    gone.append(12)
    assert _job(demo(), settings).passes(1) > known + 1000
    assert _job(demo(), wide).passes(1) == _job(demo(), replace(wide, twin=("a",))).passes(1)


@pytest.mark.parametrize("fits", [True, False])
def test_what_is_done_instead_of_too_much_stays_chosen(
    slow: list[int], monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    """A job that never fits says what else to do; its settings hold whether the whole of that fits or not."""
    from interp.cli import patch
    from interp.cli.frame import Work
    from interp.cli.session import Session

    monkeypatch.setattr("interp.cli.frame.pass_seconds", lambda *_: 1.0)
    settings = patch.PatchSettings(budget="2m")
    work = Work(Session(["--quiet"]), settings)
    work.__dict__["model"] = None
    instead = job(100, 8, 0.1 if fits else 10.0, 0.0)
    endless = replace(
        job(100, 8, 1e6, 0.0), otherwise=lambda: ("another", {"search": "attribution"}, instead)
    )
    found = work.sized(settings, lambda: endless)
    assert (found.search, found.full) == ("attribution", fits)
    assert found.limit is None if fits else 8 <= found.limit <= 12


def test_only_a_search_that_nobody_named_is_exchanged() -> None:
    from interp.cli import patch
    from interp.cli.frame import Work
    from interp.cli.session import Session

    def made(**asked: Any) -> Job:
        settings = patch.PatchSettings(**{"task": "ioi", "mediators": ("edge.*",), **asked})
        work = Work(Session(["--quiet"]), settings)
        work.__dict__["model"] = demo()
        return patch._job(work, settings)

    free = made()
    assert free.otherwise is not None
    _, changed, other = free.otherwise()
    # a circuit of edges is held to few pairs where not all fit, and to as many as were asked for
    assert other.settings(20) == {"limit": 20, "held_out": 8} and "8 held out" in other.shown(20)
    assert "held out" not in other.shown(other.whole)
    assert other.passes(other.whole) - other.passes(other.whole - 1) > 5 * (
        other.passes(11) - other.passes(10)
    )
    asked = made(held_out=3, search="attribution")
    assert asked.settings(20) == {"limit": 20} and asked.passes(20) < other.passes(20)
    assert changed == {"search": "attribution"} and other.otherwise is None
    assert other.seconds(8, 0.1) < free.seconds(8, 0.1) / 50
    assert made(search="exhaustive").otherwise is None
    heads = made(mediators=("head.20.*",))
    assert heads.otherwise is not None
    for replacement in ("subject-noise", "optimal"):  # no search by gradients takes these
        assert made(mediators=("head.20.*",), replacement=replacement).otherwise is None
    cells = made(mediators=("head.20.*",), where="each")
    assert heads.passes(8) > 8 * (patch.CIRCUIT + patch.HELD) > cells.passes(8), "cells form no circuit"
