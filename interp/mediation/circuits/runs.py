"""Run circuits: every node or edge outside a circuit is taken from the other prompt, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError, DataError, counted
from interp.features.certificate import notes_of
from interp.mediation.edges.edge import Edge, Edges
from interp.mediation.mediators import Mediator, Members, mediators_of
from interp.mediation.metrics import METRICS
from interp.mediation.parsing import experiment_of, members_of
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.findings import Statistic
from interp.sites import OF_DICTIONARIES, Site
from probes.statistics import Estimate, paired_difference

__all__ = [
    "NODES",
    "Circuit",
    "apart",
    "ends_of",
    "no_total",
    "nodes_of",
    "of_dictionaries",
    "ranked_of",
    "refuse_no_effect",
    "run_all",
    "share_kept",
    "unit_of",
    "what_are",
]

Nodes = Sequence[str | Site | Mediator]
Circuit = str | Sequence[str | Site | Mediator] | Edges
NODES = ("head.*", "mlp_out.*")
SHARES = ("accuracy", "prob")
"""Metrics whose values lie between 0 and 1; what is 0 in every pair of another is no share of 0%."""


def nodes_of(model: Model, pairs: PairSet, nodes: Nodes = NODES) -> tuple[Mediator, ...]:
    """Every node that a circuit may have: heads and MLP outputs at all positions where left out."""
    return mediators_of(model, pairs, list(nodes), positions="all")


def ranked_of(model: Model, pairs: PairSet, order: Sequence[Any], every: Members) -> Members:
    """The universe in the order of a ranking; what the ranking leaves out comes last.

    Args:
        model: which nodes and edges there are.
        pairs: how long the prompts are.
        order: nodes or edges: values, names or globs.
        every: the universe.

    Raises:
        ConfigError: a member that the universe does not have, or something that is no member.
        SiteError: there is no such node or edge.
    """
    known: dict[Any, Any] = {one: one for one in every} | {str(one): one for one in every}
    found: list[Any] = []
    for one in order:
        if isinstance(one, str | Mediator | Edge) and one in known:
            found.append(known[one])
            continue
        if not isinstance(one, str | Site | Mediator | Edge):
            raise ConfigError(f"{one!r} in a ranking is no node and no edge; give names or effects.top(k).")
        named = members_of(model, pairs, cast("Circuit", [one]), positions="all")
        stray = [other for other in named if other not in known]
        if stray:
            raise ConfigError(f"{stray[0]} is ranked, but it is not in the universe; add it there.")
        found += named
    return cast("Members", tuple(dict.fromkeys([*found, *every])))


def of_dictionaries(model: Model, members: Members) -> tuple[str, ...]:
    """What is known of the dictionaries whose features or errors are among some members."""
    sites = [one.site for one in members if isinstance(one, Mediator)]
    return notes_of(model, [site.layer or 0 for site in sites if site.kind in OF_DICTIONARIES])


def what_are(members: Members) -> str:
    """The word for one of them: ``edge`` or ``node``."""
    return "edge" if members and isinstance(members[0], Edge) else "node"


def unit_of(metric: str) -> str:
    """The unit of a metric."""
    return METRICS[metric].unit if metric in METRICS else ""


def share_kept(
    part: Float[np.ndarray, " pair"], none: Float[np.ndarray, " pair"], whole: Float[np.ndarray, " pair"]
) -> Statistic:
    """Where the mean of a part stands between ``none`` (0) and ``whole`` (1), by the weights of pairs.

    It is 0 where nothing lies between them.
    """

    def share(weights: Float[np.ndarray, " item"]) -> float:
        low, at, high = np.stack([none, part, whole]) @ weights / weights.sum()
        return float((at - low) / (high - low)) if abs(high - low) > 1e-12 else 0.0

    return share


def apart(
    metric: str,
    first: Float[np.ndarray, " pair"],
    second: Float[np.ndarray, " pair"],
    groups: Sequence[str],
    seed: int,
) -> Estimate:
    """The mean of ``first - second`` with its interval over groups, in units of the metric."""
    if metric in SHARES:  # rounding may leave a probability of 1.0000001
        first, second = first.clip(0.0, 1.0), second.clip(0.0, 1.0)
    support = "share" if metric in SHARES else "real"
    return paired_difference(first, second, groups=groups, seed=seed, support=support)


def ends_of(found: Estimate | None) -> tuple[float | None, float | None]:
    """The ends of an interval; nothing where there is none."""
    return (None, None) if found is None else (found.interval.low, found.interval.high)


def no_total(
    metric: str,
    whole: Float[np.ndarray, " pair"],
    none: Float[np.ndarray, " pair"],
    groups: Sequence[str],
    seed: int,
) -> str:
    """Why no share of the total effect means anything: it is not told from zero. "" where it is."""
    found, count = apart(metric, whole, none, groups, seed), len(set(groups))
    if not found.interval.contains(0.0):
        return ""
    return (
        f"the total effect ({found.value:.3g} {METRICS[metric].unit} {found.interval}) is not told from zero "
        f"over {counted(count, 'group')} of pairs, so that no share of it means anything"
    )


def refuse_no_effect(whole: float, none: float, what: str) -> None:
    """Refuse to divide by a total effect of zero.

    Args:
        whole: the metric with nothing replaced.
        none: with everything replaced.
        what: ``node`` or ``edge``.

    Raises:
        DataError: they are the same.
    """
    if abs(whole - none) < 1e-6:
        raise DataError(
            f"the model behaves the same with every {what} replaced; choose pairs whose answers differ."
        )


def run_all(
    model: Model,
    pairs: PairSet,
    every: Members,
    circuits: Sequence[set[Any]],
    metric: str,
    seed: int,
) -> list[np.ndarray]:
    """The metric of each circuit on each pair.

    Args:
        model: what is run.
        pairs: clean and corrupt prompts.
        every: all nodes, or all edges, that are inside or outside.
        circuits: those inside.
        metric: a key of ``METRICS``.
        seed: of the rows that are checked.

    Raises:
        ConfigError: an unknown metric, which names those there are, or windows of layers, which overlap.
    """
    if wide := [str(one) for one in every if isinstance(one, Mediator) and one.window > 1]:
        raise ConfigError(
            f"{wide[0]} is a window of layers; windows overlap, so that none can be inside a circuit while "
            "others are outside. Give its layers, such as mlp_out.*."
        )
    asked = experiment_of(model, pairs, every, metric=metric, directions="noising", seed=seed)
    outside = [[one for one in asked.mediators if one not in circuit] for circuit in circuits]
    return list(asked.per_pair(asked.replaced(outside, "noising").values))
