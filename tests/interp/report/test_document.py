"""Any result as a document: what it says is shown, escaped and explained, and nothing else is needed."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.console import Console

import interp
from interp.report import page, terminal
from interp.report.document import document, interval_text, shown_table, value_text
from interp.report.glossary import terms_in
from interp.results import About, Figure, Number, Result, Table


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Found(Result):
    schema: ClassVar[str] = "tests.document/1"

    def verdict(self) -> str:
        return "The <b>heads</b> are read; faithfulness is high."

    def question(self) -> str:
        return "Which \x1b[31mheads?"

    def numbers(self) -> tuple[Number, ...]:
        total = Number("total-effect", 1.23456, 1.0, 1.5, "nats", "clean less corrupt")
        return (total, Number("pairs", 12000))

    def tables(self) -> tuple[Table, ...]:
        rows = [(f"head.{i}", 0.5, 0.4, 0.6, 0.25, 3) for i in range(40)]
        columns = ("mediator", "effect", "low", "high", "share", "n")
        return (
            Table("effects", "Effects", columns, rows, "Over groups.", formats={"share": ".0%"}),
            Table("more", "More", ("x", "a_low", "a_high"), [(1, None, None)], folded=True),
        )

    def figures(self) -> tuple[Figure, ...]:
        data = {"name": ["a"], "value": [1.0], "low": [0.5], "high": [1.5]}
        return (
            Figure("effects", "intervals", data, "Largest", "95% over groups", x="nats", reference=0.0),
            Figure("map", "map", {"x": [0, 1], "y": [0, 0], "value": [1.0, -1.0]}, "Map", ""),
        )

    def cautions(self) -> tuple[str, ...]:
        return ("Only these pairs.",)


def test_everything_that_a_result_says_is_on_the_page_and_nothing_runs() -> None:
    found = document(Found(warnings=("Few pairs.",)), {"command": "patch", "command_line": "interp patch"})
    text = page.render(found)
    for part in (
        "&lt;b&gt;heads&lt;/b&gt;",
        "Which \\x1b[31mheads?",
        "Total effect",
        "nats [1.000, 1.500]",
        "12,000",
        "Only these pairs.",
        "Few pairs.",
        "[0.400, 0.600]",
        "25%",
        "10 more rows are in tables/effects.parquet",
        "Largest",
        "Map",
        "interp patch",
    ):
        assert part in text, part
    assert "<b>heads</b>" not in text
    assert text.count("<svg") == 2


def test_what_is_not_saved_points_at_no_folder() -> None:
    text = page.fragment(document(Found()))
    assert "10 more rows are not shown here" in text and "folder" not in text


def test_a_report_explains_the_terms_that_it_uses_and_no_others() -> None:
    terms = dict(document(Found()).words)
    assert {"faithfulness", "mediator", "nats", "group"} <= set(terms)
    assert "hypervector" not in terms
    assert "q" not in terms


def test_a_longer_term_is_not_taken_for_a_shorter_one_in_it() -> None:
    assert list(dict(terms_in(["Below the noise floors, not told from chance."]))) == [
        "noise floor",
        "told from chance",
    ]
    assert list(dict(terms_in(["A noise floor is no floor."]))) == ["floor", "noise floor"]
    assert [*dict(terms_in(["not shown by the reference"]))] == ["not shown by the reference"]
    assert not terms_in(["Readable, but not shown to be used"])


def test_intervals_are_one_cell_and_columns_of_numbers_are_set_right() -> None:
    table = shown_table(Found().tables()[0])
    assert table.columns == ("mediator", "effect", "interval", "share", "n")
    assert table.rows[0] == ("head.0", "0.500", "[0.400, 0.600]", "25%", "3")
    assert table.numeric == (1, 2, 3, 4)
    assert len(table.rows) == 30
    assert len(shown_table(Found().tables()[0], None).rows) == 40
    assert shown_table(Found().tables()[1]).columns == ("x", "a interval")


def test_columns_for_work_with_the_data_are_left_out_of_what_is_shown() -> None:
    whole = Found().tables()[0]
    part = shown_table(replace(whole, hidden=("share", "mediator")))
    assert part.columns == ("effect", "interval", "n") and part.rows[0] == ("0.500", "[0.400, 0.600]", "3")
    assert list(replace(whole, hidden=("share",)).frame()) == list(whole.columns)


def test_data_and_model_are_named_for_a_title() -> None:
    assert About(model={"name": "/models/gpt2", "scheme": "int8"}).words == "gpt2 at int8"
    assert About(model={"name": "demo"}, data={"name": "capitals"}).words == "capitals, demo"


def test_numbers_as_text() -> None:
    assert value_text(None) == value_text(math.nan) == interval_text(None, 1.0) == "\u2013"
    assert value_text(0.0) == "0.000"
    assert value_text(0.00001234) == "1.2e-05"
    assert value_text(12345) == "12,345"
    assert value_text(True) == "yes"
    assert interval_text(-math.inf, 1.0) == "[-inf, 1.000]"
    assert interval_text(0.00012, 25.0, form=".3g") == "[0.00012, 25]"


def test_plot_draws_any_result_or_any_of_its_figures() -> None:
    assert interp.plot(Found()).title == "Largest"
    assert interp.plot(Found(), "map").title == "Map"
    assert "<svg" in interp.plot(Found().figures()[1]).svg()


def test_a_folder_is_called_by_its_last_part_above_the_title() -> None:
    for name, shown in (("demo", "demo"), ("org/model", "org/model"), ("/a/b/tiny", "tiny"), ("./m", "m")):
        facts = {"command": "probe", "model": {"name": name}}
        assert document(Found(), facts).kicker == f"interp probe \u00b7 {shown}"


def test_a_narrow_terminal_is_spared_columns_and_no_number_is_broken() -> None:
    names = tuple(f"head.{at}.{at}" for at in range(12))
    rows = [
        (name, 17.0 + at, 11.865, 124.351, 0.4, 16.5, "not told from chance") for at, name in enumerate(names)
    ]
    columns = ("mediator", "effect", "low", "high", "share", "by_luck", "remark")
    table = Table("effects", "Effects", columns, rows, "Of pairs.", narrow=("by_luck", "share"))

    def printed(width: int) -> str:
        stream = io.StringIO()
        shown = terminal.fitted(shown_table(table), width)
        out = Console(file=stream, width=width, markup=False, highlight=False)
        out.print(terminal.to_rich(shown, width))
        return stream.getvalue() + shown.note

    wide, narrow, tiny = printed(100), printed(72), printed(30)
    assert "by luck" in wide and "share" in wide and "Left out" not in wide
    assert "by luck" not in narrow.splitlines()[1] and "Left out here, in the report: by luck." in narrow
    for at, name in enumerate(names):
        line = next(line for line in narrow.splitlines() if name in line.split())
        assert f"{17.0 + at:.3f}" in line and "[11.865, 124.351]" in line
    whole = "".join("".join(line.split()) for line in tiny.splitlines())
    assert whole.count("351]") == 12  # where nothing fits, numbers are broken and never cut
