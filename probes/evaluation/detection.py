"""Scores of probes that detect something: ranking, recall at a fixed false positive rate, calibration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize, special, stats

from probes.statistics import Estimate, bootstrap, clopper_pearson
from probes.statistics.estimates import share_of
from probes.statistics.groups import counted

__all__ = [
    "Reliability",
    "Temperature",
    "auroc",
    "average_precision",
    "brier",
    "expected_calibration_error",
    "platt",
    "recall_at_fpr",
]


def auroc(
    labels: Collection[Any],
    scores: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The chance that a positive example scores higher than a negative one; ties count half.

    Args:
        labels: 1 or true for positive, per example.
        scores: higher is likelier positive.
        groups: the group of each example.
        level: nominal coverage.
        n_resamples: of groups.
        seed: of the bootstrap.

    Raises:
        ValueError: lengths that differ, labels that are not two, or scores that are not finite.
    """
    table = _table(labels, scores)
    positive = table[:, 0] == 1
    rare = positive if positive.sum() <= (~positive).sum() else ~positive
    return share_of(table, _area, groups=groups, rare=rare, level=level)


def average_precision(
    labels: Collection[Any],
    scores: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The mean precision over the ranks of the positives; its floor is the positives' share.

    Args and errors are those of :func:`auroc`.
    """
    table = _table(labels, scores)
    return share_of(table, _precision, groups=groups, rare=table[:, 0] == 1, level=level)


def recall_at_fpr(
    labels: Collection[Any], scores: Collection[Any], *, rate: float = 0.01, level: float = 0.95
) -> Estimate:
    """The share of positives above the threshold that a share ``rate`` of negatives may pass.

    The interval is exact (Clopper and Pearson 1934) for the threshold found; examples are taken as
    independent.

    Args:
        labels: 1 or true for positive.
        scores: higher is likelier positive.
        rate: false positive rate allowed.
        level: nominal coverage.

    Raises:
        ValueError: as for :func:`auroc`, or a rate outside 0 to 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate} asked; give a false positive rate from 0 up to 1, such as 0.01.")
    table = _table(labels, scores)
    positive, negative = table[table[:, 0] == 1, 1], np.sort(table[table[:, 0] == 0, 1])[::-1]
    threshold = negative[int(np.floor(rate * len(negative)))]
    hits = int(np.sum(positive > threshold))
    interval = clopper_pearson(hits, len(positive), level=level)
    return Estimate(hits / len(positive), interval, len(positive), len(positive))


