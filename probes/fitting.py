"""How linear probes learn: scaling that is folded back, and a penalty chosen on data that was not fitted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int
from scipy import sparse

from probes.arrays import as_labels, as_matrix
from probes.base import Validation
from probes.evaluation.splits import folds

__all__ = [
    "STRENGTHS",
    "Lesson",
    "Scaling",
    "Strengths",
    "Values",
    "Weights",
    "chosen",
    "class_means",
    "halfway",
    "held_out",
    "linear_scores",
    "penalties",
    "per_class",
    "ridge_path",
    "within_classes",
]

Values = Float64[np.ndarray, "example dim"] | sparse.csr_array
HeldOut = Float64[np.ndarray, "held_out dim"] | sparse.csr_array
Weights = tuple[np.ndarray, np.ndarray]
Fit = tuple[Weights, dict[str, Any]]
Strengths = float | int | Sequence[float | int]
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
PATIENCE = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a linear probe learns from: numbers, class codes, and how to choose a penalty.

    Attributes:
        values: ``[example dim]``.
        codes: the class of each example, 0 to ``n_classes - 1``.
        n_classes: number of classes.
        groups: what must not straddle inner folds.
        validation: held-out values and codes (-1: a class that was not trained), or ``None``.
    """

    values: Values
    codes: Int[np.ndarray, " example"]
    n_classes: int
    groups: Collection[Any]
    validation: tuple[HeldOut, Int[np.ndarray, " held_out"]] | None

    @property
    def dense(self) -> Float64[np.ndarray, "example dim"]:
        """The values as a dense array."""
        return self.values.toarray() if isinstance(self.values, sparse.csr_array) else self.values

    @property
    def one_hot(self) -> Float64[np.ndarray, "example label"]:
        """One column per class, 1 where an example belongs to it."""
        return np.eye(self.n_classes)[self.codes]


@dataclass(frozen=True, eq=False)
class Scaling:
    """How features are scaled while fitting: (x - mean) / scale."""

    mean: Float64[np.ndarray, " dim"]
    scale: Float64[np.ndarray, " dim"]

    @classmethod
    def of(cls, values: Values, standardise: bool) -> Scaling:
        """Measure mean and spread; sparse values keep mean 0, constant columns keep scale 1."""
        mean = np.asarray(values.mean(axis=0)).reshape(-1)
        if not standardise:
            return cls(np.zeros_like(mean), np.ones_like(mean))
        if isinstance(values, sparse.csr_array):
            square = np.asarray(values.multiply(values).mean(axis=0)).reshape(-1)
            spread, mean = np.sqrt(np.maximum(square - mean**2, 0)), np.zeros_like(mean)
        else:
            spread = values.std(axis=0)
        constant = spread <= 1e-10 * max(float(spread.max()), 1e-290)
        return cls(mean, np.where(constant, 1.0, spread))

    def apply(self, values: Values) -> Values:
        """Scale the features."""
        if isinstance(values, sparse.csr_array):
            return sparse.csr_array(values @ sparse.diags_array(1 / self.scale))
        return (values - self.mean) / self.scale

    def folded(self, weights: Weights) -> Weights:
        """The same function of the raw features as the weights are of the scaled ones."""
        coef = weights[0] / self.scale
        return coef, weights[1] - coef @ self.mean


Trial = tuple[Lesson, tuple[Any, np.ndarray]]
"""What to fit, and the held-out values and codes to judge it on."""
Path = Callable[[Lesson, Sequence[float]], Iterator[Fit]]


def chosen(lesson: Lesson, path: Path, strengths: Strengths, seed: int) -> Fit:
    """Fit the penalty that is most accurate on held-out data; of equals the strongest.

    Args:
        lesson: what to learn from; its validation part decides, or inner folds where it has none.
        path: fits one penalty after the other, strongest first.
        strengths: the penalties.
        seed: of the inner folds.
    """
    several = penalties(strengths)
    best, fit = 0, None
    if len(several) > 1 and lesson.validation is not None:
        best, fit = _best([(lesson, lesson.validation)], path, several)
    elif len(several) > 1:
        best, _ = _best(_inner(lesson, seed), path, several)
    weights, notes = fit or next(path(lesson, several[best : best + 1]))
    if not notes.get("converged", True):
        _log.warning("the solver stopped before it converged; raise max_iterations or regularisation")
    return weights, {"regularisation": several[best], **notes}


def penalties(strengths: Strengths) -> list[float]:
    """The penalties, strongest first.

    Raises:
        ValueError: none, or one that is not positive.
    """
    several = sorted({float(s) for s in np.atleast_1d(np.asarray(strengths, dtype=np.float64))}, reverse=True)
    if not several or not several[-1] > 0:
        raise ValueError(f"regularisation is {strengths}; give a positive number, or several to choose from.")
    return several


