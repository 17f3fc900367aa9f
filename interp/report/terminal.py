"""Print a document at a terminal: verdict, numbers, tables. Text from data is never read as markup."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from io import TextIOBase
from typing import TYPE_CHECKING, Any

from interp.report.document import Cell, Document, Table
from interp.report.escape import printable, rich_text

if TYPE_CHECKING:
    import rich.console
    import rich.table

__all__ = ["console", "of_rows", "to_rich", "write"]

WIDTH = 100


def console(stream: TextIOBase | None = None) -> rich.console.Console:
    """Give a rich console that highlights and parses nothing, on stdout unless told otherwise.

    Away from a terminal it is wide, so that no column of a redirected table is cut.
    """
    from rich.console import Console

    out: Any = sys.stdout if stream is None else stream
    width = None if out.isatty() else 160
    return Console(file=out, markup=False, highlight=False, emoji=False, width=width, soft_wrap=False)


def to_rich(table: Table) -> rich.table.Table:
    """Give a document's table as a rich one: numbers right-aligned with three decimals, the main row bold."""
    from rich import box
    from rich.table import Table as Rich

    drawn = Rich(
        box=box.SIMPLE_HEAD,
        title=rich_text(table.title),
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    for i, column in enumerate(table.columns):
        numeric = i in table.numeric or any(isinstance(row[i], int | float) for row in table.rows)
        drawn.add_column(rich_text(column), justify="right" if numeric else "left", overflow="fold")
    for i, row in enumerate(table.rows):
        drawn.add_row(*(rich_text(_shown(value)) for value in row), style="bold" if i == table.main else "")
    return drawn


def write(document: Document, stream: TextIOBase | None = None) -> None:
    """Print a document: title, verdict, tables that are not folded, cautions."""
    out = console(stream)
    out.print(rich_text(document.title, style="bold"))
    out.print(rich_text(document.verdict))
    out.print()
    first = () if document.first is None else (document.first,)
    shown = (table for table in document.tables if not table.folded)
    for table in document.terminal or (*first, *shown):
        out.print(to_rich(table))
        if table.note:
            out.print(rich_text(table.note, style="dim"))
            out.print()
    for caution in document.cautions:
        out.print(rich_text(f"- {caution}", style="dim"))


def of_rows(rows: Iterable[Mapping[str, Cell]], title: str = "", *, note: str = "") -> Table:
    """Turn dictionaries with the same keys into a document's table."""
    rows = list(rows)
    columns = tuple(rows[0]) if rows else ()
    return Table(title, columns, tuple(tuple(row.get(column) for column in columns) for row in rows), note)


def _shown(value: Cell) -> str:
    if value is None or value != value:  # NaN
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else printable(value)
