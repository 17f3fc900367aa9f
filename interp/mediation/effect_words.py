"""Words for one effect, and its place on a map or a curve."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.errors import counted
from interp.mediation.edges.edge import Edge
from interp.mediation.mediators import Mediator
from interp.results import Number
from probes.statistics import Estimate

__all__ = [
    "cell",
    "cost_words",
    "curves",
    "groups_needed",
    "interval_words",
    "mask_words",
    "remark",
    "untrained_numbers",
    "untrained_words",
]


def remark(row: Mapping[str, Any]) -> str:
    """Why a row is no finding; "" where it is one."""
    if not row["clear"]:
        return "below the noise floor"
    if row["q"] > 0.05:
        return "not told from chance"
    return "opposite directions" if row.get("opposite") else ""


def groups_needed(mediators: int, level: float = 0.05) -> int:
    """How many groups of pairs can tell one of so many mediators from chance.

    The exact test flips the sign of each group: the least p is 2 / 2^groups, and Benjamini-Hochberg
    multiplies the least of n by n.

    Args:
        mediators: how many are tested.
        level: of q.
    """
    return 1 + math.ceil(math.log2(mediators / level))


def interval_words(low: float, high: float) -> str:
    """An interval as text; a few groups leave it undetermined."""
    return f"[{low:.3f}, {high:.3f}]" if np.isfinite([low, high]).all() else "[undetermined]"


def cost_words(cost: Mapping[str, Any]) -> tuple[str, ...]:
    """What was run, in words; nothing where no copies were patched."""
    parts = [value for value in cost.values() if isinstance(value, Mapping) and "rows" in value]
    if not parts:
        return ()
    rows, forwards = sum(part["rows"] for part in parts), sum(part["forwards"] for part in parts)
    checked, skipped = max(part["checked"] for part in parts), sum(part["skipped"] for part in parts)
    words = (
        f"{rows:,} patched copies cost {forwards:,.0f} forward passes; {skipped:,} more change nothing and "
        f"were not run. Random copies, run again as whole forward passes, agree to {checked:.0e} of the "
        "logits."
    )
    return (words,)


def cell(mediator: Mediator | Edge) -> tuple[int, int, tuple[str, bool]] | None:
    """Where a mediator is on a map: its head or token, its layer, its kind and whether it is at a token."""
    if isinstance(mediator, Edge) or mediator.units or mediator.subspace:
        return None
    layer, index, position = mediator.layer, mediator.site.index, mediator.position
    across = index if position is None else position
    if layer is None or across is None or (index is not None and position is not None):
        return None
    return across, layer, (str(mediator).split(".")[0], position is not None)


def curves(mediators: Sequence[Mediator | Edge]) -> list[str]:
    """Name the curve of each mediator; "" where its kind has several in one layer, or one in all."""
    kinds = [
        str(one).split(".")[0] + ("" if one.position is None else f"@{one.position}") for one in mediators
    ]
    layers = [one.layer for one in mediators]
    places = Counter(zip(kinds, layers, strict=True))
    crowded = {kind for (kind, layer), count in places.items() if count > 1 or layer is None}
    alone = {kind for kind, count in Counter(kinds).items() if count == 1}
    return ["" if kind in crowded | alone else kind for kind in kinds]


def mask_words(masks: Mapping[str, Mapping[str, Any]], mediators: int) -> str:
    """What hard masks keep, by direction, and what that does not show."""
    of = counted(mediators, "mediator")
    kept = [
        f"{hard['kept']:,} of {of} by {way} (faithfulness "
        f"{'undetermined' if hard['faithfulness'] is None else format(hard['faithfulness'], 'z.2f')})"
        for way, hard in masks.items()
    ]
    return (
        f"The learned mask keeps {' and '.join(kept)}, on the very pairs it was trained on. Its gates are no "
        "effects, so none is told from chance: evaluate what it keeps on other pairs "
        "(interp.mediation.evaluate)."
    )


def untrained_numbers(total: Estimate, largest: Estimate, name: str, unit: str) -> list[Number]:
    """Of causal tracing in the model with random weights: what the noise takes, and the largest effect."""
    where = "in the same model with random weights, by the same noise relative to its own embeddings"
    said = {
        "untrained-total": (total, f"control: what the noise takes {where}"),
        "untrained-largest": (largest, f"control: the largest effect ({name}) {where}"),
    }
    return [
        Number(key, one.value, one.interval.low, one.interval.high, unit, words)
        for key, (one, words) in said.items()
    ]


def untrained_words(numbers: Sequence[Number]) -> str:
    """The two numbers of the model with random weights in a sentence; nothing where there are none."""
    if not numbers:
        return ""
    total, largest = numbers
    return (
        f" Untrained: {largest.value:.2g} {largest.unit} at most, of {total.value:.2g} that the noise takes."
    )
