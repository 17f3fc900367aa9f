"""One accuracy on the test split, with its interval and its difference to the probe's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probes.statistics import Estimate

__all__ = ["Score"]


@dataclass(frozen=True)
class Score:
    """Hold one accuracy on the test split.

    Attributes:
        layer: the layer it belongs to.
        name: "probe", a control, or "chance".
        value: accuracy, from 0 to 1.
        estimate: the same with its interval; None for chance, which is known.
        difference: accuracy of the probe less this one, paired by example; None for the probe and for chance.
        validation: accuracy on the validation split; None where there is none.
        draws: of a control that is drawn many times, the accuracy of each draw.
    """

    layer: int
    name: str
    value: float
    estimate: Estimate | None = None
    difference: Estimate | None = None
    validation: float | None = None
    draws: tuple[float, ...] = ()

    def row(self) -> dict[str, Any]:
        """Give the row of a table; numbers that do not exist are None."""
        estimate, difference = self.estimate, self.difference
        return {
            "layer": self.layer,
            "name": self.name,
            "value": self.value,
            "low": estimate.interval.low if estimate else None,
            "high": estimate.interval.high if estimate else None,
            "n": estimate.n if estimate else None,
            "n_groups": estimate.n_groups if estimate else None,
            "difference": difference.value if difference else None,
            "difference_low": difference.interval.low if difference else None,
            "difference_high": difference.interval.high if difference else None,
            "validation": self.validation,
            "method": estimate.interval.method if estimate else "exact",
            "note": estimate.note if estimate else "",
        }
