"""A result as a document: numbers become text, intervals one cell, and the terms that it uses are explained.

Nothing here knows an analysis: everything comes from what every ``Result`` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isinf
from pathlib import Path
from typing import Any

from interp import results, runs
from interp.report.escape import printable
from interp.report.figures import Drawing, drawing
from interp.report.glossary import terms_in
from interp.results import About, Result
from interp.results.codec import from_json

__all__ = [
    "Document",
    "ShownNumber",
    "ShownTable",
    "certificate_table",
    "document",
    "of_run",
    "shown_table",
    "value_text",
]

LONG = 30
"""Rows of a table that are shown, unless it asks for more; the run's folder has all of them."""


Cell = str | float | int | None


@dataclass(frozen=True)
class ShownNumber:
    """A headline number as it is shown: name, value and interval as text, one clause on what it means."""

    name: str
    value: str
    interval: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class ShownTable:
    """A table as it is shown: columns, rows, which row is the main one, a note under it.

    A ``folded`` table is long, and opened by the reader. ``numeric`` columns are set to the right. A terminal
    leaves ``narrow`` columns out, one after the other, until the rest fits.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    main: int | None = None
    folded: bool = False
    numeric: tuple[int, ...] = ()
    narrow: tuple[int, ...] = ()


@dataclass(frozen=True)
class Document:
    """Everything that a report shows, before it has a form.

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
    numbers: Sequence[ShownNumber] = ()
    tables: Sequence[ShownTable] = ()
    first: ShownTable | None = None
    terminal: Sequence[ShownTable] = ()
    figures: Sequence[Drawing] = ()
    cautions: Sequence[str] = ()
    certificate: ShownTable | None = None
    command: str = ""
    facts: Sequence[tuple[str, str]] = ()
    words: Sequence[tuple[str, str]] = ()


def document(result: Result, facts: Mapping[str, Any] | None = None) -> Document:
    """What a report shows of a result.

    Args:
        result: what was found.
        facts: ``run.json`` of its run, for the command line, the certificate and what identifies the run.
    """
    facts = dict(facts or {})
    cautions = [*result.cautions(), *result.warnings, *facts.get("warnings", [])]
    tables = result.tables()
    saved = bool(facts)
    main, *others = [shown_table(table, max(LONG, table.shown), saved=saved) for table in tables] or [None]
    ordered = sorted(tables, key=lambda one: not one.leads)
    narrow = [replace(one, hidden=(*one.hidden, *one.page_only)) for one in ordered if not one.folded]
    found = Document(
        kicker=_kicker(facts),
        title=result.question(),
        verdict=result.verdict(),
        lead=result.lead(),
        numbers=[_number(one) for one in result.numbers() if not one.hidden],
        first=main,
        tables=[one for one in others if one is not None],
        terminal=[shown_table(table, table.on_terminal, saved=saved) for table in narrow],
        figures=[drawing(one) for one in result.figures()],
        cautions=list(dict.fromkeys(cautions)),
        certificate=certificate_table(facts.get("certificate")),
        command=str(facts.get("command_line", "")),
        facts=_identity(facts) if facts else (),
    )
    return _explained(found)


def certificate_table(certificate: Mapping[str, Any] | None) -> ShownTable | None:
    """The checks of the model as ``run.json`` holds them; None where a run has none."""
    if not certificate or "result" not in certificate:
        return None
    found = from_json(certificate["result"], Result)
    return replace(shown_table(found.tables()[0]), title="The model's certificate")


def _kicker(facts: Mapping[str, Any]) -> str:
    if not facts:
        return "interp"
    parts = (f"interp {facts.get('command', '')}", _short_name(dict(facts)), str(facts.get("path", "")))
    return " \u00b7 ".join(part for part in parts if part and part != "?")


def _number(number: results.Number) -> ShownNumber:
    value, unit = value_text(number.value, number.decimals), number.unit
    known = number.low is not None and number.high is not None
    interval = interval_text(number.low, number.high, number.decimals) if known else ""
    return ShownNumber(number.title, value, f"{unit} {interval}".strip(), number.meaning)


def value_text(value: results.Cell, decimals: int = 3) -> str:
    """A value as text: thousands separated, small numbers by their power of ten, nothing as a dash."""
    if value is None or value != value:  # NaN
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int) or (abs(value) >= 10_000 and float(value).is_integer()):
        return f"{value:,.0f}"
    small = value != 0 and abs(value) < 0.5 * 10.0**-decimals
    return f"{value:.1e}" if small else f"{value:,.{decimals}f}"


def interval_text(low: Any, high: Any, decimals: int = 3, *, form: str | None = None) -> str:
    """An interval as text; a dash where there is none, and a word where the data cannot say."""
    if low is None or high is None or low != low or high != high:
        return "\u2013"
    if isinf(low) and isinf(high):
        return "undetermined"
    ends = (format(end, form) if form else value_text(end, decimals) for end in (low, high))
    return f"[{', '.join(ends)}]"