def _best(trials: list[Trial], path: Path, strengths: Sequence[float]) -> tuple[int, Fit | None]:
    """Walk all trials along the penalties in step, until two in a row are worse than the best so far."""
    best, most, fit = 0, -1.0, None
    for step, fits in enumerate(zip(*(path(lesson, strengths) for lesson, _ in trials), strict=False)):
        right = sum(_right(*held, weights) for (_, held), (weights, _) in zip(trials, fits, strict=True))
        if right > most:
            best, most, fit = step, right, fits[0]
        elif right < most and step - best >= PATIENCE:
            break
    return best, fit


def _inner(lesson: Lesson, seed: int) -> list[Trial]:
    """Cut an own trial out of the lesson for each fold of whole groups."""
    trials: list[Trial] = []
    for held in folds(lesson.groups, seed=seed, stratify=lesson.codes):
        keep = np.setdiff1d(np.arange(len(lesson.codes)), held)
        if len(np.unique(lesson.codes[keep])) > 1:
            inner = Lesson(lesson.values[keep], lesson.codes[keep], lesson.n_classes, (), None)
            trials.append((inner, (lesson.values[held], lesson.codes[held])))
    return trials


def _right(values: HeldOut, codes: np.ndarray, weights: Weights) -> int:
    return int(np.sum(linear_scores(values, weights).argmax(axis=1) == codes))


def linear_scores(values: HeldOut, weights: Weights) -> np.ndarray:
    """``[example label]`` scores of a linear function."""
    return np.asarray(values @ weights[0].T) + weights[1]


def class_means(lesson: Lesson, values: np.ndarray) -> np.ndarray:
    """``[label dim]``, the mean of each class."""
    return np.stack([values[lesson.codes == code].mean(axis=0) for code in range(lesson.n_classes)])


def within_classes(lesson: Lesson) -> tuple[np.ndarray, np.ndarray]:
    """Compute class means and the pooled covariance within classes, shrunk (Ledoit and Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    dense = lesson.dense
    means = class_means(lesson, dense)
    scale = dense.std(axis=0)
    scale = np.where(scale <= 1e-10 * max(float(scale.max()), 1e-290), 1.0, scale)
    covariance, _ = ledoit_wolf((dense - means[lesson.codes]) / scale, assume_centered=True)
    return means, covariance * np.outer(scale, scale)


def ridge_path(
    dense: np.ndarray, targets: np.ndarray, strengths: Sequence[float], standardise: bool
) -> Iterator[Weights]:
    """Fit ridge regressions, one for each penalty, all from one decomposition.

    Args:
        dense: ``[example dim]``.
        targets: ``[example output]``.
        strengths: the penalties, on the mean squared error.
        standardise: whether features are scaled to variance 1 (otherwise only centred).
    """
    scaling = Scaling.of(dense, True)
    if not standardise:
        scaling = Scaling(scaling.mean, np.ones_like(scaling.scale))
    left, sizes, right = np.linalg.svd((dense - scaling.mean) / scaling.scale, full_matrices=False)
    mean = targets.mean(axis=0)
    projected = left.T @ (targets - mean)
    for strength in strengths:
        shrunk = sizes / (sizes**2 + strength * len(targets))
        yield scaling.folded(((right.T @ (shrunk[:, None] * projected)).T, mean))


def held_out(validation: Validation | None, classes: np.ndarray, width: int) -> Any:
    """Convert validation examples; a class that was not trained gets the code -1, which is never right."""
    if validation is None:
        return None
    matrix = as_matrix(validation[0], width=width, name="validation X")
    labels = as_labels(validation[1], matrix.shape[0], name="validation y")
    known = {label: code for code, label in enumerate(classes.tolist())}
    return matrix.values, np.array([known.get(label, -1) for label in labels.tolist()], dtype=np.int64)


def halfway(means: np.ndarray, turn: Callable[[np.ndarray], np.ndarray]) -> Weights:
    """Project onto the (turned) difference of two means, with the threshold halfway between them."""
    half = turn(means[1] - means[0]) / 2
    offset = float(half @ (means[0] + means[1])) / 2
    return np.stack([-half, half]), np.array([offset, -offset])


def per_class(solver: Any, n_classes: int) -> Weights:
    """Make one row per class from scikit-learn's weights; one that was not in the fold is never predicted."""
    coef, intercept = solver.coef_, solver.intercept_
    if len(coef) == 1:
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    rows, offsets = np.zeros((n_classes, coef.shape[1])), np.full(n_classes, -np.inf)
    rows[solver.classes_], offsets[solver.classes_] = coef, intercept
    return rows, offsets
