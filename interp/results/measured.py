"""A result whose content is its findings: what the analyses that are run again at every precision return."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from interp.errors import counted
from interp.results.codec import UNSAVED
from interp.results.findings import Finding, named
from interp.results.result import Result
from interp.results.shapes import Figure, Number, Table

__all__ = ["FindingsResult"]

COLUMNS = ("finding", "value", "low", "high", "control", "unit", "n", "n_groups")
NAMED = 3
"""How many findings the verdict names."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FindingsResult(Result):
    """The findings of one analysis of one model, and tables of what else it measured.

    Attributes:
        analysis: its name, a key of ``interp.analyses.ANALYSES`` where it is one of these.
        found: the findings, in the order in which a reader wants them.
        asked: the question, for the title of a report.
        how: what was done, one paragraph each.
        conclusion: what the findings come to, in words, where the analysis has a rule for it; "" for none.
        more: tables beside that of the findings.
        judged: the verdict, where the analysis laid two models beside each other itself and says what it
            found; a comparison shows it as it is.
        state: what the same analysis of another model is measured against: tensors, probes, effects. It is
            not saved.
    """

    schema: ClassVar[str] = "interp.findings/1"
    analysis: str
    found: tuple[Finding, ...]
    asked: str = ""
    how: tuple[str, ...] = ()
    conclusion: str = ""
    more: tuple[Table, ...] = ()
    judged: str = ""
    state: Mapping[str, Any] = field(default_factory=dict, metadata=UNSAVED)

    def __post_init__(self) -> None:
        """Refuse two findings of one name."""
        named(self.found)

    def findings(self) -> tuple[Finding, ...]:
        """The findings."""
        return self.found

    def question(self) -> str:
        """The question that was asked."""
        return self.asked or f"What does {self.analysis} find?"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        return self.how

    def verdict(self) -> str:
        """What the analysis concludes; without that the first findings beside their controls."""
        if self.judged:
            return f"{self.judged[:1].upper()}{self.judged[1:]}."
        if self.conclusion:
            return self.conclusion
        said = [
            f"{one.name}: {one.value:.3g} {one.unit}".strip() + f" against {one.floor:.3g}"
            for one in self._headline[:NAMED]
        ]
        left = len(self.found) - len(said)
        return "; ".join(said) + (f"; and {counted(left, 'more finding')}." if left else ".")

    def cautions(self) -> tuple[str, ...]:
        """What a finding is worth."""
        return ("A finding is worth what it has beyond its control.",)

    def tables(self) -> tuple[Table, ...]:
        """The findings with their intervals over groups, then the other tables."""
        rows = [
            (one.name, one.value, *self._ends(one), one.floor, one.unit, len(one.values), one.n_groups)
            for one in self.found
        ]
        note = "Control: what the number would be with nothing there. Intervals: 95%, over groups of items."
        said = [Table("conclusion", "What it comes to", ("conclusion",), [(self.conclusion,)])]
        return (
            Table("findings", "Findings", COLUMNS, rows, note),
            *self.more,
            *said[: bool(self.conclusion)],
        )

    def numbers(self) -> tuple[Number, ...]:
        """The findings of no curve, and of each curve its last layer."""
        ends = ((one, *self._ends(one)) for one in self._headline)
        return tuple(
            Number(slug(one.name), one.value, low, high, one.unit, f"against {one.floor:.3g}", one.name)
            for one, low, high in ends
        )

    def figures(self) -> tuple[Figure, ...]:
        """The curves over layers, and the other findings unit by unit, each beside its control."""
        curves: dict[str, list[Finding]] = {}
        units: dict[str, list[Finding]] = {}
        for one in self.found:
            on_curve = one.curve and one.layer is not None
            (curves if on_curve else units).setdefault(one.curve if on_curve else one.unit, []).append(one)
        drawn = [self._beside(unit, part) for unit, part in units.items()]
        return (*drawn, *(self._curve(name, part) for name, part in curves.items()))

    @cached_property
    def _intervals(self) -> dict[str, tuple[float | None, float | None]]:
        found: dict[str, tuple[float | None, float | None]] = {}
        for one in self.found:
            estimate = one.estimate(self.seed)
            ends = None if estimate is None else (estimate.interval.low, estimate.interval.high)
            found[one.name] = ends if ends is not None and np.isfinite(ends).all() else (None, None)
        return found

    def _ends(self, finding: Finding) -> tuple[float | None, float | None]:
        return self._intervals[finding.name]

    @property
    def _headline(self) -> list[Finding]:
        last = {one.curve: one for one in self.found if one.curve}
        return [one for one in self.found if not one.curve or one is last[one.curve]]

    def _beside(self, unit: str, found: Sequence[Finding]) -> Figure:
        rows: list[tuple[str, float, float, float, int]] = []
        for one in found:
            rows += [
                (one.name, one.value, *self._drawn(one), 0),
                (f"{one.name}: control", one.floor, one.floor, one.floor, -1),
            ]
        columns = ("name", "value", "low", "high", "colour")
        return Figure(
            f"findings-{slug(unit)}" if unit else "findings",
            "intervals",
            dict(zip(columns, zip(*rows, strict=True), strict=True)),
            f"Findings in {unit}" if unit else "Findings",
            "Each above its control. 95% intervals over groups of items; none where it is no mean of items.",
            x=unit,
        )

    def _curve(self, name: str, found: Sequence[Finding]) -> Figure:
        rows = [(one.layer, "this model", one.value, *self._drawn(one)) for one in found]
        rows += [(one.layer, "control", one.floor, one.floor, one.floor) for one in found]
        columns = ("x", "series", "value", "low", "high")
        return Figure(
            f"curve-{slug(name)}",
            "curve",
            dict(zip(columns, zip(*rows, strict=True), strict=True)),
            f"{name}, layer by layer",
            f"{counted(len(found[0].values), 'item')} in {counted(found[0].n_groups, 'group')}. "
            "Bands: 95% intervals over groups.",
            x="layer",
            y=found[0].unit or "value",
        )

    def _drawn(self, one: Finding) -> tuple[float, float]:
        low, high = self._ends(one)
        return (one.value, one.value) if low is None or high is None else (low, high)


def slug(text: str) -> str:
    """A name of letters, digits and hyphens, as files and gates take it."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:60] or "x"