def shown_table(table: results.Table, most: int | None = LONG, *, saved: bool = True) -> ShownTable:
    """A table as it is shown: interval ends in one cell, columns in their format, at most so many rows.

    Args:
        table: of a result.
        most: rows that are shown; None for all.
        saved: whether a run's folder holds the others.
    """
    pairs = _interval_columns(table.columns)
    left_out = {*pairs.values(), *(table.columns.index(name) for name in table.hidden)}
    columns = [(at, name) for at, name in enumerate(table.columns) if at not in left_out]
    formats = dict(table.formats)
    rows = tuple(
        tuple(
            interval_text(row[at], row[pairs[at]], form=formats.get(name))
            if at in pairs
            else _cell(row[at], formats.get(name))
            for at, name in columns
        )
        for row in (table.rows if most is None else table.rows[:most])
    )
    titles = tuple(_interval_title(name) if at in pairs else _title(name) for at, name in columns)
    left = len(table.rows) - len(rows)
    where = f"are in tables/{table.name}.parquet of the run's folder" if saved else "are not shown here"
    more = f"{left:,} more rows {where}." if left else ""
    note = " ".join(part for part in (table.note, more) if part)
    numeric = tuple(at for at, (column, _) in enumerate(columns) if _numeric(table, column))
    place = {name: at for at, (_, name) in enumerate(columns)}
    narrow = tuple(place[name] for name in table.narrow if name in place)
    return ShownTable(table.title, titles, rows, note, table.main, table.folded, numeric, narrow)


def _numeric(table: results.Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column] is not None]
    return bool(cells) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in cells)


def _interval_columns(columns: tuple[str, ...]) -> dict[int, int]:
    """Place of each lower end -> place of its upper end."""
    places = {name: at for at, name in enumerate(columns)}
    lows = {name: name[: -len("low")] + "high" for name in columns if name == "low" or name.endswith("_low")}
    return {places[low]: places[high] for low, high in lows.items() if high in places}


def _title(name: str) -> str:
    """A column's name in words; what is no name of Python's, such as ``gguf:q4_0``, stays as it is."""
    return name.replace("_", " ") if name.isidentifier() else name


def _interval_title(low: str) -> str:
    return f"{low.removesuffix('low').replace('_', ' ').strip()} interval".strip()


def _cell(value: results.Cell, form: str | None) -> str:
    if form and isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return format(value, form)
    return value_text(value)


def _explained(found: Document) -> Document:
    tables = [one for one in (found.first, *found.tables) if one is not None]
    texts: Iterable[str] = (
        found.title,
        found.verdict,
        *found.lead,
        *found.cautions,
        *(f"{one.name} {one.interval} {one.meaning}" for one in found.numbers),
        *(f"{one.title} {' '.join(one.columns)} {one.note}" for one in tables),
        *(str(cell) for one in tables for row in one.rows for cell in row if isinstance(cell, str)),
        *(f"{one.title} {one.caption} {one.x} {one.y}" for one in found.figures),
    )
    return replace(found, words=terms_in(texts))


def _short_name(facts: dict[str, Any]) -> str:
    """Name the model for a title: of a folder its last part, of anything else what the user typed."""
    return About(model=facts.get("model", {})).model_name


def _other(model: Any) -> str:
    """Name the other checkpoint of a comparison; "" where there is none."""
    if not model:
        return ""
    return f"{model['name']} ({model['weights']} weights, {model['family']}), sha256 {model['fingerprint']}"


def _identity(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of everything that identifies a run: model, data, settings, versions, time."""
    model, data = facts.get("model", {}), facts.get("data", {})
    settings, origins = facts.get("configuration", {}), facts.get("origins", {})
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    chosen = ", ".join(
        f"{key}={settings[key]} ({origins[key]})"
        for key in settings
        if origins.get(key, "default") != "default"
    )
    rows = [
        (
            "model",
            f"{model.get('name', '')} ({model.get('weights', '')} weights, {model.get('family', '')}, "
            f"{model.get('layers', '?')} layers)",
        ),
        ("weights, sha256", model.get("fingerprint", "")),
        ("the other model", _other(facts.get("other"))),
        ("tokenizer, sha256", model.get("tokenizer_fingerprint", "")),
        ("commit", model.get("commit") or ""),
        ("arithmetic", f"{model.get('dtype', '')} on {model.get('device', '')}"),
        ("data", f"{data.get('name', '')}: {data.get('description', '')}" if data else ""),
        ("data, sha256", data.get("fingerprint", "")),
        ("seed", str(settings.get("seed", ""))),
        ("settings given", chosen or "none: all defaults"),
        ("versions", versions),
        ("started", facts.get("started", "")),
        ("finished", facts.get("finished", "")),
    ]
    return [(name, str(value)) for name, value in rows if value]


def of_run(path: Path) -> Document:
    """What a report shows of a finished run.

    Raises:
        ArtifactError: the run is not there, not finished or damaged.
        ConfigError: it was made by an older version.
    """
    facts, result = runs.open_result(path)
    return document(result, {**facts, "path": path.as_posix()})
