"""Scores of units within a budget of forward passes: exact where that fits, else estimated and verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.mediation.experiment import SIGNS, Experiment, spent
from interp.mediation.frontiers.types import FrontierType, Unit
from interp.mediation.parsing import experiment_of
from interp.models.model import Model
from interp.pairs import PairSet

__all__ = ["Ranked", "ranked", "replaced"]

VERIFIED = 32
"""Units that are replaced exactly after an estimate, at most."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """Units in the order of their effects.

    Attributes:
        units: the largest effect first; what works against comes last.
        effects: the mean effect of each on the pairs, in units of the metric.
        search: how they were found, in words.
        forwards: forward passes of every pair that it took.
    """

    units: tuple[Unit, ...]
    effects: Float[np.ndarray, " unit"]
    search: str
    forwards: float


def ranked(
    row: FrontierType,
    model: Model,
    pairs: PairSet,
    units: Sequence[Unit],
    direction: str,
    metric: str,
    budget: float,
    signs: Float[np.ndarray, " pair"] | None = None,
) -> Ranked:
    """Rank the units of a type.

    Each unit is replaced on its own where that takes at most ``budget`` passes of every pair; otherwise all
    effects are estimated from gradients, and as many of the largest as fit are replaced.

    Args:
        row: the type.
        model: whose units.
        pairs: to rank on.
        units: of the type.
        direction: a key of ``DIRECTIONS``.
        metric: a key of ``METRICS``.
        budget: forward passes of every pair.
        signs: of every pair, what its effects are multiplied with; ones where left out.
    """
    members = tuple(dict.fromkeys(one for unit in units for one in unit))
    asked = experiment_of(model, pairs, members, metric=metric, directions=direction, positions="all")
    weight = np.ones(len(pairs)) if signs is None else signs
    whole = asked.forecast().forwards / len(pairs) * len(units) / len(members)
    if whole <= budget:
        found, forwards = _exact(row, asked, units, direction)
        effects = (found * weight).mean(axis=1)
        return _ordered(row, asked, units, effects, "each replaced", forwards, weight)
    first = asked.first_order()
    each = dict(zip(asked.mediators, first.values[direction], strict=True))
    effects = np.array([float((sum(each[one] for one in unit) * weight).mean()) for unit in units])
    forwards = spent(first.cost, len(pairs))
    few = int(min(VERIFIED, max(0.0, budget - forwards) / max(whole / len(units), 1e-9)))
    top = [int(at) for at in np.argsort(-effects, kind="stable")[:few]]
    if top:
        exact, more = _exact(row, asked, [units[at] for at in top], direction)
        effects[top] = (exact * weight).mean(axis=1)
        forwards += more
    words = f"gradient of all, the {len(top)} largest replaced"
    return _ordered(row, asked, units, effects, words, forwards, weight)


def _ordered(
    row: FrontierType,
    asked: Experiment,
    units: Sequence[Unit],
    effects: np.ndarray,
    search: str,
    forwards: float,
    weight: np.ndarray,
) -> Ranked:
    """The largest effect first; of units with a home, the place first whose units do most together."""
    first = np.zeros(len(units))
    if row.home is not None:
        homes: dict[Any, list[int]] = {}
        for at, unit in enumerate(units):
            homes.setdefault(row.home(unit), []).append(at)
        joint = [tuple(one for at in places for one in units[at]) for places in homes.values()]
        (way,) = asked.directions
        found, more = _exact(row, asked, joint, way)
        for places, effect in zip(homes.values(), (found * weight).mean(axis=1), strict=True):
            first[places] = effect
        forwards, search = forwards + more, f"{search}, places first"
    order = [int(at) for at in np.lexsort((-effects, -first))]
    return Ranked(tuple(units[at] for at in order), effects[order], search, round(forwards, 1))


def _exact(
    row: FrontierType, asked: Experiment, units: Sequence[Unit], direction: str
) -> tuple[np.ndarray, float]:
    """Effects ``[unit pair]``, and what they took."""
    found = asked.replaced([row.merged(unit) for unit in units], direction)
    forwards = spent({direction: dict(found.cost)}, len(asked.pairs))
    return SIGNS[direction] * (found.values - found.plain), forwards


def replaced(
    row: FrontierType,
    model: Model,
    pairs: PairSet,
    sets: Sequence[Sequence[Unit]],
    direction: str,
    metric: str,
) -> Float[np.ndarray, "set pair"]:
    """The metric of every pair with all units of a set replaced together.

    Args:
        row: the type.
        model: what is run.
        pairs: whose prompts.
        sets: of units of the type, at least one unit in all.
        direction: a key of ``DIRECTIONS``.
        metric: a key of ``METRICS``.
    """
    given: list[list[Any]] = [row.merged([one for unit in units for one in unit]) for units in sets]
    members = tuple(dict.fromkeys(one for some in given for one in some))
    asked = experiment_of(model, pairs, members, metric=metric, directions=direction, positions="all")
    return asked.per_pair(asked.replaced(given, direction).values)
