"""``interp compare`` from the shell: what is refused, resumed, written, and shown again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from interp.analyses.table import ANALYSES, Analysis
from interp.cli.compare import CompareSettings, _contents, cell_name, keep_cell, read_cells
from interp.errors import ConfigError
from interp.quantization.comparison import Cell
from interp.runs import RunFolder
from tests.interp.cli.conftest import Call
from tests.interp.cli.toys import CALLS, EVIL

TOYS = ("margins", "flat", "refusing")
MODEL = ("compare", "--model", "TINY")
TWO = (*MODEL, "--schemes", "rtn8,rtn2", "--analyses", "margins,flat")


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put toy analyses in the place of the real ones."""
    for name in tuple(ANALYSES):
        monkeypatch.delitem(ANALYSES, name)
    for name in TOYS:
        row = Analysis(name, f"a toy: {name}", f"tests.interp.cli.toys:{name}", "nothing", 20)
        monkeypatch.setitem(ANALYSES, name, row)
    CALLS.clear()
    yield


def timeless(value: Any) -> Any:
    """Drop what differs between two runs of the same: how long things took."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key != "seconds"}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def test_a_run_is_written_shown_and_reported(call: Call) -> None:
    answer = call(*TWO, "--out", "run")
    assert answer.code == 0, answer.err
    assert "What of tiny survives at rtn8, rtn2?" in answer.out
    assert "At rtn8 4 of 5 findings survive, 1 is inconclusive; at rtn2 " in answer.out
    assert "What was done to the weights" in answer.out and "21 of 21" in answer.out
    assert "margins: its noise floor" in answer.err, "progress is told"
    result = json.loads(Path("run/metrics.json").read_text())
    table = pandas.read_parquet("run/tables/findings.parquet")
    assert len(table) == result["tables"]["findings"]["n_rows"] == 12
    assert {"survives", "lost", "weakened", "inconclusive", "strengthened"} >= set(table["verdict"])
    assert set(table[table["scheme"] == "rtn2"]["verdict"]) != {"survives"}
    names = {path.relative_to("run").as_posix() for path in Path("run").rglob("*") if path.is_file()}
    assert {"cells/margins--rtn8.json", "cells/flat--reference.json", "figures/differences.svg"} <= names
    assert {"figures/curve-margins-norm.svg", "figures/scatter-margins.svg", "report.html"} <= names
    facts = json.loads(Path("run/run.json").read_text())
    assert facts["certificate"]["passed"] and facts["quantization"]["rtn8"]["quantized"] == 21
    shown = call("show", "run", "--verify")
    assert shown.code == 0 and "At rtn8 4 of 5 findings survive" in shown.out
    assert call("report", "run").code == 0
    page = Path("run/report.html").read_text()
    assert EVIL not in page and "&lt;script&gt;alert(1)" in page
    Path("runs").mkdir()
    Path("run").rename("runs/one")
    assert "margins,flat" in call("ls", "runs").out


def test_an_interrupted_run_goes_on_where_it_stopped(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(*TWO, "--out", "whole", "-q").code == 0
    from interp.cli import compare

    keep, count = compare.keep_cell, 0

    def stopping(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count > 4:
            raise KeyboardInterrupt
        return keep(*arguments)

    monkeypatch.setattr(compare, "keep_cell", stopping)
    stopped = call(*TWO, "--out", "part")
    assert stopped.code == 130 and "--out part --resume" in stopped.err
    cells = {path.name for path in Path("part/cells").iterdir()}
    assert cells == {
        "margins--reference.json", "flat--reference.json", "margins--rtn8.json", "flat--rtn8.json"
    }  # fmt: skip
    monkeypatch.setattr(compare, "keep_cell", keep)
    assert call(*TWO, "--out", "part").code == 2, "it is not begun again without being asked"
    refused = call(*TWO, "--out", "part", "--resume", "--seed", "1")
    assert refused.code == 2 and "seed" in refused.err
    CALLS.clear()
    resumed = call(*TWO, "--out", "part", "--resume")
    assert resumed.code == 0, resumed.err
    assert "2 of 4 cells are there" in resumed.err
    assert ("margins", "rtn8") not in CALLS and ("margins", "rtn2") in CALLS
    one, two = (json.loads(Path(f"{name}/metrics.json").read_text()) for name in ("whole", "part"))
    assert timeless(one) == timeless(two)
    tables = [pandas.read_parquet(f"{name}/tables/findings.parquet") for name in ("whole", "part")]
    pandas.testing.assert_frame_equal(*tables)
    assert call("show", "part", "--verify").code == 0


def test_an_analysis_whose_cells_are_all_there_is_not_run_at_all(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.cli import frame

    def broken(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(frame, "_keep", broken)
        assert call(*TWO, "--out", "run", "-q").code == 130
    CALLS.clear()
    Path("run/cells/flat--rtn2.json").write_text("{}")
    resumed = call(*TWO, "--out", "run", "--resume")
    assert resumed.code == 0 and "flat--rtn2.json is damaged and is measured again" in resumed.err
    assert {name for name, _ in CALLS} == {"flat"}
    assert ("flat", "rtn2") in CALLS and ("flat", "rtn8") not in CALLS
    assert "margins are toys" in Path("run/metrics.json").read_text()


OF = {"model": "abc", "other": None}


def unfinished(cell: Cell, place: str = "run") -> Path:
    """Write one cell and its reference into a run that ends early; give the cell's file."""
    with RunFolder.create(place, "compare", {}) as run:
        for one in (Cell(cell.analysis, ""), cell):
            keep_cell(run, one, OF)
    return Path(place) / cell_name(cell.analysis, cell.scheme)


