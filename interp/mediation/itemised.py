"""Results of mediation as findings: pairs are the items, and every number is compared pair by pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp.errors import DataError
from interp.mediation.metrics import METRICS
from interp.results.findings import Finding, Statistic

if TYPE_CHECKING:
    from interp.mediation.circuits.curve import Curve
    from interp.mediation.circuits.evaluation import Evaluation
    from interp.mediation.effects import Effects
    from interp.mediation.pairwise import Interactions

__all__ = [
    "MOST",
    "of_curve",
    "of_effects",
    "of_evaluation",
    "of_interactions",
    "prefixed",
    "share_kept",
]

MOST = 2000
"""Mediators whose effects are given as findings. More are refused: two models' largest have other names."""

PerPair = Float[np.ndarray, " pair"]


def prefixed(findings: Sequence[Finding], prefix: str) -> tuple[Finding, ...]:
    """Give findings with a word before each name, so that those of two results can stand together."""
    return tuple(replace(one, name=f"{prefix}: {one.name}") for one in findings)


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


def share_kept(part: PerPair, none: PerPair, whole: PerPair) -> Statistic:
    """Give where the mean of a part stands between ``none`` (0) and ``whole`` (1), by the weights of pairs.

    It is 0 where nothing lies between them.
    """

    def share(weights: Float[np.ndarray, " item"]) -> float:
        low, at, high = np.stack([none, part, whole]) @ weights / weights.sum()
        return float((at - low) / (high - low)) if abs(high - low) > 1e-12 else 0.0

    return share


def of_evaluation(found: Evaluation) -> tuple[Finding, ...]:
    """Give the faithfulness and what is lost without the circuit, then both ends in units of the metric.

    Without a total effect that is told from zero the shares are left out.

    The circuit is held to the random circuits of its size that were run beside it, and to 0 where there were
    none.
    """
    none, whole, inside = (found.values[name] for name in ("none", "all", "circuit"))
    lucky = [value for name, value in found.values.items() if name.startswith("random")]
    random = np.mean(lucky, axis=0) if lucky else none
    luck = share_kept(random, none, whole)(np.ones(len(none)))
    # What is lost is "all" less "without", seen from none lost (0) to all lost (1).
    lost = share_kept(whole + none - found.values["without"], none, whole)
    groups = found.groups
    shares = (
        Finding(
            "faithfulness of the circuit",
            inside,
            groups,
            control=luck,
            unit="share",
            statistic=share_kept(inside, none, whole),
            about="share of the behaviour that the circuit alone keeps, beside random circuits of its size",
        ),
        Finding(
            "lost without the circuit",
            found.values["without"],
            groups,
            unit="share",
            statistic=lost,
            about="share of the behaviour that goes when the circuit alone is replaced",
        ),
    )
    return (
        *(() if found.no_share else shares),
        Finding(
            "kept by the circuit alone",
            inside - none,
            groups,
            control=random - none,
            unit=_unit(found.metric),
            about=f"{found.metric} beyond that with everything replaced",
        ),
        Finding(
            "effect of all of them",
            whole - none,
            groups,
            unit=_unit(found.metric),
            about=f"{found.metric} of the model beyond that with everything replaced",
        ),
    )


def of_curve(found: Curve, control: Curve | None = None) -> tuple[Finding, ...]:
    """Give the area under faithfulness, then the faithfulness at each size between none and all.

    Args:
        found: the curve.
        control: of a random order, over the same pairs and sizes; 0 where left out.

    Returns:
        Nothing for a curve without the numbers of every pair, or whose total effect is not told from zero.
    """
    if found.runs is None or found.ends is None or found.no_share:
        return ()
    shares = _shares(found)
    floors = None if control is None else control.faithfulness
    area = Finding(
        "area under faithfulness",
        found.runs.mean(axis=0),
        found.groups,
        control=0.0 if control is None else control.cpr,
        unit="share",
        statistic=lambda weights: float(
            np.trapezoid([share(weights) for share in shares], np.asarray(found.axis))
        ),
        about=f"over the {found.axis_words}",
    )
    sizes = [
        Finding(
            f"faithfulness of the first {size} {found.members}",
            found.runs[at],
            found.groups,
            control=0.0 if floors is None else float(floors[at]),
            unit="share",
            statistic=shares[at],
        )
        for at, size in enumerate(found.sizes)
        if 0 < size < found.total and size not in found.sizes[:at]
    ]
    return (area, *sizes)


def _unit(metric: str) -> str:
    return METRICS[metric].unit if metric in METRICS else ""


def _shares(found: Curve) -> list[Statistic]:
    assert found.runs is not None and found.ends is not None
    none, whole = found.ends
    return [share_kept(run, none, whole) for run in found.runs]


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
