"""Shapley values: the effect of a mediator averaged over all that may have been replaced before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from interp.errors import ConfigError, counted
from interp.mediation.experiment import Estimates, Experiment, Forecast
from interp.mediation.order_draws import OrderDraw
from interp.mediation.searches.search import Search

__all__ = ["Shapley"]

Numbers = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Shapley(Search):
    """Share out what all mediators do together: the mean gain of each over orders of putting them in.

    ``f(S)`` is the metric with the mediators of S as in the clean prompt and the other ones listed as in the
    corrupt one; whatever is not listed responds. The value of j is ``f(S + j) - f(S)``, averaged over orders,
    S being what comes before j (Shapley 1953; of units of a network Ghorbani and Zou 2020, 2002.09815). The
    values of all add up to ``f(all) - f(none)``, exactly and for any number of orders; that is the total
    effect where the mediators carry all of it. Orders come in pairs, each with its reverse (Mitchell et al.
    2022, 2104.12199). Where all sets are no more than the orders would run, all are run and none is drawn.

    Attributes:
        orders: how many are drawn, an even number.

    Raises:
        ConfigError: no or an odd number of orders.
    """

    orders: int = 20

    name = "shapley"
    description = "the mean effect over orders of replacing all: shares out what is done together"
    over = ("sites", "edges", "noised tokens")

    def __post_init__(self) -> None:
        """Refuse orders that make no pairs."""
        if self.orders < 2 or self.orders % 2:
            raise ConfigError(f"orders={self.orders} asked; give an even number from 2 on.")

    def forecast(self, experiment: Experiment) -> Forecast:
        """What the sets of all orders cost, each set once."""
        sets, _ = self._sets(experiment)
        each = experiment.forecast(lambda direction: _members(experiment, sets, direction))
        return replace(each, search=self.name)

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Run every set once, and average gains."""
        sets, orders = self._sets(experiment)
        values: dict[str, np.ndarray] = {}
        cost: dict[str, Any] = {}
        notes: list[str] = []
        for direction in experiment.directions:
            ran = experiment.replaced(_members(experiment, sets, direction), direction, progress=progress)
            measured = dict(zip(sets, ran.values, strict=True))
            n, facts = len(experiment.mediators), {"sets": len(sets)}
            if orders:
                values[direction], errors = _sampled(measured, orders, experiment)
                draw = OrderDraw(errors, len(orders))
                error = float(draw.half.max())
                facts |= {"orders": len(orders), "order_error": error, "order_errors": errors.tolist()}
                notes.append(
                    f"shapley, {direction}: {counted(len(orders), 'order')} drawn of {n}!; that moves mean "
                    f"values by up to {error:.2g} (95%, Student's t), which intervals and q hold"
                )
            else:
                values[direction] = _exact(measured, n)
            cost[direction] = dict(ran.cost) | facts
        return Estimates(values, experiment.clean, experiment.corrupt, cost, experiment.floor(), tuple(notes))

    def _sets(self, experiment: Experiment) -> tuple[list[Numbers], list[Numbers]]:
        """The sets to run, and the orders they are for; no orders where all sets are run."""
        n = len(experiment.mediators)
        if n < 30 and 2**n <= self.orders * max(1, n - 1) + 2:
            return [one for size in range(n + 1) for one in combinations(range(n), size)], []
        rng = np.random.default_rng(experiment.seed)
        drawn = [tuple(rng.permutation(n).tolist()) for _ in range(self.orders // 2)]
        orders = [way for one in drawn for way in (one, one[::-1])]
        sets = (tuple(sorted(order[:size])) for order in orders for size in range(n + 1))
        return list(dict.fromkeys(sets)), orders


def _members(experiment: Experiment, sets: Sequence[Numbers], direction: str) -> list[list[Any]]:
    """What is replaced so that a set is as in the clean prompt: itself, or by noising all others."""
    every = experiment.mediators
    if direction == "denoising":
        return [[every[at] for at in one] for one in sets]
    return [[one for at, one in enumerate(every) if at not in some] for some in map(frozenset, sets)]


def _exact(measured: dict[Numbers, np.ndarray], n: int) -> np.ndarray:
    """``[mediator pair]``, by the weight ``1 / (n C(n - 1, |S|))`` of each gain."""
    found = np.zeros((n, *measured[()].shape))
    for one, value in measured.items():
        for at in range(n):
            if at not in one:
                after = measured[tuple(sorted((*one, at)))]
                found[at] += (after - value) / (n * comb(n - 1, len(one)))
    return found


def _sampled(
    measured: dict[Numbers, np.ndarray], orders: Sequence[Numbers], experiment: Experiment
) -> tuple[np.ndarray, np.ndarray]:
    """``[mediator pair]`` over drawn orders, and the standard error of each mean over pairs of orders."""
    gains = np.zeros((len(orders), len(experiment.mediators), len(experiment.pairs)))
    for number, order in enumerate(orders):
        for size, at in enumerate(order):
            before, after = (measured[tuple(sorted(order[:end]))] for end in (size, size + 1))
            gains[number, at] = after - before
    halves = experiment.per_pair(gains).mean(axis=2).reshape(-1, 2, gains.shape[1]).mean(axis=1)
    none = np.full(gains.shape[1], np.inf)
    errors = halves.std(axis=0, ddof=1) / np.sqrt(len(halves)) if len(halves) > 1 else none
    return gains.mean(axis=0), errors