def again(of: dict[str, Any], place: str = "run") -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    with RunFolder.create(place, "compare", {}, resume=True) as run:
        return read_cells(run, of)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": "interp.cell/2"}', "CHANGED"])
def test_a_damaged_cell_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = unfinished(Cell("flat", "rtn8", refused="a reason"))
    cells, faults = again(OF)
    assert [(cell.scheme, cell.refused) for cell in cells] == [("", ""), ("rtn8", "a reason")] and not faults
    before = file.read_text()
    file.write_text(damage if damage != "CHANGED" else before.replace("a reason", "another"))
    assert file.read_text() != before
    cells, (fault,) = again(OF)
    assert [cell.scheme for cell in cells] == [""] and "flat--rtn8.json is damaged" in fault


def test_cells_without_their_reference_or_of_other_weights_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unfinished(Cell("flat", "rtn8"))
    with pytest.raises(ConfigError, match="was measured with model = abc, now it is xyz"):
        again(OF | {"model": "xyz"})
    Path("run/cells/flat--reference.json").unlink()
    assert again(OF) == ((), ())


def test_file_names_hold_no_path_and_tell_names_apart() -> None:
    names = {cell_name("patch", scheme) for scheme in ("int4", "../x (trained)", ".. x (trained)", "", "é")}
    assert len(names) == 5 and all(name.count("/") == 1 and ".." not in name for name in names)
    assert cell_name("two-hop", "int4-g32") == "cells/two-hop--int4-g32.json"


def test_another_checkpoint_is_compared_and_said_to_be_one(call: Call) -> None:
    asked = (*MODEL, "--with", "TINY", "--with-weights", "random", "--analyses", "margins", "--json")
    answer = call(*asked, "--out", "run")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    other = json.loads(Path("run/run.json").read_text())["other"]
    assert {row["scheme"] for row in data["tables"]["findings"]["rows"]} == {
        f"{Path(other['name']).name} (random)"
    }
    assert data["certificate"]["passed"] and other["weights"] == "random"
    assert any("not an effect of precision alone" in text for text in data["warnings"])
    asked = (*MODEL, "--with", "TINY", "--analyses", "margins", "--json")
    itself = call(*asked, "--out", "same").envelope["data"]["warnings"]
    assert any("compared with itself" in text for text in itself)
    assert not any("their weights differ" in text for text in itself)
    page = Path("run/report.html").read_text()
    assert "is another checkpoint" in page and "survives in " in page


def test_what_is_refused_is_told_with_its_reason(call: Call) -> None:
    answer = call(*MODEL, "--schemes", "rtn8", "--analyses", "refusing", "--out", "run")
    assert answer.code == 3, answer.err
    assert "nothing was compared" in answer.err
    assert "Not run" in answer.out and f"no {EVIL} here" in answer.out
    assert "1 analysis could not be run everywhere" in answer.out
    page = Path("run/report.html").read_text()
    assert "no &lt;script&gt;" in page and EVIL not in page


