"""Faithfulness by the size of a circuit, and the areas that MIB ranks methods by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp import results
from interp.errors import ConfigError
from interp.mediation.circuits.runs import (
    NODES,
    Circuit,
    Members,
    members_of,
    no_total,
    ranked_of,
    refuse_no_effect,
    run_all,
    what_are,
)
from interp.mediation.edges.graph import Edge, Graph
from interp.mediation.edges.pruning import on_a_path
from interp.mediation.itemised import of_curve
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.findings import Finding

if TYPE_CHECKING:
    import pandas

__all__ = ["COMPAT", "CURVE", "FRACTIONS", "Curve", "curve"]

CURVE = "interp.mediation.curve/1"
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of all nodes or edges: the sizes at which MIB measures (Mueller et al. 2025, 2504.13151)."""
COMPAT: dict[str, str] = {
    "": "sizes 0, 1, 2, 4, ... and all; areas over the fraction of nodes or edges, from 0 to 1",
    "mib": "the largest 0.1% to 100%, rounded down; areas over these fractions, from 0.001 to 1",
}


@dataclass(frozen=True, eq=False, repr=False)
class Curve:
    """Hold faithfulness by circuit size, nodes or edges added in the order of a ranking.

    Attributes:
        sizes: numbers of nodes or edges, ascending.
        faithfulness: one per size; NaN where the total effect is not told from zero, see ``no_share``.
        total: number of nodes or edges in all.
        order: the ranking.
        fractions: the axis of the areas, one per size; sizes over ``total`` where left out.
        kept: how many of each size lie on a path from the embedding to the logits (edges only); the others
            change nothing.
        metric: its name.
        runs: the metric of each pair at each size; None where it was not kept.
        ends: the metric of each pair with everything replaced, and with nothing.
        groups: of the pairs.
        seed: of intervals.
    """

    sizes: tuple[int, ...]
    faithfulness: Float[np.ndarray, " size"]
    total: int
    order: Members
    fractions: tuple[float, ...] = ()
    kept: tuple[int, ...] = ()
    metric: str = "logit-diff"
    runs: Float[np.ndarray, "size pair"] | None = None
    ends: Float[np.ndarray, "end pair"] | None = None
    groups: tuple[str, ...] = ()
    seed: int = 0

    @cached_property
    def no_share(self) -> str:
        """Why there are no shares: the total effect is not told from zero. "" where there are."""
        if self.ends is None:
            return ""
        none, whole = self.ends
        return no_total(self.metric, whole, none, self.groups, self.seed)

    @property
    def axis(self) -> Float[np.ndarray, " size"]:
        """Give the fraction of all nodes or edges that each size stands for."""
        return np.array(self.fractions) if self.fractions else np.array(self.sizes) / self.total

    @property
    def members(self) -> str:
        """Say what is added: ``nodes`` or ``edges``."""
        return f"{what_are(self.order)}s"

    @property
    def axis_words(self) -> str:
        """Say in words what the areas are over."""
        parts = f"share of the {self.total:,} {self.members} that is in the circuit"
        start = f"{self.axis[0]:g} to {self.axis[-1]:g}, linear"
        return f"{parts}, in the order of the ranking ({start})"

    @property
    def cpr(self) -> float:
        """The area under faithfulness over the fraction kept (MIB's CPR; higher is better).

        NaN where faithfulness is: the total effect is not told from zero.
        """
        return float(np.trapezoid(self.faithfulness, self.axis))

    @property
    def cmd(self) -> float:
        """Give the area between faithfulness and 1 (MIB's CMD; 0 is best)."""
        return float(np.trapezoid(np.abs(1 - self.faithfulness), self.axis))

    def largest_within(self, fraction: float) -> int | None:
        """The place of the largest measured size of at most a fraction of all; None where it is size 0."""
        fitting = [at for at, size in enumerate(self.sizes) if 0 < size <= fraction * self.total]
        return max(fitting, key=lambda at: self.sizes[at], default=None)

    def table(self) -> pandas.DataFrame:
        """Give one row per size.

        Columns: fraction (see ``axis_words``), size, on_a_path (edges only: how many of them lie on a path
        from the embedding to the logits), faithfulness (share of the behaviour).
        """
        import pandas

        columns: dict[str, Any] = {"fraction": self.axis, "size": self.sizes}
        columns |= {"on_a_path": self.kept} if self.kept else {}
        return pandas.DataFrame({**columns, "faithfulness": self.faithfulness})

    def to_dict(self) -> dict[str, Any]:
        """Give the table, the areas and what they are over, as JSON types."""
        plain, _ = results.jsonable(
            {
                "schema": CURVE,
                "x": self.axis_words,
                "members": self.members,
                "total": self.total,
                "metric": self.metric,
                "rows": self.table().to_dict("records"),
                "cpr": self.cpr,
                "cmd": self.cmd,
            }
        )
        return plain

    def findings(self) -> tuple[Finding, ...]:
        """Give the area and the faithfulness by size; with a control, see ``itemised.of_curve``."""
        return of_curve(self)

    def diff(self, reference: Curve) -> pandas.DataFrame:
        """Give the change of faithfulness at every fraction from another curve.

        Raises:
            ConfigError: another metric.
            DataError: the two have no fraction in common.
        """
        if self.metric != reference.metric:
            raise ConfigError(f"a curve of {self.metric} cannot be compared with one of {reference.metric}.")
        return results.difference(self.table(), reference.table(), ["fraction"])

    def _repr_html_(self) -> str:
        """Give the table, escaped, for notebooks."""
        return results.table_html(self.table(), caption=f"{self!r}; fraction: {self.axis_words}")

    def __repr__(self) -> str:
        """Say in one line what was found."""
        size = f"{len(self.sizes)} sizes to {self.total:,} {self.members}"
        if self.no_share:
            return f"Curve({size}; {self.no_share})"
        return f"Curve({size}, CPR {self.cpr:.3f}, CMD {self.cmd:.3f})"


