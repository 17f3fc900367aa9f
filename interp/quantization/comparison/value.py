"""What a comparison returns: finding by finding, scheme by scheme, with the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import results
from interp.errors import ArtifactError, ConfigError
from interp.quantization.comparison.cells import Cell
from interp.quantization.comparison.verdicts import FLOORS, SHARE, VERDICTS, Judgement

if TYPE_CHECKING:
    import pandas

__all__ = ["SCHEMA", "Comparison"]

SCHEMA = "interp.comparison/2"
COLUMNS = (
    "verdict",
    "reference",
    "value",
    "difference",
    "low",
    "high",
    "reference_control",
    "control",
    "reference_excess",
    "excess",
    "change",
    "change_low",
    "change_high",
    "noise",
    "delta",
    "shown",
    "unit",
    "n",
    "n_groups",
    "note",
)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Hold one or several analyses of a model against the same analyses of others.

    Attributes:
        model: name, weights, fingerprint and arithmetic of the reference.
        other: the same of the other checkpoint; None where only precisions of one are compared.
        cells: one per analysis and scheme.
        references: analysis -> what it returned for the reference, as a dictionary.
        noise: analysis -> which noise floors were measured, in words.
        mode: ``dense`` or ``packed``.
        seed: of draws and intervals.
        seconds: how long everything took.
        warnings: what a reader should know.
        results: (analysis, scheme) -> the live result, and (analysis, "") -> the reference's; empty for a
            comparison that was read from disk.
    """

    model: Mapping[str, Any]
    other: Mapping[str, Any] | None
    cells: tuple[Cell, ...]
    references: Mapping[str, Mapping[str, Any]]
    noise: Mapping[str, str]
    mode: str
    seed: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    results: Mapping[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def analyses(self) -> tuple[str, ...]:
        """Give the names of the analyses."""
        return tuple(dict.fromkeys(cell.analysis for cell in self.cells))

    @property
    def schemes(self) -> tuple[str, ...]:
        """Give the schemes, or the name of the other checkpoint."""
        return tuple(dict.fromkeys(cell.scheme for cell in self.cells))

    def cell(self, analysis: str, scheme: str) -> Cell:
        """Give one analysis at one scheme.

        Raises:
            ConfigError: it was not run.
        """
        for one in self.cells:
            if (one.analysis, one.scheme) == (analysis, scheme):
                return one
        known = ", ".join(f"{one.analysis} at {one.scheme}" for one in self.cells[:12])
        raise ConfigError(f"no {analysis!r} at {scheme!r} in this comparison; there are: {known}.")

    def judgement(self, scheme: str, finding: str, analysis: str = "") -> Judgement:
        """Give the verdict on one finding at one scheme.

        Args:
            scheme: which.
            finding: its name.
            analysis: of which analysis; needed where two have a finding of that name.

        Raises:
            ConfigError: there is none, or there are several.
        """
        found = [
            one
            for cell in self.cells
            if cell.scheme == scheme and analysis in ("", cell.analysis)
            for one in cell.judgements
            if one.finding == finding
        ]
        if len(found) != 1:
            many = "several analyses have it: say which" if found else "no analysis has it"
            names = dict.fromkeys(one.finding for cell in self.cells for one in cell.judgements)
            raise ConfigError(f"finding {finding!r} at {scheme!r}: {many}; there are: {', '.join(names)}.")
        return found[0]

    def table(self) -> pandas.DataFrame:
        """Give one row per analysis, finding and scheme.

        Columns: analysis, finding, scheme, verdict, reference, value, difference (value less reference, over
        the same items), low and high (its 95% interval over groups), reference_control and control (what each
        model has to beat), reference_excess and excess (of each model over its control), change (of the
        excess: what the verdict is on), change_low and change_high, noise (what another batch layout or bf16
        changes in the reference), delta (the smallest change that would matter), shown (whether the reference
        itself shows the finding), unit, n, n_groups, note.
        """
        import pandas

        columns = ["analysis", "finding", "scheme", *COLUMNS]
        return pandas.DataFrame([self._row(cell, one) for cell, one in self._ordered()], columns=columns)

    def _ordered(self) -> list[tuple[Cell, Judgement]]:
        """List verdicts finding by finding, so that the schemes of one stand together."""
        place = {scheme: at for at, scheme in enumerate(self.schemes)}
        found: list[tuple[Cell, Judgement]] = []
        for analysis in self.analyses:
            pairs = [
                (cell, one) for cell in self.cells if cell.analysis == analysis for one in cell.judgements
            ]
            order = {name: at for at, name in enumerate(dict.fromkeys(one.finding for _, one in pairs))}
            found += sorted(pairs, key=lambda pair: (order[pair[1].finding], place[pair[0].scheme]))
        return found

    @staticmethod
    def _row(cell: Cell, one: Judgement) -> dict[str, Any]:
        judged = {name: getattr(one, name) for name in COLUMNS}
        return {"analysis": cell.analysis, "finding": one.finding, "scheme": cell.scheme, **judged}

    def summary(self) -> pandas.DataFrame:
        """Count verdicts per analysis and scheme, over the findings that the reference shows.

        Columns: analysis, scheme, one per verdict, not shown (findings that the reference itself does not
        show, so that there is nothing to survive), refused (why the analysis was not run, or "").
        """
        import pandas

        rows: list[dict[str, Any]] = []
        for cell in self.cells:
            shown = [one.verdict for one in cell.judgements if one.shown]
            counts = {name: shown.count(name) for name in VERDICTS}
            rows.append(
                {"analysis": cell.analysis, "scheme": cell.scheme, **counts}
                | {"not shown": len(cell.judgements) - len(shown), "refused": cell.refused}
            )
        return pandas.DataFrame(rows)

    def diff(self, reference: Comparison) -> pandas.DataFrame:
        """Give the change of every number from another comparison of the same analyses and schemes."""
        return results.difference(self.table(), reference.table(), ["analysis", "finding", "scheme"])

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the live results as JSON types, for :meth:`from_dict`."""
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "model": dict(self.model),
                "other": None if self.other is None else dict(self.other),
                "mode": self.mode,
                "seed": self.seed,
                "rule": {"floors": FLOORS, "share": SHARE, "verdicts": VERDICTS},
                "noise": dict(self.noise),
                "summary": self.summary().to_dict("records"),
                "references": dict(self.references),
                "cells": [cell.to_dict() for cell in self.cells],
                "seconds": self.seconds,
                "warnings": list(self.warnings),
            }
        )
        return plain

    def save(self, path: str | Path) -> tuple[str, ...]:
        """Write everything but the live results as one JSON file, for :meth:`load`."""
        return results.write_json(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: the file is missing, damaged, or of something else.
        """
        content = results.read_json(path)
        if content.get("schema") != SCHEMA:
            raise ArtifactError(f"{path} holds no comparison (schema {content.get('schema')!r}).")
        return cls.from_dict(content)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Comparison:
        """Read what :meth:`to_dict` gave."""
        return cls(
            model=content["model"],
            other=content["other"],
            cells=tuple(Cell.from_dict(cell) for cell in content["cells"]),
            references=content["references"],
            noise=content["noise"],
            mode=content["mode"],
            seed=content["seed"],
            seconds=content["seconds"],
            warnings=tuple(content["warnings"]),
        )

    def _repr_html_(self) -> str:
        """Give the verdicts as an escaped table for notebooks."""
        return results.table_html(self.table(), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what survives."""
        table = self.summary()
        counts = {name: sum(map(int, table[name])) for name in VERDICTS} if len(table) else {}
        refused = "; ".join(dict.fromkeys(f"{c.analysis}: {c.refused}" for c in self.cells if c.refused))
        plain = [c.analysis for c in self.cells if c.changes]
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no verdicts"
        said += f", {len(dict.fromkeys(plain))} compared without verdicts" if plain else ""
        said += f"; refused: {refused}" if refused else ""
        against = f" against {self.other['name']}" if self.other is not None else ""
        return f"Comparison({self.model['name']}{against} at {', '.join(self.schemes)}: {said})"
