"""What a comparison of readers returns: what each reads at every layer, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from interp.analyses.concepts.known import Known
from interp.analyses.readers.table import READERS
from interp.results import Figure, Finding, Number, Result, Table
from interp.results.shapes import Cell, counted
from interp.tasks.protocols import PROTOCOLS
from probes.statistics import Estimate, paired_difference

__all__ = ["LENS", "ReaderCurves", "ReaderScore"]

LENS = "logit"
"""The reader that the others are compared with."""
AXIS = "top-1 on the test prompts"


@dataclass(frozen=True)
class ReaderScore:
    """What one reader reads at one layer.

    Attributes:
        reader: a key of ``READERS``.
        layer: None for a reader that looks at no layer.
        top1: the share of test prompts read right.
        over: that less the logit lens's at the same layer; None of the lens itself, and without a layer.
        right: prompt by prompt.
        validation: the share of validation prompts read right, by which a reader's layer is chosen.
        ahead: that less the logit lens's at the same layer.
    """

    reader: str
    layer: int | None
    top1: Estimate
    over: Estimate | None
    right: tuple[bool, ...]
    validation: float
    ahead: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ReaderCurves(Result):
    """What every reader reads at every layer of a model.

    Attributes:
        protocol: a key of ``PROTOCOLS``.
        scores: layer by layer, the readers in their order.
        facts: of each test prompt: what intervals are over.
        known: which relations the model answers right, where it was asked first.
    """

    schema: ClassVar[str] = "interp.readers/1"
    protocol: str
    scores: tuple[ReaderScore, ...]
    facts: tuple[str, ...]
    known: Known | None = None

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """The readers, in their order."""
        return tuple(dict.fromkeys(one.reader for one in self.scores))

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers that were read."""
        return tuple(dict.fromkeys(one.layer for one in self.scores if one.layer is not None))

    def score(self, reader: str, layer: int | None = None) -> ReaderScore:
        """What a reader reads at a layer; where none is given, at its best one on validation prompts.

        Raises:
            KeyError: it was not measured there.
        """
        found = [one for one in self.scores if one.reader == reader and layer in (None, one.layer)]
        if not found:
            raise KeyError(f"{reader} at layer {layer}")
        return max(found, key=lambda one: one.validation)

    def question(self) -> str:
        """What is asked."""
        return f"Which reader reads which layer? ({self.about.words})"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        n = f"{counted(len(self.facts), 'test prompt')} about {counted(len(set(self.facts)), 'fact')}"
        return (
            f"{n} of the protocol '{self.protocol}' ({PROTOCOLS[self.protocol].question}) were read at "
            f"{counted(len(self.layers), 'layer')} of {self.about.model_name} by {len(self.readers)} "
            "readers, all on the same states. An answer is right where it is first among all concepts.",
            *(() if self.known is None else (self.known.sentence(),)),
        )

    def verdict(self) -> str:
        """The best reader, what the logit lens reads there, and what the controls read at most."""
        own = [one for one in self.scores if READERS[one.reader].kind != "control" and one.layer is not None]
        if not own:
            return "Only controls were measured."
        best = max(own, key=lambda one: one.validation)
        said = f"Read best by {best.reader} at layer {best.layer} ({best.top1})."
        most = max(own, key=lambda one: one.ahead)
        if most.over is not None and most.over.interval.low > 0:
            where = f"{most.reader} at layer {most.layer} ({most.top1}, {most.over} more)"
            said += f" Furthest ahead of the logit lens: {where}."
        else:
            said += " No reader is shown to be ahead of the logit lens."
        return said + self._over_controls(best)

    def _over_controls(self, best: ReaderScore) -> str:
        """What the best reader has over the control that reads most; "" without controls."""
        controls = [one for one in self.scores if READERS[one.reader].kind == "control"]
        if not controls:
            return ""
        hard = max(controls, key=lambda one: one.top1.value)
        rights = [np.array(one.right, dtype=np.int64) for one in (best, hard)]
        more = paired_difference(*rights, groups=list(self.facts), seed=self.seed, support="share")
        if more.interval.low > 0:
            return f" Controls read at most {hard.top1.value:.2f} ({hard.reader}; {more} less)."
        return (
            f" It is not shown to read more than {hard.reader}, a control ({hard.top1}; difference {more})."
        )

    def cautions(self) -> tuple[str, ...]:
        """What the table does not show."""
        return (
            "That an answer can be read at a layer does not show that the model uses what is read there.",
            "The reader and the layers that are named were chosen on validation prompts.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Each reader at its best layer."""
        return tuple(self._number(self.score(name)) for name in self.readers)

    def _number(self, best: ReaderScore) -> Number:
        place = "without a layer" if best.layer is None else f"at layer {best.layer}, its best on validation"
        ends = best.top1.interval
        meaning = f"{place}: {READERS[best.reader].description}"
        return Number(best.reader, best.top1.value, ends.low, ends.high, "", meaning)

    def tables(self) -> tuple[Table, ...]:
        """Readers by layer; what each has over the logit lens; what the model knows."""
        known = () if self.known is None else (self.known.table(),)
        return (self._table("readers", "Concepts read right (top-1), by layer", "top1"), self._over(), *known)

    def _table(self, name: str, title: str, what: str) -> Table:
        readers = [one for one in self.readers if what == "top1" or (one != LENS and READERS[one].layered)]
        columns = ["layer", *(f"{one}{end}" for one in readers for end in ("", "_low", "_high"))]
        cells: dict[tuple[int | None, str], Estimate | None] = {
            (one.layer, one.reader): getattr(one, what) for one in self.scores
        }
        rows: list[tuple[Cell, ...]] = []
        for layer in self.layers:
            row: list[Cell] = [layer]
            for reader in readers:
                found = cells.get((layer if READERS[reader].layered else None, reader))
                ends = (None, None) if found is None else (found.interval.low, found.interval.high)
                row += [None if found is None else found.value, *ends]
            rows.append(tuple(row))
        note = (
            " ".join(f"{one}: {READERS[one].description}." for one in readers)
            + " Intervals: 95%, over facts."
        )
        ends = tuple(one for one in columns if one.endswith(("_low", "_high")))
        return Table(name, title, tuple(columns), rows, note, shown=40, page_only=ends)

    def _over(self) -> Table:
        return self._table("over-lens", "What each reads over the logit lens at the same layer", "over")

    def figures(self) -> tuple[Figure, ...]:
        """The readers over layers."""
        found = [one for one in self.scores if one.layer is not None]
        if len(self.layers) < 2:
            return (_bars(self.scores),)
        data: dict[str, list[Any]] = {
            "x": [one.layer for one in found],
            "series": [one.reader for one in found],
            "value": [one.top1.value for one in found],
            "low": [one.top1.interval.low for one in found],
            "high": [one.top1.interval.high for one in found],
        }
        title, caption = "Concepts read right, by reader and layer", "Intervals: 95%, over facts."
        return (Figure("readers", "curve", data, title, caption, x="layer", y=AXIS, limits=(0.0, 1.02)),)

    def findings(self) -> tuple[Finding, ...]:
        """What each reader with a layer reads at its best one, prompt by prompt."""
        found: list[Finding] = []
        for name in self.readers:
            best = self.score(name)
            if best.layer is None:
                continue
            of = f"of {counted(len(self.layers), 'layer')} the best on validation"
            about = f"top-1 on test at layer {best.layer}, {of}"
            values = np.array(best.right, dtype=np.float64)
            found.append(
                Finding(
                    f"read by {name}",
                    values,
                    self.facts,
                    unit="share",
                    layer=best.layer,
                    about=about,
                    direction=1,
                )
            )
        return tuple(found)


def _bars(scores: Sequence[ReaderScore]) -> Figure:
    data: dict[str, list[Any]] = {
        "name": [one.reader for one in scores],
        "value": [one.top1.value for one in scores],
        "low": [one.top1.interval.low for one in scores],
        "high": [one.top1.interval.high for one in scores],
        "colour": [*range(len(scores))],
    }
    return Figure("readers", "intervals", data, "Concepts read right", "Intervals: 95%, over facts.", x=AXIS)
