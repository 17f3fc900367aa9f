"""The verdict of the recipe: shown, or not shown, and by what it is not told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from interp.analyses.awareness.folds import LeftOut
from interp.analyses.steering import SteeringResult
from interp.errors import counted
from interp.results import Figure, Number, Result, Table
from probes.statistics import Estimate, bootstrap

__all__ = ["AwarenessResult"]

COMPARED_ONLY = ("the model asked",)
"""What is shown beside the probe, and need not be beaten: it reads the model too."""
ENOUGH = 6
"""Folds that all agree exclude chance from so many on (:mod:`probes.statistics`, constant over groups)."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AwarenessResult(Result):
    """What a probe reads of sources that were left out, beside what reads them otherwise.

    Attributes:
        alarm: the label that is looked for.
        kind: of probe.
        positions: of the tokens whose mean state is read.
        layers: that were offered.
        found: per fold what the probe reads.
        rivals: by name, the same of everything beside it; layer -1 where it reads none.
        steering: what adding the direction does while the model is asked; None where that was not done.
    """

    schema: ClassVar[str] = "interp.awareness/1"
    alarm: str
    kind: str
    positions: str
    layers: tuple[int, ...]
    found: tuple[LeftOut, ...]
    rivals: Mapping[str, tuple[LeftOut, ...]]
    steering: SteeringResult | None = None

    def mean(self, name: str = "") -> Estimate:
        """The mean AUROC over folds, of the probe or a rival, with its interval over folds."""
        rows = self.rivals[name] if name else self.found
        # over chance, so that folds that all agree are held against as many below it
        over = bootstrap([one.area - 0.5 for one in rows], support="real", limits=(-0.5, 0.5))
        ends = replace(over.interval, low=over.interval.low + 0.5, high=over.interval.high + 0.5)
        return replace(over, value=over.value + 0.5, interval=ends)

    def over(self, name: str) -> Estimate:
        """The AUROC of the probe minus that of a rival, fold by fold."""
        pairs = zip(self.found, self.rivals[name], strict=True)
        return bootstrap([own.area - other.area for own, other in pairs], support="real", limits=(-1.0, 1.0))

    @property
    def unbeaten(self) -> tuple[str, ...]:
        """The rivals that the probe does not clearly beat, the strongest first."""
        names = [name for name in self.rivals if name not in COMPARED_ONLY]
        found = [name for name in names if not self.over(name).interval.low > 0]
        return tuple(sorted(found, key=lambda name: -self.mean(name).value))

    @property
    def shown(self) -> bool:
        """Whether the probe is above chance on sources left out, and above everything it must beat."""
        return self.mean().interval.low > 0.5 and not self.unbeaten

    def question(self) -> str:
        """The question that was asked."""
        return f"Do states of {self.about.model_name} tell {self.alarm!r} apart on sources it was not shown?"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        data = self.about.data
        chosen = ", ".join(f"{layer} ({n})" for layer, n in Counter(o.layer for o in self.found).items())
        return (
            f"{counted(data.get('n', 0), 'prompt')} from {counted(data.get('sources', 0), 'source')}. "
            f"{counted(len(self.found), 'time')} sources were left out; a {self.kind} probe of the mean "
            f"state ({self.positions}) was fitted on the others, its layer chosen on those alone, and read "
            "the ones left out. Layers chosen (times): "
            f"{chosen}.",
        )

    def verdict(self) -> str:
        """Shown or not, and why; then steering."""
        own = self.mean()
        known = ", ".join(f"{name} {self.mean(name).value:.2f}" for name in self.rivals)
        place = f"AUROC {own.value:.2f} [{own.interval.low:.2f}, {own.interval.high:.2f}] on sources left out"
        if self.shown:
            told = f"Shown: {place}, above every control ({known})."
        elif not own.interval.low > 0.5:
            few = len(self.found) < ENOUGH
            more = f"; fewer than {ENOUGH} folds cannot show it, give more sources" if few else ""
            told = f"Not shown: {place} is not above chance (beside it: {known}){more}."
        else:
            told = f"Not shown: {place}, but {' and '.join(self.unbeaten[:3])} read as much ({known})."
        return told if self.steering is None else f"{told} {self.steering.verdict()}"

    def cautions(self) -> tuple[str, ...]:
        """What it does not show."""
        return (
            "Intervals are over folds; folds share training sources, so that they are somewhat too narrow.",
            "Telling the sources apart is not the same as knowing that one is evaluated, and not shown to be "
            "used by the model; other sources may be told apart worse.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The mean AUROC of everything, and the difference to what must be beaten."""
        own = self.mean()
        n = counted(len(self.found), "fold")
        found = [Number("auroc", own.value, own.interval.low, own.interval.high, "", f"mean of {n}")]
        for name in self.rivals:
            slug, one = name.replace(" ", "-"), self.over(name)
            meaning = f"AUROC minus that of {name}, {self.mean(name).value:.3f}"
            found.append(Number(f"over-{slug}", one.value, one.interval.low, one.interval.high, "", meaning))
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """Everything on average, then fold by fold, then steering."""
        rows: list[tuple[str | float | None, ...]] = []
        for name in ("", *self.rivals):
            one, other = self.mean(name), self.over(name) if name else None
            ends = (None, None, None)
            if other is not None:
                ends = (other.value, other.interval.low, other.interval.high)
            rows.append((name or "probe", one.value, one.interval.low, one.interval.high, *ends))
        columns = ("reader", "auroc", "low", "high", "difference", "difference_low", "difference_high")
        note = "Difference: the probe minus this one, fold by fold. 95% intervals over folds."
        folds = [
            (
                own.sources,
                own.layer,
                own.area,
                own.low,
                own.high,
                *(rival[at].area for rival in self.rivals.values()),
            )
            for at, own in enumerate(self.found)
        ]
        found = [
            Table(
                "readers", "On sources left out", columns, rows, note, main=0, formats={"difference": "+.3f"}
            ),
            Table(
                "folds",
                "Fold by fold",
                ("left out", "layer", "auroc", "low", "high", *self.rivals),
                folds,
                "The layer was chosen on the sources that stayed.",
            ),
        ]
        return (*found, *(() if self.steering is None else self.steering.tables()[:1]))

    def figures(self) -> tuple[Figure, ...]:
        """Every reader's mean."""
        names: Sequence[str] = ("", *self.rivals)
        means = [self.mean(name) for name in names]
        data = {
            "name": [name or "probe" for name in names],
            "value": [one.value for one in means],
            "low": [float(np.nan_to_num(one.interval.low)) for one in means],
            "high": [one.interval.high for one in means],
        }
        caption = f"Mean of {counted(len(self.found), 'fold')}; intervals over folds. Dashed: chance."
        title = "Read on sources left out"
        return (
            Figure("readers", "intervals", data, title, caption, "AUROC", reference=0.5, limits=(0.0, 1.02)),
        )