def test_the_plan_names_cells_and_modules_and_writes_nothing(call: Call) -> None:
    plan = call(*MODEL, "--schemes", "rtn4-g32,bf16", "--analyses", "all", "--limit", "7", "--dry-run")
    assert plan.code == 0, plan.err
    assert "nothing is written" in plan.out and "rtn4-g32" in plan.out
    assert not CALLS and not list(Path().iterdir())
    asked = (
        *MODEL,
        "--schemes",
        "rtn4-g32,bf16",
        "--analyses",
        "flat",
        "--limit",
        "7",
        "--dry-run",
        "--json",
    )
    data = call(*asked).envelope["data"]
    assert data["cells"] == [
        {"analysis": "flat", "scheme": "rtn4-g32", "n": 7},
        {"analysis": "flat", "scheme": "bf16", "n": 7},
    ]
    assert data["schemes"][0] == {
        "scheme": "rtn4-g32", "bits": 4, "modules": 21, "groups": {"32": 18, "row": 3}
    }  # fmt: skip


def test_the_limit_is_the_number_of_items(call: Call) -> None:
    data = call(*MODEL, "--schemes", "rtn8", "--analyses", "flat", "--limit", "12", "--json").envelope["data"]
    assert data["tables"]["findings"]["rows"][0]["n"] == 12


def test_items_are_read_from_a_file_of_ones_own(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The analysis is given the path; a run of other content is not resumed; what reads none is refused."""
    row = Analysis("flat", "a toy", "tests.interp.cli.toys:flat", "nothing", 20, reads="a table of numbers")
    monkeypatch.setitem(ANALYSES, "flat", row)
    Path("own.csv").write_text("a,b\n1,2\n")
    asked = (*MODEL, "--schemes", "rtn8", "--analyses", "flat,margins", "--data", "flat=own.csv")
    assert row.bound(data="own.csv").keywords["data"] == "own.csv"  # type: ignore[attr-defined]
    assert "data" not in row.bound().keywords  # type: ignore[attr-defined]
    settings = CompareSettings(schemes=("rtn8",), analyses=("flat",), data=("flat=own.csv",))
    assert settings.files() == {"flat": "own.csv"}
    before = _contents(settings.files())
    Path("own.csv").write_text("a,b\n1,3\n")
    assert _contents(settings.files()) != before and list(before) == ["data of flat"]
    for given, code, words in (
        ("margins=own.csv", 2, "--data 'margins'"),
        ("own.csv", 2, "is not NAME=FILE"),
        ("flat=absent.csv", 3, "Give a table of numbers"),
    ):
        answer = call(*asked[:-1], given)
        assert answer.code == code and words in answer.err, answer.err


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (("--schemes", "int3"), 2, ("'int3'", "there are:", "int8", "Did you mean")),
        (("--schemes", "none"), 2, ("nothing to compare with", "--with")),
        (("--analyses", "margin"), 2, ("--analyses 'margin'", "margins, flat, refusing", "Did you mean")),
        (("--mode", "sparse"), 2, ("--mode 'sparse'", "dense, packed")),
        (("--calibration", "texts.txt"), 2, ("none of the schemes uses texts",)),
        (("--schemes", "gptq4", "--calibration", "absent.txt"), 3, ("'absent.txt'", "one per line")),
        (("--schemes", "gptq4"), 2, ("--calibration FILE",)),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_done(
    call: Call, asked: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    given = asked if "--analyses" in asked else (*asked, "--analyses", "flat")
    answer = call(*MODEL, *given, "--out", "run")
    assert answer.code == code, answer.err
    assert all(word in answer.err for word in words), answer.err
    assert not CALLS and not Path("run/run.json").exists()


def test_a_missing_library_is_named_with_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.quantization.libraries import library

    monkeypatch.setattr(library, "find_spec", lambda name: None)
    answer = call(*MODEL, "--schemes", "rtn8,int8", "--analyses", "flat", "--out", "run")
    assert answer.code == 4 and "torchao is not installed" in answer.err and "rtn8" in answer.err
    assert not CALLS and not Path("run/run.json").exists()


def test_analyses_can_be_listed(call: Call) -> None:
    answer = call("ls", "analyses")
    assert answer.code == 0 and "a toy: margins" in answer.out
