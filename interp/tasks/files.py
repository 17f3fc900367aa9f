"""Labelled prompts, questions and names from files of the user's.

Prompts: CSV, TSV or JSON lines with the columns text, label and, if wanted, group and split. Names: one
a line.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.conversations.messages import check, transcript, with_tools
from interp.errors import DataError
from interp.paths import objects, records_of, text_of
from interp.tasks.prompts import Labelled

__all__ = ["as_labelled", "cell", "read_labelled", "read_names", "read_questions", "rows_of"]

_SPLITS = ("", "train", "validation", "test")


def read_labelled(path: str | Path) -> Labelled:
    """Read labelled prompts.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.jsonl`` file in UTF-8. ``text`` and ``label`` are needed; ``group``
            names what must not straddle a split; ``split`` is ``train``, ``validation`` or ``test``. In JSON
            lines ``messages``, a list of ``{"role": ..., "content": ...}``, may stand for ``text``; such
            conversations need no label where none of the file has one, and ``tools`` beside them are what the
            model may call.

    Returns:
        The prompts in the order of the file; labels and groups are strings, blanks around them removed.

    Raises:
        DataError: no such file, not UTF-8, empty, no such column, an empty cell, or a split of another
            name; the message names the line.
    """
    path = Path(path)
    return _labelled(path, rows_of(path, ()))


def as_labelled(data: Any) -> Labelled:
    """Prompts with labels of whatever a user has them in.

    Args:
        data: :class:`Labelled`; a file that :func:`read_labelled` reads; a DataFrame or a list of mappings
            with the columns ``text`` and ``label``, and ``group`` and ``split`` where there are some.

    Raises:
        DataError: what :func:`read_labelled` refuses, or something else; rows are counted from 1.
    """
    if isinstance(data, Labelled):
        return data
    if isinstance(data, str | Path):
        return read_labelled(data)
    rows = records_of(data)
    if not rows:
        raise DataError(
            f"a {type(data).__name__} given; give Labelled prompts, a file, a DataFrame or a list of "
            "mappings with text and label."
        )
    return _labelled(Path("rows"), list(enumerate(rows, start=1)))


def _labelled(path: Path, rows: Sequence[tuple[int, Mapping[str, object]]]) -> Labelled:
    chats = any("messages" in row for _, row in rows)
    if not chats:
        _check_columns(path, rows[0][1], ("text", "label"))
    messages = tuple(_messages(path, line, row) for line, row in rows) if chats else ()
    texts = tuple(
        transcript(json.loads(messages[at])) if chats and messages[at] else cell(path, line, row, "text")
        for at, (line, row) in enumerate(rows)
    )
    needed = not chats or any(row.get("label") not in (None, "") for _, row in rows)
    labels = tuple(cell(path, line, row, "label") if needed else "" for line, row in rows)
    grouped = any(row.get("group") not in (None, "") for _, row in rows)
    groups = tuple(cell(path, line, row, "group") if grouped else f"row-{line}" for line, row in rows)
    splits = tuple(_split(path, line, row) for line, row in rows)
    told = f"labels of {path.name}" if needed else f"conversations of {path.name}"
    return Labelled(path.stem, told, texts, labels, groups, splits, str(path), grouped, messages)


def _messages(path: Path, line: int, row: Mapping[str, object]) -> str:
    """The messages of a line as JSON; "" where it has a text instead."""
    found: Any = row.get("messages")
    if found is None:
        return ""
    if row.get("text") not in (None, ""):
        raise DataError(f"'{path}' line {line} has both 'text' and 'messages'; keep one of them.")
    place = f"'{path}' line {line}"
    check(found, place)
    return json.dumps(with_tools(found, row.get("tools"), place), ensure_ascii=False)


def read_questions(path: str | Path) -> list[tuple[str, str]]:
    """Read questions with their answers from a ``.csv``, ``.tsv`` or ``.jsonl`` file.

    Args:
        path: a file in UTF-8 with the columns ``question`` and ``answer``.

    Raises:
        DataError: as for :func:`read_labelled`.
    """
    path = Path(path)
    rows = rows_of(path, ("question", "answer"))
    return [(cell(path, line, row, "question"), cell(path, line, row, "answer")) for line, row in rows]


def rows_of(path: Path, columns: Sequence[str]) -> list[tuple[int, Mapping[str, object]]]:
    """The rows of a table, each with the number of its line.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.jsonl`` file in UTF-8.
        columns: that it must have.

    Raises:
        DataError: no such file, not UTF-8, no rows, no such column.
    """
    rows = _parse(path, text_of(path))
    if not rows:
        columns = columns or ("text", "label")
        words = " and ".join((", ".join(columns[:-1]), columns[-1]))
        raise DataError(f"'{path}' has no rows; it needs at least one line with {words}.")
    _check_columns(path, rows[0][1], columns)
    return rows


def read_names(path: str | Path) -> list[str]:
    """Read names, one a line, each once; blanks around them and empty lines do not count.

    Args:
        path: a text file in UTF-8.

    Raises:
        DataError: no such file, not UTF-8, or fewer than two names.
    """
    names = list(dict.fromkeys(filter(None, map(str.strip, text_of(Path(path)).splitlines()))))
    if len(names) < 2:
        raise DataError(f"'{path}' holds {len(names)} names; write at least 2, one a line.")
    return names


def _parse(path: Path, text: str) -> list[tuple[int, Mapping[str, object]]]:
    """The rows of a file, each with its line number."""
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return [*objects(path, text)]
    if suffix in (".csv", ".tsv"):
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",")
        return _csv_rows(path, reader)
    raise DataError(f"'{path}' ends in '{suffix}'; files of labelled prompts end in .csv, .tsv or .jsonl.")


def _csv_rows(path: Path, reader: csv.DictReader[str]) -> list[tuple[int, Mapping[str, object]]]:
    """Read the rows, refusing what would shift or drop a cell in silence."""
    rows: list[tuple[int, Mapping[str, object]]] = []
    try:
        names = list(reader.fieldnames or ())
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"'{path}' has two columns '{twice}'; keep one.")
        for row in reader:
            if None in row:
                raise DataError(
                    f"'{path}' line {reader.line_num} has more cells than the {len(names)} columns of the "
                    "header; put cells that hold the separator in double quotes."
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(f"'{path}' cannot be read behind line {reader.line_num}: {error}.") from None
    return rows


def _check_columns(path: Path, row: Mapping[str, object], wanted_columns: Sequence[str]) -> None:
    names = [str(name) for name in row if name is not None]
    for wanted in wanted_columns:
        if wanted not in names:
            if {"clean", "corrupt"} <= set(names):
                raise DataError(
                    f"'{path}' holds pairs of prompts (clean, corrupt), not prompts with "
                    f"{' and '.join(wanted_columns)}. Give it to `interp patch --data`, or write one "
                    f"{wanted} a line."
                )
            near = difflib.get_close_matches(wanted, names, 1)
            hint = (
                f" Is '{near[0]}' meant? Rename it to '{wanted}'."
                if near
                else f" Name one of them '{wanted}'."
            )
            raise DataError(
                f"'{path}' has no column '{wanted}'; its columns are: {', '.join(names) or '(none)'}.{hint}"
            )


def cell(path: Path, line: int, row: Mapping[str, object], column: str) -> str:
    """The text of a cell.

    Raises:
        DataError: it is empty, or holds no text; the message names file, line and column.
    """
    value = row.get(column)
    if value is None or str(value).strip() == "":
        raise DataError(f"'{path}' line {line}: column '{column}' is empty; fill it or remove the line.")
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str):
        raise DataError(f"'{path}' line {line}: column '{column}' holds {type(value).__name__}, not text.")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"'{path}' line {line}: column '{column}' is {value}; give text or a finite number.")
    return str(value) if column == "text" else str(value).strip()


def _split(path: Path, line: int, row: Mapping[str, object]) -> str:
    value = str(row.get("split") or "")
    if value not in _SPLITS:
        raise DataError(f"'{path}' line {line}: split '{value}' is not one of train, validation, test.")
    return value
