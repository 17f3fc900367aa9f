"""Results of mediation as findings: pairs are the items, and every number is compared pair by pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import DataError
from interp.mediation.metrics import METRICS
from interp.results.findings import Finding

if TYPE_CHECKING:
    from interp.mediation.effects import Effects
    from interp.mediation.pairwise import Interactions

__all__ = [
    "MOST",
    "of_effects",
    "of_interactions",
]

MOST = 2000
"""Mediators whose effects are given as findings. More are refused: two models' largest have other names."""


def of_effects(effects: Effects) -> tuple[Finding, ...]:
    """Give the total effect, then the effect of every mediator in the order of execution.

    Each is over pairs, in units of the metric, against an effect of zero; directions are averaged. Kinds of
    which every layer has one at most, such as ``mlp_out``, form a curve over layers.

    Raises:
        DataError: more than ``MOST`` mediators.
    """
    if len(effects.mediators) > MOST:
        raise DataError(
            f"{len(effects.mediators):,} effects cannot be compared one by one, {MOST:,} can: search fewer "
            "mediators, such as the reference's effects.top(100), or use interp.analyses.patch_agreement."
        )
    values = np.mean(list(effects.values.values()), axis=0)
    total = Finding(
        "total effect",
        effects.total,
        effects.groups,
        unit=effects.unit,
        about="the metric of the clean prompt less that of the corrupt one",
    )
    curves = _curves(effects.mediators)
    return (
        total,
        *(
            Finding(str(mediator), row, effects.groups, unit=effects.unit, curve=curve, layer=mediator.layer)
            for mediator, row, curve in zip(effects.mediators, values, curves, strict=True)
        ),
    )


def _curves(mediators: Sequence[Any]) -> list[str]:
    """Name the curve of each mediator; "" where its kind has several in one layer, or one in all."""
    kinds = [
        str(one).split(".")[0] + ("" if one.position is None else f"@{one.position}") for one in mediators
    ]
    layers = [one.layer for one in mediators]
    places = Counter(zip(kinds, layers, strict=True))
    crowded = {kind for (kind, layer), count in places.items() if count > 1 or layer is None}
    alone = {kind for kind, count in Counter(kinds).items() if count == 1}
    return ["" if kind in crowded | alone else kind for kind in kinds]


def _unit(metric: str) -> str:
    return METRICS[metric].unit if metric in METRICS else ""


def of_interactions(found: Interactions) -> tuple[Finding, ...]:
    """Give the interaction of every two mediators, in units of the metric, against none."""
    return tuple(
        Finding(
            f"{found.mediators[one]} x {found.mediators[two]}",
            found.values[one, two],
            found.groups,
            unit=_unit(found.metric),
            about="what both do together beyond what each does alone",
        )
        for one, two in combinations(range(len(found.mediators)), 2)
    )
