"""The shapes in which a result speaks: numbers, tables, figures. Plain data, drawn and printed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from interp.errors import DataError, counted

if TYPE_CHECKING:
    import pandas

__all__ = ["FORMS", "About", "Cell", "Figure", "Form", "Number", "Table"]

Cell = str | float | int | bool | None
Form = Literal["curve", "intervals", "counts", "map", "graph", "scatter", "grid"]

FORMS: dict[str, tuple[str, ...]] = {
    "curve": ("x", "series", "value", "low", "high"),
    "intervals": ("name", "value", "low", "high"),
    "counts": ("actual", "predicted", "n", "share"),
    "map": ("x", "y", "value"),
    "graph": ("name", "x", "y", "to_x", "to_y", "value"),
    "scatter": ("name", "series", "x", "y"),
    "grid": ("x", "y", "column", "text", "value", "rank"),
}
"""Form of a figure -> the columns its data must have."""


@dataclass(frozen=True)
class About:
    """What a result is of, as JSON types.

    Attributes:
        model: name, weights, fingerprint, tokenizer_fingerprint, scheme.
        data: name, n, groups, fingerprint.
        versions: of the packages that computed it.
        hub: ``user/name@commit`` of the Hub where it was fetched there.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hub: str = ""

    @property
    def model_name(self) -> str:
        """The model for a title: of a folder its last part, with its precision where that is another."""
        name, scheme = str(self.model.get("name", "?")), str(self.model.get("scheme", "none"))
        name = PurePath(name).name if name.startswith((".", "/", "~")) else name
        return name if scheme == "none" else f"{name} at {scheme}"

    @property
    def words(self) -> str:
        """Data and model for a title, such as ``capitals, demo``."""
        return ", ".join(filter(None, (str(self.data.get("name", "")), self.model_name)))


@dataclass(frozen=True)
class Number:
    """A headline number.

    Attributes:
        name: in lower case with hyphens, unique in its result; ``--fail-under NAME=VALUE`` takes it.
        value: None where it is undetermined.
        low: lower end of its 95% interval, where it has one.
        high: upper end.
        unit: such as ``"nats"`` or ``"logits"``; "" for shares and counts.
        meaning: one clause for the reader.
        label: the name as a reader sees it; made from ``name`` where left out.
        decimals: digits behind the point.
        hidden: whether it is for gates and JSON alone, and a page leaves it out.
    """

    name: str
    value: float | int | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    meaning: str = ""
    label: str = ""
    decimals: int = 3
    hidden: bool = False

    @property
    def title(self) -> str:
        """The name as a reader sees it."""
        return self.label or self.name.replace("-", " ").capitalize()


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Columns ``low`` and ``high`` (or ``x_low`` and ``x_high``) are the ends of an interval, shown as one cell.

    Attributes:
        name: in lower case with hyphens, unique in its result.
        title: above the table.
        columns: their names.
        rows: one tuple of cells for each row.
        note: below the table.
        main: the row that stands out.
        folded: whether a page shows it only when it is opened.
        shown: how many rows a notebook shows; a page shows 30 or this many.
        on_terminal: how many a terminal shows.
        leads: whether a terminal shows it before the main table.
        formats: column -> format of its numbers, such as ``".0%"``; three decimals where left out.
        hidden: columns for work with the data, which a page and a terminal leave out.
        private: columns that hold prompts.
        page_only: columns that a terminal has no room for.
        narrow: columns that a terminal leaves out, one after the other, until the rest fits its width.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    note: str = ""
    main: int | None = None
    folded: bool = False
    shown: int = 10
    on_terminal: int = 30
    leads: bool = False
    formats: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    page_only: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, title: str, rows: Sequence[Mapping[str, Cell]], note: str = "") -> Table:
        """A table of dictionaries; a cell that one of them lacks is empty."""
        columns = tuple(dict.fromkeys(column for row in rows for column in row))
        return cls(name, title, columns, [tuple(row.get(column) for column in columns) for row in rows], note)

    def redacted(self) -> Table:
        """The same without prompts."""
        hidden = [column in self.private for column in self.columns]
        rows = [tuple("" if no else one for no, one in zip(hidden, row, strict=True)) for row in self.rows]
        return replace(self, rows=rows)

    def __post_init__(self) -> None:
        """Refuse rows that do not fill the columns.

        Raises:
            DataError: a row of another length, or two columns of one name.
        """
        if len(set(self.columns)) != len(self.columns):
            raise DataError(f"table {self.name!r}: two columns have one name: {', '.join(self.columns)}.")
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise DataError(
                f"table {self.name!r}: a row has {counted(len(wrong[0]), 'cell')} for {len(self.columns)} "
                "columns."
            )

    def frame(self) -> pandas.DataFrame:
        """The same as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(list(self.rows), columns=list(self.columns))


@dataclass(frozen=True)
class Figure:
    """The numbers of a figure and its words; ``interp.plot`` draws it.

    Attributes:
        name: in lower case with hyphens, unique in its result: the file's name.
        form: ``curve`` (value over x, one line per series, a band for the interval; a column ``colour`` gives
            indices of the palette, -1 for a faint band without a line), ``intervals`` (one dot with its
            interval per row; ``colour`` likewise, -1 for faint),
            ``counts`` (actual against predicted), ``map`` (value over x and y), ``graph`` (a node where
            ``to_x`` is missing, else an arrow), ``scatter`` (one mark per row, with the line x = y) or
            ``grid`` (a word over x and y, coloured by a share, framed where ``rank`` is 1; ``column`` names
            x; a column ``tip`` says what a cell tells the pointer).
        data: column -> its values; the columns of ``FORMS[form]`` and more.
        title: what is drawn.
        caption: what n and the interval are.
        x: label of the horizontal axis, with its unit.
        y: label of the vertical axis, with its unit.
        reference: a value to mark with a dashed line, such as chance.
        reference_name: what that is.
        limits: ends of the axis the values are on (of a map: of its scale); left to the data where not given.
        band: of intervals: ends of a shaded strip, such as what counts as no change.
        log: of a curve: whether the horizontal axis is logarithmic.
    """

    name: str
    form: Form
    data: Mapping[str, Sequence[Any]]
    title: str
    caption: str
    x: str = ""
    y: str = ""
    reference: float | None = None
    reference_name: str = "chance"
    limits: tuple[float, float] | None = None
    band: tuple[float, float] | None = None
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse data without the form's columns, or with columns of several lengths.

        Raises:
            DataError: naming the column.
        """
        missing = [column for column in FORMS[self.form] if column not in self.data]
        if missing:
            raise DataError(
                f"a figure of the form {self.form!r} needs the column {missing[0]!r}: {list(self.data)}."
            )
        lengths = {column: len(values) for column, values in self.data.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"figure {self.name!r}: its columns have several lengths: {lengths}.")

    def frame(self) -> pandas.DataFrame:
        """The numbers as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame({column: list(values) for column, values in self.data.items()})
