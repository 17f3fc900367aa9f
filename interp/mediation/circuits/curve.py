"""Faithfulness by the size of a circuit, and the areas that MIB ranks methods by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError
from interp.mediation.circuits.runs import NODES, Circuit, Members, members_of, refuse_no_effect, run_all
from interp.mediation.mediators import Mediator
from interp.models.accept import ModelLike, as_model
from interp.pairs import PairSet

__all__ = ["COMPAT", "FRACTIONS", "Curve", "curve"]

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
COMPAT: dict[str, str] = {
    "": "sizes 0, 1, 2, 4, ... and all; the areas are over size / total",
    "mib": "the sizes, the pruning and the axis of the MIB benchmark, which starts at 0.001",
}


@dataclass(frozen=True, eq=False, repr=False)
class Curve:
    """Hold faithfulness by circuit size, nodes added in the order of a ranking.

    Attributes:
        sizes: numbers of nodes, ascending.
        faithfulness: one per size.
        total: number of nodes in all.
        order: the ranking.
    """

    sizes: tuple[int, ...]
    faithfulness: Float[np.ndarray, " size"]
    total: int
    order: Members

    @property
    def cpr(self) -> float:
        """Give the area under faithfulness over the fraction of nodes (MIB's CPR; higher is better)."""
        return float(np.trapezoid(self.faithfulness, np.array(self.sizes) / self.total))

    @property
    def cmd(self) -> float:
        """Give the area between faithfulness and 1 (MIB's CMD; 0 is best)."""
        return float(np.trapezoid(np.abs(1 - self.faithfulness), np.array(self.sizes) / self.total))

    def at(self, fraction: float) -> float:
        """Give the faithfulness at a fraction of the nodes, between measured sizes by a straight line."""
        return float(np.interp(fraction * self.total, self.sizes, self.faithfulness))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        return f"Curve({len(self.sizes)} sizes to {self.total} nodes, CPR {self.cpr:.3f}, CMD {self.cmd:.3f})"


def curve(
    model: ModelLike,
    pairs: PairSet,
    order: Members | Sequence[Mediator],
    *,
    universe: Circuit = NODES,
    sizes: Sequence[int] | None = None,
    metric: str = "logit-diff",
    seed: int = 0,
) -> Curve:
    """Give faithfulness by size, nodes added from the front of a ranking.

    Args:
        model: what is run.
        pairs: better others than those the ranking was found on.
        order: the ranking, such as ``effects.top(len(effects.mediators))``; nodes it leaves out come last.
        universe: what is inside or outside.
        sizes: numbers of nodes; 0, 1, 2, 4, ... and all where left out.
        metric: a key of ``METRICS``.
        seed: of the rows that are checked.
    """
    model = as_model(model)
    every = members_of(model, pairs, universe)
    known = set(every)
    ranked = [node for node in dict.fromkeys([*order, *every]) if node in known]
    steps = sorted({0, len(every), *(sizes or _doubling(len(every)))})
    if steps[0] < 0 or steps[-1] > len(every):
        raise ConfigError(f"sizes from {steps[0]} to {steps[-1]} asked, but there are {len(every)} nodes.")
    values = run_all(model, pairs, every, [set(ranked[:size]) for size in steps], metric, seed)
    none, whole = values[0].mean(), values[-1].mean()
    refuse_no_effect(whole, none, "node")
    shares = np.array([(value.mean() - none) / (whole - none) for value in values])
    members: Any = tuple(ranked)
    return Curve(tuple(steps), shares, len(every), members)


def _doubling(n: int) -> list[int]:
    return [2**at for at in range(n.bit_length()) if 2**at < n]
