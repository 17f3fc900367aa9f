"""What a draw of orders adds to the uncertainty of means, beside that of the pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from probes.statistics import Estimate, MeanIntervals

__all__ = ["OrderDraw"]


@dataclass(frozen=True, eq=False)
class OrderDraw:
    """Orders that were drawn, each with its reverse: pairs of them are independent.

    Attributes:
        errors: the standard error of each mean over the pairs of orders.
        orders: how many were drawn.
    """

    errors: Float[np.ndarray, " mediator"]
    orders: int

    @classmethod
    def of(cls, bill: Mapping[str, Any], mediators: int) -> OrderDraw | None:
        """Read what a search left in its bill; None where nothing was drawn, no bound where it left none."""
        if "orders" not in bill:
            return None
        errors = np.array(bill.get("order_errors", [np.inf] * mediators), dtype=np.float64)
        return cls(errors, int(bill["orders"]))

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the errors."""
        return self.orders // 2 - 1

    @property
    def half(self) -> Float[np.ndarray, " mediator"]:
        """Half of the 95% interval over orders, by Student's t; infinite for one pair of orders."""
        if self.freedom < 1:
            return np.full(len(self.errors), np.inf)
        return float(stats.t.ppf(0.975, self.freedom)) * self.errors

    def part(self, at: int) -> OrderDraw:
        """That of one mediator."""
        return replace(self, errors=self.errors[[at]])

    def beside(self, other: OrderDraw, *, larger: Bool[np.ndarray, " mediator"]) -> OrderDraw:
        """Of the mean of two directions, as if they erred together: their orders are the same.

        Args:
            other: of the other direction.
            larger: where not the mean counts but the larger of the two.
        """
        both = np.array([self.errors, other.errors])
        return replace(self, errors=np.where(larger, both.max(axis=0), both.mean(axis=0)))

    def widened(self, found: MeanIntervals, limits: tuple[float, float] | None = None) -> MeanIntervals:
        """Intervals over pairs and orders, which err independently: the squares of the halves add up."""
        low, high = limits or (-np.inf, np.inf)
        return replace(
            found,
            low=np.maximum(found.value - np.hypot(found.value - found.low, self.half), low),
            high=np.minimum(found.value + np.hypot(found.high - found.value, self.half), high),
        )

    def wider(self, found: Estimate) -> Estimate:
        """The same of one estimate."""
        [half], ends = self.half, found.interval
        below, above = np.hypot([found.value - ends.low, ends.high - found.value], half)
        ends = replace(ends, low=float(found.value - below), high=float(found.value + above))
        return replace(found, interval=ends)

    def tested(
        self, p: Float[np.ndarray, " mediator"], means: Float[np.ndarray, " mediator"]
    ) -> Float[np.ndarray, " mediator"]:
        """The p of a mean of zero over pairs and orders.

        Each source alone says how many standard errors off zero a mean is; their variances add up.

        Args:
            p: over pairs alone.
            means: what was found.
        """
        if self.freedom < 1:
            return np.ones_like(p)
        away = np.divide(np.abs(means), self.errors, out=np.full_like(means, np.inf), where=self.errors > 0)
        by_order = 2 * stats.t.sf(np.where(means == 0, 0.0, away), self.freedom)
        with np.errstate(divide="ignore"):
            squares = sum(1 / stats.norm.isf(one / 2) ** 2 for one in (p, by_order))
            return 2 * stats.norm.sf(1 / np.sqrt(squares))