def curve(
    model: ModelLike,
    pairs: PairSet,
    order: Sequence[Any],
    *,
    universe: Circuit = NODES,
    sizes: Sequence[int] | None = None,
    compat: str = "",
    metric: str = "logit-diff",
    seed: int = 0,
) -> Curve:
    """Give faithfulness by size, nodes or edges added from the front of a ranking.

    Args:
        model: what is run.
        pairs: better others than those the ranking was found on.
        order: the ranking, such as ``effects.top(len(effects.mediators))`` or names; what it leaves out comes
            last. MIB ranks by signed effects for CPR (``ranking="signed"``) and by their size for CMD.
        universe: what is inside or outside: nodes, or edges (``"edge.*"``).
        sizes: numbers of nodes or edges; as ``compat`` says where left out.
        compat: a key of ``COMPAT``: which sizes, and over which axis the areas are.
        metric: a key of ``METRICS``.
        seed: of the rows that are checked.

    Raises:
        ConfigError: a size that there is not, an unknown compat, sizes besides a compat, an unknown metric,
            or something ranked that is not in the universe.
        DataError: the model behaves the same with everything replaced.
        SiteError: a node or edge that the model does not have.
    """
    model = as_model(model)
    every = members_of(model, pairs, universe)
    ranked = ranked_of(model, pairs, order, every)
    steps, fractions = _steps(len(every), sizes, compat, what_are(every))
    measured = sorted({0, len(every), *steps})
    parts = [set(ranked[:size]) for size in measured]
    runs = run_all(model, pairs, every, parts, metric, seed)
    means = [one.mean() for one in runs]
    none, whole = means[0], means[-1]
    refuse_no_effect(whole, none, what_are(every))
    share = dict(zip(measured, [(one - none) / (whole - none) for one in means], strict=True))
    found = np.array([share[size] for size in steps])
    by_size = dict(zip(measured, runs, strict=True))
    if no_total(metric, runs[-1], runs[0], pairs.groups, seed):
        found = np.full(len(steps), np.nan)
    return Curve(
        tuple(steps),
        found,
        len(every),
        ranked,
        fractions,
        _kept(model, ranked, steps),
        metric,
        np.stack([by_size[size] for size in steps]),
        np.stack([runs[0], runs[-1]]),
        tuple(pairs.groups),
        seed,
    )


def _steps(
    n: int, sizes: Sequence[int] | None, compat: str, what: str
) -> tuple[list[int], tuple[float, ...]]:
    """Give the sizes, and the axis of the areas where it is not size over number."""
    if compat not in COMPAT:
        raise ConfigError(f"compat {compat!r} asked; there are: {', '.join(map(repr, COMPAT))}.")
    if compat and sizes is not None:
        raise ConfigError(f"compat {compat!r} has sizes of its own; leave sizes out.")
    if compat:
        return [int(fraction * n + 1e-9) for fraction in FRACTIONS], FRACTIONS
    steps = sorted({0, n, *(sizes or _doubling(n))})
    if steps[0] < 0 or steps[-1] > n:
        raise ConfigError(f"sizes from {steps[0]} to {steps[-1]} asked, but there are {n} {what}s.")
    return steps, ()


def _doubling(n: int) -> list[int]:
    return [2**at for at in range(n.bit_length()) if 2**at < n]


def _kept(model: Model, ranked: Members, steps: Sequence[int]) -> tuple[int, ...]:
    """Count the edges of each size that lie on a path; of nodes, nothing."""
    edges = [one for one in ranked if isinstance(one, Edge)]
    if not edges:
        return ()
    graph = Graph.of(model)
    return tuple(len(on_a_path(graph, edges[:size])) for size in steps)
