"""What is said of a comparison: the verdict in words, tables side by side, figures, and nothing that runs."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest

from interp import report
from interp.errors import ConfigError
from interp.models.certificate import Check
from interp.models.quantized import Quantization, QuantizedModule
from interp.quantization.comparison import Cell, Comparison, Judgement
from interp.quantization.comparison.tables import number
from interp.quantization.integrity import Integrity
from interp.report import page, terminal
from interp.report.document import document
from interp.results import About, Table

EVIL = "<script>alert(1)</script> [/red] \x1b"
DIFFERENCE = {"survives": 0.01, "weakened": -0.3, "strengthened": 0.3, "lost": -0.6, "inconclusive": -0.05}


def judgement(finding: str, verdict: str, **changes: Any) -> Judgement:
    """Give a verdict on 0.8 against a control of 0.2, with delta 0.06 and three hundredths of an interval."""
    difference = DIFFERENCE[verdict]
    made = Judgement(
        finding=finding,
        verdict=verdict,
        reference=0.8,
        value=0.8 + difference,
        difference=difference,
        low=difference - 0.03,
        high=difference + 0.03,
        reference_control=0.2,
        control=0.2,
        reference_excess=0.6,
        excess=0.6 + difference,
        excess_low=0.5 + difference,
        excess_high=0.7 + difference,
        change=difference,
        change_low=difference - 0.03,
        change_high=difference + 0.03,
        noise=0.001,
        delta=0.06,
        shown=True,
        unit="share",
        n=40,
        n_groups=20,
    )
    return replace(made, **changes)


def cell(analysis: str, scheme: str, *judgements: Judgement, **more: Any) -> Cell:
    return Cell(analysis, scheme, judgements, **more)


def comparison(*cells: Cell, **changes: Any) -> Comparison:
    model = {"name": "tiny", "weights": "trained", "dtype": "float32"}
    made = Comparison(
        about=About(model), other=None, cells=cells, references=(), noise={}, mode="dense", seconds=3.0
    )
    return replace(made, **changes)


BOTH = comparison(
    cell("recall", "int8", judgement("accuracy", "survives"), judgement("overlap", "survives")),
    cell("recall", "int4", judgement("accuracy", "lost"), judgement("overlap", "weakened")),
    cell("patch", "int8", judgement("top", "survives")),
    cell("patch", "int4", judgement("top", "inconclusive"), judgement("new", "survives", shown=False)),
)


def test_the_verdict_is_said_in_words() -> None:
    assert BOTH.verdict() == (
        "At int8 all 3 findings survive; at int4 0 of 3 findings survive, "
        "1 is weakened (recall: overlap), 1 is lost (recall: accuracy), 1 is inconclusive."
    )
    assert BOTH.question() == "What of tiny survives at int8, int4?"
    shown = document(BOTH).numbers
    assert [(one.name, one.value, one.interval, one.meaning) for one in shown] == [
        ("int8", "3", "of 3 survive", "nothing else"),
        ("int4", "0", "of 3 survive", "1 weakened, 1 lost, 1 inconclusive"),
    ]
    assert [(one.name, one.value) for one in BOTH.numbers()] == [("survive-int8", 3), ("survive-int4", 0)]


def test_curves_are_named_and_not_their_layers() -> None:
    layers = [judgement(f"r at layer {at}", "lost", curve="r", layer=at) for at in range(5)]
    said = comparison(cell("hops", "int4", *layers, judgement("one", "lost"))).verdict()
    assert "6 are lost (hops: one, hops: r at 5 layers)" in said


def test_many_findings_of_several_analyses_are_counted_by_analysis() -> None:
    cells = [
        cell(name, "int4", *(judgement(f"f{at}", "weakened") for at in range(n)))
        for name, n in (("a", 1), ("b", 3))
    ]
    assert "4 are weakened (3 of b, 1 of a)" in comparison(*cells).verdict()
    assert "3 are weakened (b: f0, b: f1, b: f2)" in comparison(cells[1]).verdict()


def test_what_becomes_of_each_analysis_is_said_first_and_once() -> None:
    text = Table("conclusion", "", ("conclusion",), [("all is well",)])
    asked = Cell("recall", "", asked="Which facts?", tables=(text,))
    apart = cell("a", "int8", judgement("f", "survives", shown=False))
    found = replace(BOTH, cells=(*BOTH.cells, apart), references=(asked,))
    found = replace(found, cells=(replace(found.cells[0], tables=(text,)), *found.cells[1:]))
    assert found.table("overview").to_numpy().tolist() == [
        ["recall", "Which facts?", "2 of 2 survive", "0 of 2 survive, 1 weakened, 1 lost"],
        ["patch", "", "1 of 1 survive", "0 of 1 survive, 1 inconclusive"],
        ["a", "", "the reference shows none", "not run"],
    ]
    assert [one.title for one in document(found).terminal][:2] == [
        "What becomes of the findings, analysis by analysis",
        "Verdicts",
    ]
    named = comparison(cell("a", "gguf:q4_0", judgement("f", "survives")))
    assert "gguf:q4_0" in document(named).terminal[0].columns, "a scheme keeps its name in a heading"
    assert found.tables()[0].name == "verdicts", "the main table in Python stays the verdicts"
    assert found.table("conclusions").to_numpy().tolist() == [["recall", "reference, int8", "all is well"]]


def test_nothing_clear_is_no_survival() -> None:
    unclear = comparison(cell("a", "int8", judgement("f", "survives", shown=False)))
    assert unclear.verdict() == "At int8 the reference shows no finding to judge."
    assert unclear.number("survive-int8").value is None
    empty = comparison(cell("a", "int8", refused="it cannot"))
    assert empty.verdict() == (
        "At int8 no analysis could be run. 1 analysis could not be run everywhere: see below."
    )
    assert empty.number("survive-int8").meaning == "nothing was run"
    assert not empty.figures() and document(empty).first is not None
    with pytest.raises(ConfigError, match="nothing to show"):
        report.plot(empty)


def test_schemes_of_a_finding_stand_side_by_side_and_the_worst_of_each_analysis_comes_first() -> None:
    table = BOTH.table()
    assert list(table["finding"]) == ["accuracy", "top", "overlap"]  # recall, patch; then the rest of recall
    assert table.loc[0, "int8"] == "\u2713 survives +0.01 [-0.02, 0.04]"
    assert table.loc[0, "int4"] == "\u2717 lost -0.6 [-0.63, -0.57]"
    parts = ["control, reference", "control, int8", "control, int4"]
    assert table.loc[0, parts].tolist() == [0.2] * 3
    parts = ["excess, reference", "excess, int8", "excess, int4"]
    assert table.loc[0, parts].tolist() == pytest.approx([0.6, 0.61, 0.0])
    assert list(BOTH.table("unclear")["finding"]) == ["new"]
    rows = BOTH.table("findings")
    assert list(rows["scheme"]) == ["int8", "int4"] * 3 + ["int4"]
    assert (rows["difference"] - (rows["value"] - rows["reference"])).abs().max() < 1e-12


def test_the_change_of_the_excess_is_given_where_a_control_moved() -> None:
    moved = judgement("k", "weakened", control=0.1, change=-0.2, change_low=-0.3, change_high=-0.1)
    (said,) = comparison(cell("a", "int4", moved)).table()["int4"]
    assert said == "\u25bd weakened -0.3 [-0.33, -0.27]; of the excess -0.2 [-0.3, -0.1]"


def test_of_a_curve_the_layer_that_moves_most_stands_among_the_verdicts() -> None:
    layers = [
        judgement(f"r at layer {at}", "survives", curve="r", layer=at, change=0.01 * (at == 2))
        for at in range(4)
    ]
    found = comparison(cell("a", "int8", judgement("f", "survives"), *layers))
    assert list(found.table()["finding"]) == ["f", "r at layer 2"]
    assert len(found.table("layers")) == 4


def test_a_terminal_leaves_out_what_it_has_no_room_for() -> None:
    many = [judgement(f"f{at}", "survives", note="a note") for at in range(40)]
    story = document(comparison(cell("a", "int8", *many)))
    assert story.first is not None and len(story.first.rows) == 40 and len(story.first.columns) == 12
    narrow = next(table for table in story.terminal if table.title == "Verdicts")
    assert len(narrow.rows) == 10 and "30 more rows are not shown here" in narrow.note
    assert narrow.columns == ("analysis", "finding", "reference", "unit", "int8", "delta")
    printed = io.StringIO()
    terminal.write(story, printed)  # type: ignore[arg-type]
    assert "Every number" not in printed.getvalue() and "f9" in printed.getvalue()


def test_another_checkpoint_is_no_precision() -> None:
    other = About({"name": "tuned", "weights": "trained"})
    told = comparison(cell("a", "tuned (trained)", judgement("f", "survives")), other=other)
    assert told.question() == "What of tiny survives in tuned (trained)?"
    assert told.verdict() == "In tuned (trained) the one finding survives."
    assert any("no effect of precision" in text for text in told.lead())


def test_differences_are_in_units_of_delta_and_turned_so_that_less_is_negative() -> None:
    data = BOTH.figure().frame().set_index("name")
    assert data.loc["recall: accuracy \u00b7 int4: lost", "value"] == pytest.approx(-10)
    assert data.loc["recall: overlap \u00b7 int8: survives", "high"] == pytest.approx(0.04 / 0.06)
    below = judgement("KL", "weakened", reference_excess=-2.0, change=0.3, change_low=0.2, change_high=0.5)
    row = comparison(cell("a", "int4", below)).figure().frame().iloc[0]
    assert [row["low"], row["value"], row["high"]] == pytest.approx([-0.5 / 0.06, -5, -0.2 / 0.06])
    inf = float("inf")
    open_ = judgement("s", "inconclusive", low=-inf, high=inf, change_low=-inf, change_high=inf)
    found = comparison(cell("a", "int4", open_))
    row = found.figure().frame().iloc[0]
    assert (row["low"], row["high"]) == (-15, 15)
    assert found.table().loc[0, "int4"] == "? inconclusive -0.05 [undetermined]"
    twice = comparison(cell("a", "int4", judgement("f", "lost")), cell("b", "int4", judgement("f", "lost")))
    assert list(twice.figure().data["name"]) == ["a: f \u00b7 int4: lost", "b: f \u00b7 int4: lost"]


def test_curves_and_scatters_hold_the_numbers() -> None:
    layers = [judgement(f"r at layer {at}", "lost", curve="r", layer=at, value=at / 10) for at in range(3)]
    effects = Table("effects", "", ("mediator", "layer", "reference", "value"), [("head.0.1", 0, 0.5, 0.25)])
    ends = Table("findings", "", ("finding", "low", "high"), [("r at layer 1", -1.0, 1.0)])
    result = comparison(
        cell("hops", "int4", *layers, tables=(ends,)), cell("patch", "int4", tables=(effects,))
    )
    found = {one.name: one for one in result.figures()}
    assert list(found) == ["differences", "scatter-patch", "curve-hops-r"]
    curve = found["curve-hops-r"].frame()
    assert list(curve[curve["series"] == "int4"]["value"]) == [0.0, 0.1, 0.2]
    assert list(curve[curve["series"] == "int4"]["low"]) == [0.0, -1.0, 0.2]
    assert list(curve[curve["series"] == "reference"]["value"]) == [0.8] * 3
    assert found["scatter-patch"].frame().to_dict("records") == [
        {"x": 0.5, "y": 0.25, "series": "int4", "name": "head.0.1"}
    ]
    assert report.plot(result).data.equals(result.figure().frame())


QUANTIZED = Quantization(
    "int4", "dense", tuple(QuantizedModule(f"h.{at}", 64, 10, 0.1) for at in range(20)), {"h.0": EVIL}, 21,
    1000, 250, 0.5,
)  # fmt: skip
BROKEN = Integrity(
    scheme="int4", mode="dense", checks=(Check("modules", "fail", 1.0, 0.0, detail="one is missing"),)
)


def test_what_was_done_to_the_weights_is_told_and_a_failed_check_first_of_all() -> None:
    found = comparison(cell("a", "int4", quantization=QUANTIZED, integrity=BROKEN))
    row = found.table("weights").iloc[0]
    assert row["modules"] == "20 of 21" and row["ratio"] == 0.25 and row["checks"] == "0 of 1 passed"
    (note,) = (one.note for one in found.tables() if one.name == "weights")
    assert "int4 FAILS the check modules (one is missing)" in note


def test_numbers_without_verdicts_and_warnings_are_shown() -> None:
    plain = Table("cost", "", ("measure", "value"), [("bytes", 10.0), ("time", 2.0)])
    cells = [
        cell("cost", scheme, tables=(plain,), warnings=("timed once",), missing=("f",))
        for scheme in ("int8", "int4")
    ]
    told = comparison(*cells, references=(cell("cost", "", tables=(plain,)),))
    assert told.table("cost").to_numpy().tolist() == [
        [measure, scheme, value]
        for measure, value in (("bytes", 10.0), ("time", 2.0))
        for scheme in ("reference", "int8", "int4")
    ]
    assert "cost, int8, int4: timed once" in told.cautions()
    assert any("the finding 'f' of the reference is missing" in text for text in told.cautions())


def test_nothing_that_comes_from_data_runs() -> None:
    effects = Table("effects", EVIL, ("mediator", "reference", "value"), [(EVIL, 0.5, 0.25)])
    evil = comparison(
        cell(
            EVIL, EVIL,
            judgement(EVIL, "lost", unit=EVIL),
            *(judgement(f"{EVIL}{at}", "lost", curve=EVIL, layer=at) for at in range(3)),
            judgement(f"{EVIL} unclear", "survives", shown=False),
            tables=(effects,), quantization=QUANTIZED, warnings=(EVIL,),
        ),
        cell("b", EVIL, refused=EVIL), cell("c", EVIL, tables=(Table(EVIL, EVIL, (EVIL,), [(EVIL,)]),)),
        about=About({"name": EVIL, "weights": EVIL, "dtype": "float32"}), warnings=(EVIL,),
    )  # fmt: skip
    text = page.render(document(evil))
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "\x1b" not in text
    assert len(re.findall("<script", text)) == 1, "our own"
    for figure in evil.figures():
        assert "<script>alert" not in report.plot(figure).svg()


def test_numbers_are_short() -> None:
    assert [number(one) for one in (0.12345, 1234567.0)] == ["0.123", "1,234,567"]


@pytest.mark.parametrize(("mode", "said"), [("dense", True), ("cache", False)])
def test_what_a_dense_copy_is_said_to_be_is_not_said_of_a_rounded_cache(mode: str, said: bool) -> None:
    one = replace(cell("a", "int4", judgement("f", "survives")), quantization=replace(QUANTIZED, mode=mode))
    assert any(text.startswith("In mode dense") for text in comparison(one).cautions()) is said
