"""What is said of a comparison: the verdict in words, tables side by side, figures, and nothing that runs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from interp import report
from interp.report import page, stories
from interp.report.comparing import figures, main_figure, story
from interp.report.comparing_rows import interval, number, rows_of, shown_rows
from interp.report.story import Table

EVIL = "<script>alert(1)</script> [/red] \x1b"


def judgement(finding: str, verdict: str, **changes: Any) -> dict[str, Any]:
    """Give a verdict on 0.8 against a control of 0.2, with delta 0.06 and three hundredths of an interval."""
    difference = {
        "survives": 0.01,
        "weakened": -0.3,
        "strengthened": 0.3,
        "lost": -0.6,
        "inconclusive": -0.05,
    }[verdict]
    made = {
        "finding": finding,
        "verdict": verdict,
        "reference": 0.8,
        "value": 0.8 + difference,
        "reference_control": 0.2,
        "control": 0.2,
        "reference_excess": 0.6,
        "change": difference,
        "change_low": difference - 0.03,
        "change_high": difference + 0.03,
        "difference": difference,
        "low": difference - 0.03,
        "high": difference + 0.03,
        "noise": 0.001,
        "delta": 0.06,
        "excess": 0.6 + difference,
        "excess_low": 0.5 + difference,
        "excess_high": 0.7 + difference,
        "shown": True,
        "unit": "share",
        "n": 40,
        "n_groups": 20,
        "curve": "",
        "layer": None,
        "method": "",
        "about": "",
        "note": "",
    }
    return made | changes


def cell(analysis: str, scheme: str, *judgements: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made = {
        "analysis": analysis,
        "scheme": scheme,
        "judgements": list(judgements),
        "changes": [],
        "result": {},
        "quantization": {},
        "refused": "",
        "missing": [],
        "seconds": 1.0,
        "warnings": [],
    }
    return made | changes


def comparison(*cells: dict[str, Any], **changes: Any) -> dict[str, Any]:
    model = {"name": "tiny", "weights": "trained", "dtype": "float32"}
    names = ("survives", "weakened", "strengthened", "lost", "inconclusive")
    summary = [
        {"analysis": one["analysis"], "scheme": one["scheme"], "refused": one["refused"]}
        | {name: sum(j["verdict"] == name and j["shown"] for j in one["judgements"]) for name in names}
        | {"not shown": sum(not j["shown"] for j in one["judgements"])}
        for one in cells
    ]
    made = {
        "schema": "interp.comparison/2",
        "model": model,
        "other": None,
        "mode": "dense",
        "seed": 0,
        "noise": {},
        "summary": summary,
        "references": {},
        "cells": list(cells),
        "seconds": 3.0,
        "warnings": [],
    }
    return made | changes


BOTH = comparison(
    cell("recall", "int8", judgement("accuracy", "survives"), judgement("overlap", "survives")),
    cell("recall", "int4", judgement("accuracy", "lost"), judgement("overlap", "weakened")),
    cell("patch", "int8", judgement("top", "survives")),
    cell("patch", "int4", judgement("top", "inconclusive"), judgement("new", "survives", shown=False)),
)


def of(result: dict[str, Any]) -> Any:
    return story({"path": "runs/x"}, result, None)


def test_the_verdict_is_said_in_words() -> None:
    assert of(BOTH).verdict == (
        "At int8 all 3 findings survive; at int4 0 of 3 findings survive, "
        "1 is weakened (recall: overlap), 1 is lost (recall: accuracy), 1 is inconclusive."
    )
    assert of(BOTH).title == "What of tiny survives at int8, int4?"
    assert [(one.name, one.value, one.meaning) for one in of(BOTH).numbers] == [
        ("int8", "3 of 3", "nothing else"),
        ("int4", "0 of 3", "1 weakened, 1 lost, 1 inconclusive"),
    ]


def test_curves_are_named_and_not_their_layers() -> None:
    layers = [judgement(f"r at layer {at}", "lost", curve="r", layer=at) for at in range(5)]
    said = of(comparison(cell("hops", "int4", *layers, judgement("one", "lost")))).verdict
    assert "6 are lost (hops: one, hops: r at 5 layers)" in said


def test_nothing_clear_is_no_survival() -> None:
    said = of(comparison(cell("a", "int8", judgement("f", "survives", shown=False)))).verdict
    assert said == "At int8 the reference shows no finding to judge."
    empty = comparison(cell("a", "int8", refused="it cannot"))
    assert "1 analysis could not be run everywhere" in of(empty).verdict
    assert main_figure(empty).data.empty


def test_schemes_of_a_finding_stand_together_and_what_is_lost_comes_first() -> None:
    table = of(BOTH).first
    assert table is not None
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["analysis"], row["finding"], row["scheme"]) for row in rows] == [
        (analysis, finding, scheme)
        for analysis, finding in (("recall", "accuracy"), ("recall", "overlap"), ("patch", "top"))
        for scheme in ("int8", "int4")
    ]
    assert rows[1]["verdict"].endswith("lost")
    assert rows[1]["difference"] == "-0.6 [-0.63, -0.57]"
    assert rows[0]["difference"] == "+0.01 [-0.02, 0.04]"
    assert rows[0]["control, reference"] == rows[0]["control"] == "0.2"
    assert [row[1] for row in named(of(BOTH).tables, "Not judged").rows] == ["new"]


def named(tables: Any, title: str) -> Table:
    return next(table for table in tables if table.title == title)


def test_a_terminal_is_shown_a_few_findings_and_of_a_curve_the_layer_that_moves_most() -> None:
    many = [judgement(f"f{at}", "survives", change=0.01 * (at > 25)) for at in range(30)]
    layers = [
        judgement(f"r at layer {at}", "survives", curve="r", layer=at, change=0.01 * (at == 2))
        for at in range(4)
    ]
    table = named(of(comparison(cell("a", "int8", *many), cell("b", "int8", *layers))).terminal, "Verdicts")
    assert [row[1] for row in table.rows] == [f"f{at}" for at in (0, 1, 2, 3, 26, 27, 28, 29)] + [
        "r at layer 2"
    ]
    assert "25 more findings are in findings.parquet" in table.note


def test_another_checkpoint_is_no_precision() -> None:
    other = {"name": "tuned", "weights": "trained"}
    told = of(comparison(cell("a", "tuned (trained)", judgement("f", "survives")), other=other))
    assert told.title == "What of tiny survives in tuned (trained)?"
    assert told.verdict == "In tuned (trained) the one finding survives."
    assert any("no effect of precision" in text for text in told.lead)


def test_differences_are_in_units_of_delta_and_turned_so_that_less_is_negative() -> None:
    data = main_figure(BOTH).data.set_index("name")
    assert data.loc["recall: accuracy \u00b7 int4: lost", "value"] == pytest.approx(-10)
    assert data.loc["recall: overlap \u00b7 int8: survives", "high"] == pytest.approx(0.04 / 0.06)
    below = judgement("KL", "weakened", reference_excess=-2.0, change=0.3, change_low=0.2, change_high=0.5)
    row = main_figure(comparison(cell("a", "int4", below))).data.iloc[0]
    assert [row["low"], row["value"], row["high"]] == pytest.approx([-0.5 / 0.06, -5, -0.2 / 0.06])
    open_ = judgement("s", "inconclusive", change_low=None, change_high=None)
    row = main_figure(comparison(cell("a", "int4", open_))).data.iloc[0]
    assert (row["low"], row["high"]) == (-15, 15) and interval(None, 1.0) == "[undetermined]"
    twice = comparison(cell("a", "int4", judgement("f", "lost")), cell("b", "int4", judgement("f", "lost")))
    assert list(main_figure(twice).data["name"]) == ["a: f \u00b7 int4: lost", "b: f \u00b7 int4: lost"]


def test_curves_and_scatters_hold_the_numbers() -> None:
    layers = [judgement(f"r at layer {at}", "lost", curve="r", layer=at, value=at / 10) for at in range(3)]
    rows = [{"mediator": "head.0.1", "reference": 0.5, "value": 0.25}]
    ends = {"findings": [{"finding": "r at layer 1", "low": -1.0, "high": 1.0}]}
    result = comparison(
        cell("hops", "int4", *layers, result=ends),
        cell("patch", "int4", result={"facts": {"note": "x", "effects": rows}}),
    )
    found = figures(result)
    assert list(found) == ["differences", "scatter-patch", "curve-hops-r"]
    curve = found["curve-hops-r"].data
    assert list(curve[curve["series"] == "int4"]["value"]) == [0.0, 0.1, 0.2]
    assert list(curve[curve["series"] == "int4"]["low"]) == [0.0, -1.0, 0.2]
    assert list(curve[curve["series"] == "reference"]["value"]) == [0.8] * 3
    assert found["scatter-patch"].data.to_dict("records") == [
        {"x": 0.5, "y": 0.25, "series": "int4", "name": "head.0.1"}
    ]
    assert stories.figures("compare", result, None).keys() == found.keys()
    assert report.plot(result).data.equals(main_figure(result).data)


QUANTIZED = {
    "scheme": "int4", "mode": "dense", "quantized": 20, "expected": 21, "skipped": {"h.0": EVIL},
    "groups": {"64": 20}, "bytes_before": 1000, "bytes_after": 250, "weight_error": 0.1,
    "largest_error": 0.2, "seconds": 0.5,
    "calibration": {}, "base": "", "gradients": "",
    "integrity": {"checks": [{"name": "modules", "passed": False, "value": 1.0, "detail": "one is missing"}]},
}  # fmt: skip


def test_what_was_done_to_the_weights_is_told_and_a_failed_check_first_of_all() -> None:
    table = named(
        of(comparison(cell("a", "int4", quantization=QUANTIZED))).tables, "What was done to the weights"
    )
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["modules"] == "20 of 21" and row["ratio"] == "0.25" and row["checks"] == "0 of 1 passed"
    assert "int4 FAILS the check modules (one is missing)" in table.note


def test_numbers_without_verdicts_and_warnings_are_shown() -> None:
    changes = [{"measure": "bytes", "value": 10.0, "reference": 40, "change": None}]
    one = cell("cost", "int4", changes=changes, warnings=["timed once"], missing=["f"])
    told = of(comparison(one, cell("cost", "int8", changes=changes, warnings=["timed once"])))
    table = named(told.tables, "cost: what changes")
    assert table.columns == ("scheme", "measure", "value", "reference", "change") and len(table.rows) == 2
    assert "cost, int4, int8: timed once" in told.cautions
    assert any("the finding 'f' of the reference is missing" in text for text in told.cautions)


def test_nothing_that_comes_from_data_runs() -> None:
    rows = [{"mediator": EVIL, "reference": 0.5, "value": 0.25}]
    evil = comparison(
        cell(
            EVIL, EVIL,
            judgement(EVIL, "lost", unit=EVIL),
            *(judgement(f"{EVIL}{at}", "lost", curve=EVIL, layer=at) for at in range(3)),
            judgement(f"{EVIL} unclear", "survives", shown=False),
            result={"facts": {"effects": rows}}, quantization=QUANTIZED, warnings=[EVIL],
        ),
        cell("b", EVIL, refused=EVIL), cell("c", EVIL, changes=[{EVIL: EVIL}]),
        model={"name": EVIL, "weights": EVIL, "dtype": "float32"}, warnings=[EVIL],
    )  # fmt: skip
    text = page.render(of(evil), interactive=False)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "\x1b" not in text
    assert len(re.findall("<script", text)) == 1, "our own"
    full = page.render(of(evil))
    assert "<script>alert" not in full
    for figure in figures(evil).values():
        assert "<script>alert" not in figure.svg() and "<script>alert" not in figure.plotly().to_json()


def test_numbers_are_short() -> None:
    assert [number(one) for one in (0.12345, 1234567.0, None, float("nan"))] == [
        "0.123",
        "1,234,567",
        "\u2013",
        "\u2013",
    ]
    assert len(shown_rows(rows_of(BOTH))) == 6 and len(rows_of(BOTH)) == 7


def test_costs_stand_side_by_side_with_their_ratio() -> None:
    row = {"measure": "prefill", "unit": "ms", "value": 5.0, "value_reference": 10.0, "value_change": -5.0}
    timed = row | {"ratio": 0.5, "low": 0.4, "high": 0.6}
    still = row | {"measure": "bytes", "value": 1234567, "ratio": 1.0, "low": None, "high": None}
    cells = [cell("cost", scheme, changes=[timed, still]) for scheme in ("int8", "int4")]
    table = named(of(comparison(*cells)).tables, "cost: beside the reference")
    assert table.columns == ("measure", "unit", "reference", "int8", "int4")
    assert table.rows[0][3:] == ("5, \u00d7 0.5 [0.4,\u00a00.6]",) * 2
    assert table.rows[1][3] == "1,234,567, \u00d7 1"
    plain = named(of(comparison(cell("cost", "int8", changes=[row]))).tables, "cost: what changes")
    assert plain.columns[:2] == ("scheme", "measure")
