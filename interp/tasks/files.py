"""Labelled prompts, questions and names from files of the user's.

Prompts: CSV, TSV, JSON lines or parquet with the columns text, label and, if wanted, group and split, in one
file or in several. Names: one a line.
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
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def read_labelled(path: str | Path) -> Labelled:
    """Read labelled prompts.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file, text in UTF-8; or a folder of them, or a
            pattern such as ``data/*.jsonl``, whose files are read in the order of their names. ``text`` and
            ``label`` are needed; ``group`` names what must not straddle a split; ``split`` is ``train``,
            ``validation`` or ``test``. In JSON lines and parquet ``messages``, a list of ``{"role": ...,
            "content": ...}``, may stand for ``text``; such conversations need no label where none of them has
            one, and ``tools`` beside them are what the model may call.

    Returns:
        The prompts in the order of the files; labels and groups are strings, blanks around them removed.

    Raises:
        DataError: no such file, not UTF-8, empty, no such column, an empty cell, or a split of another
            name; the message names the line, of a parquet file the row.
    """
    path = Path(path)
    rows = [(file, line, row) for file in _files(path) for line, row in rows_of(file, ())]
    return _labelled(path, rows)


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
    place = Path("rows")
    return _labelled(place, [(place, line, row) for line, row in enumerate(rows, start=1)])


def _labelled(path: Path, rows: Sequence[tuple[Path, int, Mapping[str, object]]]) -> Labelled:
    """The prompts of rows, each with its file and line."""
    chats = any("messages" in row for _, _, row in rows)
    firsts = {} if chats else {file: row for file, _, row in reversed(rows)}
    for file, row in firsts.items():
        _check_columns(file, row, ("text", "label"))
    messages = tuple(_messages(*row) for row in rows) if chats else ()
    texts = tuple(
        transcript(json.loads(messages[at])) if chats and messages[at] else cell(*row, "text")
        for at, row in enumerate(rows)
    )
    needed = not chats or any(row.get("label") not in (None, "") for _, _, row in rows)
    labels = tuple(cell(*row, "label") if needed else "" for row in rows)
    grouped = any(row.get("group") not in (None, "") for _, _, row in rows)
    own = [f"row-{line}" if file == path else f"{file.name} row-{line}" for file, line, _ in rows]
    groups = tuple(cell(*row, "group") for row in rows) if grouped else tuple(own)
    splits = tuple(_split(*row) for row in rows)
    name = path.parent if "*" in path.name else path
    told = f"labels of {name.name}" if needed else f"conversations of {name.name}"
    return Labelled(name.stem, told, texts, labels, groups, splits, str(path), grouped, messages)


def _files(path: Path) -> list[Path]:
    """The files that a path stands for: itself, those of a folder, or those that match a pattern.

    Raises:
        DataError: a folder or a pattern without any.
    """
    if not path.is_dir() and "*" not in path.name:
        return [path]
    found = path.parent.glob(path.name) if "*" in path.name else path.iterdir()
    files = sorted(file for file in found if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not files:
        kind = "folder" if path.is_dir() else "pattern"
        raise DataError(
            f"'{path}', a {kind}, holds no file of prompts; their names end in {', '.join(_SUFFIXES)}."
        )
    return files


def _messages(path: Path, line: int, row: Mapping[str, object]) -> str:
    """The messages of a line as JSON; "" where it has a text instead."""
    found: Any = row.get("messages")
    if found is None:
        return ""
    if row.get("text") not in (None, ""):
        raise DataError(f"{_place(path, line)} has both 'text' and 'messages'; keep one of them.")
    place = _place(path, line)
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
    """The rows of a table, each with the number of its line, in a parquet file of the row.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file.
        columns: that it must have.

    Raises:
        DataError: no such file, not UTF-8, no rows, no such column.
    """
    rows = _records(path) if path.suffix.lower() == ".parquet" else _parse(path, text_of(path))
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
    raise DataError(
        f"'{path}' ends in '{suffix}'; files of labelled prompts end in .csv, .tsv, .jsonl or .parquet."
    )


def _records(path: Path) -> list[tuple[int, Mapping[str, object]]]:
    """The rows of a parquet file, counted from 1; what a message lacks is left out of it."""
    import pyarrow.parquet

    if not path.is_file():
        text_of(path)  # says what is there instead
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' cannot be read as parquet: {str(error).splitlines()[0]}") from None
    return [
        (number, {key: _present(value) for key, value in row.items()}) for number, row in enumerate(rows, 1)
    ]


def _present(value: Any) -> Any:
    """A list of records without the fields that parquet fills with nothing."""
    if isinstance(value, list):
        return [_present(one) for one in value]
    if isinstance(value, dict):
        return {key: _present(one) for key, one in value.items() if one is not None}
    return value


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
    value, place = row.get(column), _place(path, line)
    if value is None or str(value).strip() == "":
        raise DataError(f"{place}: column '{column}' is empty; fill it or remove the line.")
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str):
        raise DataError(f"{place}: column '{column}' holds {type(value).__name__}, not text.")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{place}: column '{column}' is {value}; give text or a finite number.")
    return str(value) if column == "text" else str(value).strip()


def _split(path: Path, line: int, row: Mapping[str, object]) -> str:
    value = str(row.get("split") or "")
    if value not in _SPLITS:
        raise DataError(f"{_place(path, line)}: split '{value}' is not one of train, validation, test.")
    return value


def _place(path: Path, line: int) -> str:
    """A line of a file as messages name it."""
    return f"'{path}' {'row' if path.suffix.lower() == '.parquet' else 'line'} {line}"
