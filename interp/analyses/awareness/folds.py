"""One source after the other is left out; what is chosen is chosen on the sources that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from interp.analyses.monitoring.sources import Fold, source_folds
from interp.errors import DataError
from probes.evaluation import auroc
from probes.table import PROBES

__all__ = ["LeftOut", "across_sources", "area"]

Layers = Mapping[int, np.ndarray]
"""Layer -> ``[example dim]``."""


@dataclass(frozen=True)
class LeftOut:
    """What a probe reads of sources that were left out.

    Attributes:
        sources: their names.
        layer: chosen on the others.
        area: AUROC, with the ends of its 95% interval over groups.
        low: lower end.
        high: upper end.
        n: examples.
    """

    sources: str
    layer: int
    area: float
    low: float
    high: float
    n: int


def across_sources(
    layers: Layers,
    positive: np.ndarray,
    sources: Sequence[str],
    groups: Sequence[str],
    *,
    kind: str = "mean-difference",
    seed: int = 0,
) -> tuple[LeftOut, ...]:
    """Leave sources out, choose the layer on the others by leaving each of them out in turn, fit, and read.

    Args:
        layers: layer -> ``[example dim]`` states.
        positive: ``[example]``, true for the label that is looked for.
        sources: one each.
        groups: one each; none is trained on and tested, and intervals are over them.
        kind: of linear probe.
        seed: of the probe.

    Raises:
        DataError: sources that cannot be left out, or too few of them to choose a layer on the others.
    """
    found = []
    for fold in source_folds(positive, sources, groups):
        layer = _chosen(layers, positive, sources, groups, fold, kind, seed)
        table = layers[layer]
        scores = _read(table, positive, fold.train, fold.test, kind, seed)
        found.append(LeftOut(fold.name, layer, *area(positive, scores, groups, fold), len(fold.test)))
    return tuple(found)


def area(
    positive: np.ndarray, scores: np.ndarray, groups: Sequence[str], fold: Fold
) -> tuple[float, float, float]:
    """The AUROC of the left-out examples, with the ends of its interval."""
    one = auroc(positive[fold.test], scores, groups=[groups[at] for at in fold.test])
    return one.value, one.interval.low, one.interval.high


def _chosen(
    layers: Layers,
    positive: np.ndarray,
    sources: Sequence[str],
    groups: Sequence[str],
    fold: Fold,
    kind: str,
    seed: int,
) -> int:
    """The layer with the highest mean AUROC on the training sources, each left out in turn."""
    if len(layers) == 1:
        return next(iter(layers))
    rows = fold.train
    names, units = ([str(column[at]) for at in rows.tolist()] for column in (sources, groups))
    try:
        inner = source_folds(positive[rows], names, units)
    except DataError as error:
        raise DataError(
            f"without {fold.name} too few sources are left to choose a layer on: give at least three of each "
            f"label, or one layer. ({error})"
        ) from error
    means: dict[int, float] = {}
    for layer, table in layers.items():
        parts = [
            _area(
                positive[rows[one.test]],
                _read(table, positive, rows[one.train], rows[one.test], kind, seed),
            )
            for one in inner
        ]
        means[layer] = float(np.mean(parts))
    return max(means, key=lambda layer: means[layer])


def _area(positive: np.ndarray, scores: np.ndarray) -> float:
    """The AUROC alone: its interval takes most of the time, and choosing needs none."""
    n = int(positive.sum())
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


def _read(
    table: np.ndarray, positive: np.ndarray, train: np.ndarray, test: np.ndarray, kind: str, seed: int
) -> np.ndarray:
    probe: Any = PROBES[kind].create(seed=seed)
    probe.fit(table[train], positive[train].astype(int))
    return np.asarray(probe.decision_function(table[test]))[:, 1]
