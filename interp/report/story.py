"""What a report says, before it has a form: words, numbers, tables, figures and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.report.figures import Figure

__all__ = ["Cell", "Example", "Number", "Story", "Table"]

Cell = str | float | int | None


@dataclass(frozen=True)
class Number:
    """Hold one headline number: its name, value and interval as text, and one sentence on what it means."""

    name: str
    value: str
    interval: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Table:
    """Hold a table: its columns, its rows, which row is the main one, and a note under it.

    A ``folded`` table is long, and opened by the reader. ``numeric`` columns are set to the right.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    main: int | None = None
    folded: bool = False
    numeric: tuple[int, ...] = ()


@dataclass(frozen=True)
class Example:
    """Hold one prompt with what it is and what the probe read."""

    text: str
    actual: str
    predicted: str
    confidence: str = ""


@dataclass(frozen=True)
class Story:
    """Hold everything a report shows.

    Attributes:
        kicker: the small line above the title.
        title: the question that was asked.
        verdict: the answer in plain words.
        lead: what was done, as paragraphs.
        numbers: the headline numbers.
        tables: the numbers behind them.
        first: a table that is the answer, right under the verdict.
        terminal: tables for a terminal, where those of the page are too wide; else it shows the page's.
        figures: figures, each with its caption.
        wrong: prompts the probe got wrong.
        right: prompts it got right.
        cautions: what this does not show, and warnings of the run.
        certificate: the model's checks.
        command: the shell command that makes the run again.
        facts: (name, value) of what identifies the run: model, fingerprints, versions, seeds.
        words: (term, explanation) of every term of art used.
    """

    kicker: str
    title: str
    verdict: str
    lead: Sequence[str] = ()
    numbers: Sequence[Number] = ()
    tables: Sequence[Table] = ()
    first: Table | None = None
    terminal: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    wrong: Sequence[Example] = ()
    right: Sequence[Example] = ()
    cautions: Sequence[str] = ()
    certificate: Table | None = None
    command: str = ""
    facts: Sequence[tuple[str, str]] = ()
    words: Sequence[tuple[str, str]] = ()