def brier(
    labels: Collection[Any],
    probabilities: Collection[Any],
    *,
    groups: Collection[Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The mean squared error of the probability of the positive label (Brier 1950); 0 is best."""
    table = _table(labels, probabilities, bounded=True)
    errors = (table[:, 1] - table[:, 0]) ** 2
    return bootstrap(errors, groups=groups, level=level, seed=seed, support="share")


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often predictions of each confidence are right.

    Attributes:
        error: expected calibration error: mean distance of confidence and accuracy, weighted by count.
        confidence: ``[bin]``, mean probability; NaN in an empty bin.
        accuracy: ``[bin]``, share that is positive; NaN in an empty bin.
        counts: ``[bin]``.
    """

    error: float
    confidence: Float[np.ndarray, " bin"]
    accuracy: Float[np.ndarray, " bin"]
    counts: np.ndarray


def expected_calibration_error(
    labels: Collection[Any], probabilities: Collection[Any], *, bins: int = 10
) -> Reliability:
    """Compare probabilities with outcomes in bins of equal width (Naeini, Cooper and Hauskrecht 2015).

    Args:
        labels: 1 or true where the predicted thing is so (or where the prediction is right).
        probabilities: from 0 to 1.
        bins: how many.

    Raises:
        ValueError: lengths that differ, or values outside 0 to 1.
    """
    table = _table(labels, probabilities, bounded=True, both=False)
    where = np.minimum((table[:, 1] * bins).astype(int), bins - 1)
    counts = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(where, table[:, 1], bins) / counts
        share = np.bincount(where, table[:, 0], bins) / counts
    error = float(np.nansum(counts * np.abs(confidence - share)) / len(table))
    return Reliability(error, confidence, share, counts)


@dataclass(frozen=True)
class Temperature:
    """Divide scores by a number, so that their softmax says how often they are right (Guo et al. 2017).

    Attributes:
        value: above 1 where the scores were too sure.
    """

    value: float

    @classmethod
    def fitted(cls, scores: Float[np.ndarray, "example label"], codes: Collection[Any]) -> Temperature:
        """Minimise the cross-entropy on validation examples.

        Args:
            scores: ``[example label]``, higher is likelier.
            codes: the right column of each example.
        """
        right = np.asarray(list(codes))
        if len(right) != len(scores) or not len(right):
            raise ValueError(
                f"{counted(len(right), 'label')} for {counted(len(scores), 'row')} of scores; "
                "give one per example."
            )

        def loss(log_value: float) -> float:
            logs = special.log_softmax(scores / np.exp(log_value), axis=1)
            return -float(logs[np.arange(len(right)), right].mean())

        found: Any = optimize.minimize_scalar(loss, bounds=(-6, 6), method="bounded")
        return cls(float(np.exp(found.x)))

    def __call__(self, scores: Float[np.ndarray, "example label"]) -> Float[np.ndarray, "example label"]:
        """The probabilities at the fitted temperature."""
        return special.softmax(scores / self.value, axis=1)


def platt(labels: Collection[Any], scores: Collection[Any]) -> tuple[float, float]:
    """Slope and offset of the logistic function that turns scores into probabilities (Platt 1999).

    Targets are drawn in as he does, so that separated scores do not give a slope without bound.

    Args:
        labels: 1 or true for positive.
        scores: higher is likelier positive; of examples that nothing was fitted on.

    Raises:
        ValueError: as for :func:`auroc`.
    """
    table = _table(labels, scores)
    positive, scale = table[:, 0] == 1, float(table[:, 1].std()) or 1.0
    counts = positive.sum(), (~positive).sum()
    target = np.where(positive, (counts[0] + 1) / (counts[0] + 2), 1 / (counts[1] + 2))
    unit = table[:, 1] / scale

    def loss(parts: np.ndarray) -> float:
        logits = parts[0] * unit + parts[1]
        return float((np.logaddexp(0, logits) - target * logits).sum())

    found: Any = optimize.minimize(loss, np.array([1.0, 0.0]), method="BFGS")
    return float(found.x[0] / scale), float(found.x[1])


def _area(table: np.ndarray) -> float:
    positive = table[:, 0] == 1
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return 0.5
    ranks = stats.rankdata(table[:, 1])
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def _precision(table: np.ndarray) -> float:
    order = np.argsort(-table[:, 1], kind="stable")
    labels, scores = table[order, 0], table[order, 1]
    last = np.append(scores[1:] != scores[:-1], True)  # of equal scores only the last place counts
    hits, places = np.cumsum(labels)[last], np.flatnonzero(last) + 1
    if not hits[-1]:
        return 0.0
    return float(np.sum(np.diff(hits, prepend=0) * hits / places) / hits[-1])


def _table(
    labels: Collection[Any], scores: Collection[Any], *, bounded: bool = False, both: bool = True
) -> np.ndarray:
    truth, values = np.asarray(list(labels), dtype=float), np.asarray(list(scores), dtype=float)
    if truth.shape != values.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(
            f"labels of shape {truth.shape}, scores of {values.shape}; give one score per label."
        )
    if not np.isin(truth, (0, 1)).all() or (both and len(np.unique(truth)) < 2):
        raise ValueError("labels must be 0 and 1, with at least one of each.")
    if not np.isfinite(values).all():
        raise ValueError("scores hold numbers that are not finite; drop those examples.")
    if bounded and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            f"probabilities lie from {values.min():.3g} to {values.max():.3g}; they must be in 0 to 1."
        )
    return np.stack([truth, values], axis=1)
