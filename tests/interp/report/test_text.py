"""Text from data is inert at a terminal: no control character passes, nothing is read as markup."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.report.document import Document, ShownTable
from interp.report.escape import one_line, printable, rich_text
from interp.report.terminal import console, of_rows, to_rich, write

NASTY = [
    "[/red]",
    "[bold]x[/bold]",
    "\x1b[31mred\x1b[0m",
    "a\x07b",
    "\u202egnp.exe",
    "\x9b31m",
    "[/INST]",
    ":smile:",
    "two\nlines",
    "\ud800",
]


@given(st.text())
def test_printable_text_has_no_character_that_acts(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    if text.isascii() and text.isprintable():
        assert shown == text


@given(st.text(), st.integers(1, 40))
def test_one_line_is_one_line_of_at_most_the_width(text: str, width: int) -> None:
    assert len(one_line(text, width)) <= width
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("text", NASTY)
def test_a_table_shows_nasty_text_literally(text: str) -> None:
    stream = io.StringIO()
    console(stream).print(to_rich(ShownTable(text, ("label", text), ((text, 1.0),))))
    console(stream).print(rich_text(text))
    written = stream.getvalue()
    assert (
        "\x1b" not in written and "\x07" not in written and "\u202e" not in written and "\x9b" not in written
    )
    assert written.count(printable(text)) >= 3


def test_rich_without_our_text_would_have_failed() -> None:
    from rich.console import Console
    from rich.errors import MarkupError

    with pytest.raises(MarkupError):
        Console(file=io.StringIO()).print("[/red]")


def test_a_document_is_printed_with_verdict_tables_and_missing_numbers() -> None:
    stream = io.StringIO()
    table = of_rows(
        [
            {"what": "probe", "score": 0.12345, "n": 3, "gap": float("nan")},
            {"what": "chance", "score": None, "n": 4, "gap": 1.0},
        ],
        "Scores",
        note="n = 3",
    )
    write(Document("k", "Title", "Yes.", tables=(table,), cautions=("Reading is not use.",)), stream)
    written = stream.getvalue()
    for part in ("Title", "Yes.", "Scores", "0.123", "\u2013", "n = 3", "Reading is not use."):
        assert part in written
