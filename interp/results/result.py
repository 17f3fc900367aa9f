"""The base class of every result: a frozen value that names its numbers once.

A subclass says what was found: ``verdict``, ``tables``, ``numbers``, ``figures``, ``findings``. Printing,
notebooks, saving, loading, gates, comparisons and reports are written once and read only these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from interp.errors import ArtifactError, ConfigError
from interp.hub import HubCard, Shared, local
from interp.results import codec
from interp.results.files import jsonable, table_html, write_atomically
from interp.results.findings import Finding, named
from interp.results.shapes import About, Figure, Number, Table

if TYPE_CHECKING:
    import pandas

__all__ = ["Result", "load"]

LISTED, CARD_ROWS = 200, 20
"""Rows of each table that the JSON document holds; of the main one that a card on the Hub shows."""
Named = TypeVar("Named", Number, Table, Figure)
This = TypeVar("This", bound="Result")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Result(Shared):
    """Base of every result.

    Attributes:
        about: what it is of.
        seed: of draws and intervals.
        warnings: what a reader should know before believing it.
    """

    schema: ClassVar[str]
    about: About = field(default_factory=About)
    seed: int = 0
    warnings: tuple[str, ...] = ()

    # What a subclass says ---------------------------------------------------------------------------------

    def verdict(self) -> str:
        """What the numbers allow one to say, in plain words."""
        raise NotImplementedError

    def tables(self) -> tuple[Table, ...]:
        """The numbers; the first table is the main one."""
        raise NotImplementedError

    def numbers(self) -> tuple[Number, ...]:
        """The headline numbers, which a run can be gated on."""
        return ()

    def figures(self) -> tuple[Figure, ...]:
        """The figures, the best first."""
        return ()

    def findings(self) -> tuple[Finding, ...]:
        """The numbers item by item, for a comparison of two models."""
        return ()

    def question(self) -> str:
        """The question that was asked: the title of a report."""
        return type(self).__name__

    def lead(self) -> tuple[str, ...]:
        """What was done, one paragraph each."""
        return ()

    def cautions(self) -> tuple[str, ...]:
        """What the numbers do not show."""
        return ()

    # What is written once ---------------------------------------------------------------------------------

    def table(self, name: str | int | None = "") -> pandas.DataFrame:
        """One table as a pandas DataFrame, the main one where no name is given.

        Args:
            name: of the table; a number gives so many rows of the main one.

        Raises:
            ConfigError: there is none of that name.
        """
        if isinstance(name, int):
            return pick(self.tables(), "").frame().head(name)
        return pick(self.tables(), name or "").frame()

    def number(self, name: str) -> Number:
        """One headline number.

        Raises:
            ConfigError: there is none of that name.
        """
        return pick(self.numbers(), name)

    def figure(self, name: str = "") -> Figure:
        """One figure, the best where no name is given.

        Raises:
            ConfigError: there is none of that name.
        """
        return pick(self.figures(), name)

    def finding(self, name: str) -> Finding:
        """One finding.

        Raises:
            ConfigError: there is none of that name.
        """
        known = named(self.findings())
        if name not in known:
            raise ConfigError(f"no finding {name!r}; there are: {', '.join(list(known)[:12]) or 'none'}.")
        return known[name]

    def summary(self) -> dict[str, Any]:
        """Verdict, numbers and tables as JSON types: what ``--json`` prints and ``metrics.json`` holds.

        Of each table the first 200 rows; ``n_rows`` counts all. NaN and infinities are null.
        """
        content = {
            "schema": self.schema,
            "question": self.question(),
            "verdict": self.verdict(),
            "numbers": {one.name: dataclasses.asdict(one) for one in self.numbers()},
            "tables": {one.name: _plain(one) for one in self.tables()},
            "about": dataclasses.asdict(self.about),
            "seed": self.seed,
            "cautions": list(self.cautions()),
            "warnings": list(self.warnings),
        }
        return jsonable(content)[0]

    def save(
        self, folder: str | Path, *, text: bool = True, kept: Mapping[str, object] | None = None
    ) -> Path:
        """Write everything that :func:`load` needs: ``result.json``, with its arrays and probes beside it.

        Args:
            folder: where to.
            text: False to leave out the prompts: what holds them is written as its ``redacted()``.
            kept: probes of this result that are on disk already, by their path from the folder, such as
                ``../probes/resid_post.20``: they are named, not written again.

        Returns:
            The folder.

        Raises:
            ConfigError: when the place cannot be written.
            DataError: when a field holds what cannot be written.
        """
        return codec.write(self, Path(folder), text=text, kept=kept)

    @classmethod
    def load(cls: type[This], folder: str | Path) -> This:
        """Read what :meth:`save` wrote, of this class or one below it; see :func:`load`.

        Raises:
            ArtifactError: nothing is there, it is damaged, or another result.
        """
        found = load(folder)
        if not isinstance(found, cls):
            raise ArtifactError(
                f"'{folder}' holds a {type(found).__name__}, asked for a {cls.__name__}. Use "
                f"{type(found).__name__}.load, or interp.results.load for any result."
            )
        return found

    def hub_card(self) -> HubCard:
        """Verdict, headline numbers, the first rows of the main table and cautions, for the Hub."""
        table = self.tables()[0]
        shown = table.frame().drop(columns=list(table.hidden)).head(CARD_ROWS)
        rows = [[None if one != one else one for one in row] for row in shown.values.tolist()]
        numbers = [one for one in self.numbers() if not one.hidden]
        about = {name: value for name, value in self.about.model.items() if isinstance(value, str)}
        data = {f"data: {k}": v for k, v in self.about.data.items() if isinstance(v, str | int)}
        return HubCard(
            f"result/{self.schema}",
            self.question(),
            str(self.about.model.get("name", "")),
            says=self.verdict(),
            facts={"schema": self.schema, "seed": self.seed, **about, **data},
            scores={one.title: {"value": one.value, "low": one.low, "high": one.high} for one in numbers},
            controls=None,
            tables={table.title or table.name: (list(map(str, shown.columns)), rows)},
            failures=(*self.cautions(), *self.warnings),
            load='from interp import results\n\nresults.Result.from_pretrained("REPO").table()',
        )

    def export(self, folder: str | Path, *, to: str = "csv") -> tuple[Path, ...]:
        """Write every table, with all rows and columns, into a folder: ``NAME.csv`` or ``NAME.parquet``.

        Args:
            folder: made if missing; files of these names are replaced.
            to: ``csv`` or ``parquet``; in CSV what is missing is an empty cell.

        Returns:
            The files, the main table first.

        Raises:
            ConfigError: another kind, or the place cannot be written.
        """
        if to not in ("csv", "parquet"):
            raise ConfigError(f"to={to!r} asked; tables are written to csv or parquet.")
        made = []
        for table in self.tables():
            frame, place = table.frame(), Path(folder) / f"{table.name}.{to}"
            content = frame.to_csv(index=False).encode() if to == "csv" else frame.to_parquet(index=False)
            made.append(write_atomically(place, content))
        return tuple(made)

    def __repr__(self) -> str:
        """The verdict in one line."""
        return f"{type(self).__name__}({self.verdict()})"

    def _repr_html_(self) -> str:
        """The first rows of the main table, escaped, under the verdict."""
        table = self.tables()[0]
        shown = table.frame().drop(columns=list(table.hidden)).head(table.shown)
        return table_html(shown, caption=self.verdict())


def load(folder: str | Path) -> Result:
    """Read what ``Result.save`` wrote.

    The file names a row of ``SCHEMAS``; nothing that it names is imported or run.

    Args:
        folder: with ``result.json``, or ``hf://user/name[@revision]``.

    Raises:
        ArtifactError: nothing is there, it is damaged, or of a schema that this version does not know.
    """
    fetched = local(folder, "result/")
    found = codec.read(fetched.folder)
    assert isinstance(found, Result)
    if not fetched.source:
        return found
    return dataclasses.replace(found, about=dataclasses.replace(found.about, hub=fetched.source))


def pick(things: Sequence[Named], name: str) -> Named:
    """The thing of that name, the first where no name is given.

    Raises:
        ConfigError: there is none.
    """
    for one in things:
        if name in ("", one.name):
            return one
    known = ", ".join(one.name for one in things) or "none"
    raise ConfigError(f"there is no {name!r}; there are: {known}." if name else "there is nothing to show.")


def _plain(table: Table) -> dict[str, Any]:
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows[:LISTED]]
    return {"title": table.title, "note": table.note, "n_rows": len(table.rows), "rows": rows}
