"""What a monitor is worth: its rates at the threshold, beside what needs no model, and on other sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from interp.analyses.monitoring.monitor import Monitor
from interp.errors import counted
from interp.results import Figure, Number, Result, Table

__all__ = ["Cell", "MonitorResult", "Rate"]


@dataclass(frozen=True)
class Rate:
    """A share of groups of messages, with its exact interval (Clopper and Pearson 1934).

    Attributes:
        name: "false-positive-rate" or "recall".
        share: of groups with an alarm; a group is a conversation, or what the data calls one.
        low: lower end of its 95% interval.
        high: upper end.
        alarms: how many.
        n: messages.
    """

    name: str
    share: float
    low: float
    high: float
    alarms: int
    n: int


@dataclass(frozen=True)
class Cell:
    """An area under the curve of hits over false alarms.

    Attributes:
        taught: the source of the training messages; "" where that is the data's own training part.
        tested: the source, or what reads.
        area: the AUROC.
        low: lower end of its 95% interval over groups.
        high: upper end.
        n: messages tested.
    """

    taught: str
    tested: str
    area: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MonitorResult(Result):
    """A fitted monitor and what it did on messages that it never saw.

    Attributes:
        monitor: it; saved beside the result, by ``monitor.save``.
        rates: of the test messages at the threshold.
        areas: AUROC of the monitor and of what needs no model, on test.
        reliability: per bin its mean probability, the share that is positive, and the count.
        error: expected calibration error.
        transfer: AUROC from source to source; () where there are not two.
        layers: site and AUROC on folds of the training groups, where there were several.
        sizes: messages for training, threshold and test.
    """

    schema: ClassVar[str] = "interp.monitor/1"
    monitor: Monitor
    rates: tuple[Rate, ...]
    areas: tuple[Cell, ...]
    reliability: tuple[tuple[float, float, int], ...]
    error: float
    transfer: tuple[Cell, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()
    sizes: tuple[int, ...] = ()

    def question(self) -> str:
        """The question that was asked."""
        return f"Does a monitor of {self.about.model_name} tell {self.monitor.alarm!r} from the rest?"

    def lead(self) -> tuple[str, ...]:
        """What was done."""
        own, train = self.monitor, self.sizes
        return (
            f"{counted(sum(train), 'message')} of {self.about.data.get('name')}: a probe of {own.site} at "
            f"{own.positions!r}, token scores pooled by {own.probe.pooling}, was trained on {train[0]:,}; "
            f"its threshold and its calibration were set on {train[1]:,} others, and {train[2]:,} others are "
            "reported. Groups are never divided.",
            f"The threshold stands on {counted(own.threshold.n, 'independent negative')}: {own.negatives}.",
        )

    def verdict(self) -> str:
        """The rates at the threshold, and whether words alone do as well."""
        own, (false, hits) = self.monitor.threshold, self.rates
        best = max(self.areas[1:], key=lambda one: one.area)
        area = self.areas[0]
        if area.low <= 0.5:
            told = f"Not shown to tell them apart: AUROC {_ends(area)}."
        elif area.low <= best.area:
            told = f"Told apart (AUROC {_ends(area)}), but {best.tested} does as well ({_ends(best)})."
        else:
            rival = f"{best.tested}, {_ends(best)}"
            told = f"Told apart: AUROC {_ends(area)}, above the best without the model ({rival})."
        return (
            f"{told} At the threshold for {own.rate:.2%} false alarms the rate on data like these negatives "
            f"is between {own.low:.2%} and {own.high:.2%} (95%); on test {false.alarms:,} of {false.n:,} "
            f"negatives and {hits.alarms:,} of {hits.n:,} of {self.monitor.alarm!r} raise an alarm"
            f"{self._elsewhere()}."
        )

    def _elsewhere(self) -> str:
        found = [one for one in self.transfer if one.taught == "all others"]
        if not found:
            return ""
        worst = min(found, key=lambda one: one.area)
        return f"; on sources left out of training the AUROC is {worst.area:.2f} at worst ({worst.tested})"

    def cautions(self) -> tuple[str, ...]:
        """What the numbers do not show."""
        return (
            "The rates hold for data like the named negatives; for other data see the transfer table, and "
            "set the threshold again.",
            "That a label can be read from states does not mean that the model uses it.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Rates, areas and the calibration error."""
        own = self.monitor.threshold
        found = [
            Number(one.name, one.share, one.low, one.high, "", f"{one.alarms:,} of {one.n:,} test groups")
            for one in self.rates
        ]
        area = self.areas[0]
        found.append(Number("auroc", area.area, area.low, area.high, "", "on test, over groups"))
        meaning = f"of negatives to come; {own.rate:g} was asked"
        found.append(Number("expected-false-positive-rate", own.expected, own.low, own.high, "", meaning))
        found.append(Number("threshold", own.value, unit="logits", meaning="a higher score raises an alarm"))
        found.append(Number("calibration-error", self.error, meaning="of the probabilities on test"))
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """Areas, rates, sources, calibration, layers."""
        rates = [(one.name, one.share, one.low, one.high, one.alarms, one.n) for one in self.rates]
        areas = [(one.tested, one.area, one.low, one.high, one.n) for one in self.areas]
        found = [
            Table(
                "areas",
                "AUROC on test, beside what needs no model",
                ("reader", "auroc", "low", "high", "messages"),
                areas,
                "95% intervals over groups.",
                main=0,
            ),
            Table(
                "rates",
                "Alarms on test",
                ("rate", "share", "low", "high", "alarms", "groups"),
                rates,
                "Exact intervals (Clopper and Pearson) over groups; each counts once, by its highest score.",
            ),
        ]
        if self.transfer:
            rows = [(one.taught, one.tested, one.area, one.low, one.high, one.n) for one in self.transfer]
            columns = ("trained on", "tested on", "auroc", "low", "high", "messages")
            note = "A source is tested only by probes that have not seen it."
            found.append(Table("transfer", "From source to source", columns, rows, note))
        bins = [(sure, share, n) for sure, share, n in self.reliability]
        columns = ("mean probability", "share positive", "messages")
        note = f"Expected calibration error {self.error:.3f}; probabilities were set on other messages."
        found.append(Table("reliability", "Calibration on test", columns, bins, note, folded=True))
        if self.layers:
            note = "The layer was chosen by this, on folds of the training groups."
            found.append(Table("layers", "Layers", ("site", "auroc"), list(self.layers), note, folded=True))
        return tuple(found)

    def figures(self) -> tuple[Figure, ...]:
        """The areas, and those of sources that were left out."""
        shown = [*self.areas, *(one for one in self.transfer if one.taught == "all others")]
        data = {
            "name": [f"{one.taught}: {one.tested}" if one.taught else one.tested for one in shown],
            "value": [one.area for one in shown],
            "low": [one.low for one in shown],
            "high": [one.high for one in shown],
        }
        caption = "95% intervals over groups. Dashed: chance."
        title = f"Telling {self.monitor.alarm!r} apart"
        return (
            Figure("areas", "intervals", data, title, caption, "AUROC", reference=0.5, limits=(0.0, 1.02)),
        )


def _ends(one: Cell) -> str:
    return f"{one.area:.2f} [{one.low:.2f}, {one.high:.2f}]"
