"""Print a document at a terminal: verdict, numbers, tables. Text from data is never read as markup."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from io import TextIOBase
from typing import TYPE_CHECKING, Any

from interp.report.document import Cell, Document, ShownTable
from interp.report.escape import printable, rich_text

if TYPE_CHECKING:
    import rich.console
    import rich.table

__all__ = ["console", "fitted", "of_rows", "to_rich", "write"]

GAP = 3
"""Blanks between two columns."""
TEXT = 9
"""What a column of text needs at the least where others may not be broken."""


def console(stream: TextIOBase | None = None) -> rich.console.Console:
    """A rich console that highlights and parses nothing, on stdout unless told otherwise.

    Away from a terminal it is wide, so that no column of a redirected table is cut.
    """
    from rich.console import Console

    out: Any = sys.stdout if stream is None else stream
    width = None if out.isatty() else 160
    return Console(file=out, markup=False, highlight=False, emoji=False, width=width, soft_wrap=False)


def to_rich(table: ShownTable, width: int | None = None) -> rich.table.Table:
    """A document's table as a rich one: numbers right-aligned with three decimals, the main row bold.

    Args:
        table: of a document.
        width: of the console. Where it is enough, text is broken and numbers and intervals never are.
    """
    from rich import box
    from rich.table import Table as Rich

    drawn = Rich(
        box=box.SIMPLE_HEAD,
        title=rich_text(table.title),
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    sizes = _sizes(table)
    numeric = [
        at in table.numeric or any(isinstance(row[at], int | float) for row in table.rows)
        for at in range(len(sizes))
    ]
    whole = [number or all(_interval(row[at]) for row in table.rows) for at, number in enumerate(numeric)]
    least = sum(size if one else min(size, TEXT) for size, one in zip(sizes, whole, strict=True))
    # A column that may not be broken is cut by rich where it does not fit: then it is broken instead.
    roomy = width is not None and least + GAP * len(sizes) <= width + 1
    for name, number, one in zip(table.columns, numeric, whole, strict=True):
        side = "right" if number else "left"
        drawn.add_column(rich_text(name), justify=side, overflow="fold", no_wrap=one and roomy)
    for at, row in enumerate(table.rows):
        drawn.add_row(*(rich_text(_shown(value)) for value in row), style="bold" if at == table.main else "")
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
        fitting = fitted(table, out.width)
        out.print(to_rich(fitting, out.width))
        if fitting.note:
            out.print(rich_text(fitting.note, style="dim"))
            out.print()
    for caution in document.cautions:
        out.print(rich_text(f"- {caution}", style="dim"))


def of_rows(rows: Iterable[Mapping[str, Cell]], title: str = "", *, note: str = "") -> ShownTable:
    """Turn dictionaries with the same keys into a document's table."""
    rows = list(rows)
    columns = tuple(rows[0]) if rows else ()
    return ShownTable(
        title, columns, tuple(tuple(row.get(column) for column in columns) for row in rows), note
    )


def fitted(table: ShownTable, width: int) -> ShownTable:
    """A table without the columns that it can spare, as many as it takes to fit a width; the note says so."""
    sizes, left_out = _sizes(table), list[int]()
    for at in table.narrow:
        if sum(sizes) + GAP * (len(sizes) - len(left_out)) <= width + 1:
            break
        left_out.append(at)
        sizes[at] = 0
    if not left_out:
        return table
    kept = [at for at in range(len(sizes)) if at not in left_out]
    names = ", ".join(table.columns[at] for at in sorted(left_out))
    return replace(
        table,
        columns=tuple(table.columns[at] for at in kept),
        rows=tuple(tuple(row[at] for at in kept) for row in table.rows),
        numeric=tuple(kept.index(at) for at in table.numeric if at in kept),
        note=f"{table.note} Left out here, in the report: {names}.".strip(),
    )


def _sizes(table: ShownTable) -> list[int]:
    """The width of each column that is not broken."""
    from rich.cells import cell_len

    columns = zip(table.columns, *(map(_shown, row) for row in table.rows), strict=True)
    return [max(map(cell_len, cells)) for cells in columns]


def _interval(value: Cell) -> bool:
    return isinstance(value, str) and (value[:1] == "[" or value in ("\u2013", "undetermined"))


def _shown(value: Cell) -> str:
    if value is None or value != value:  # NaN
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else printable(value)
