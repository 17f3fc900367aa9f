"""Linear probes: one weight vector and one offset per class, always in the units of the raw activations.

Whatever scaling a probe applies while it learns is folded back into ``coef_`` and ``intercept_``, so that
``scores = X @ coef_.T + intercept_`` holds for every probe here, and a row of ``coef_`` is a direction in the
residual stream.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from scipy import special

from probes.arrays import Inputs, Labels, as_labels, as_matrix
from probes.base import Probe, Validation, check_seed
from probes.fitting import (
    STRENGTHS,
    Fit,
    Lesson,
    Scaling,
    Strengths,
    Weights,
    chosen,
    class_means,
    held_out,
    linear_scores,
)

__all__ = ["LinearProbe", "LogisticProbe", "MeanDifferenceProbe", "NearestCentroidProbe", "RidgeProbe"]

ThisProbe = TypeVar("ThisProbe", bound="LinearProbe")


class LinearProbe(Probe):
    """Score classes by a linear function of the activations.

    Attributes:
        classes_: the labels, sorted.
        coef_: ``[label dim]``, in the units of the raw activations.
        intercept_: ``[label]``.
        notes_: facts about the fit: the penalty chosen, whether the optimiser converged.
    """

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    notes_: dict[str, Any]
    most_classes: ClassVar[int | None] = None

    @abstractmethod
    def _solve(self, lesson: Lesson) -> Fit:
        """Give coefficients, offsets and notes."""

    def fit(
        self: ThisProbe,
        X: Inputs,
        y: Labels,
        *,
        groups: Collection[Any] | None = None,
        validation: Validation | None = None,
    ) -> ThisProbe:
        """Learn from examples and give the probe itself.

        Args:
            X: ``[example dim]``, a tensor on any device or an array; it is not changed.
            y: one label per example, text or whole numbers.
            groups: what must not straddle inner folds, one per example.
            validation: held-out ``(X, y)`` on which the penalty is chosen, instead of inner folds.

        Raises:
            TypeError: X holds no numbers.
            ValueError: numbers that are not finite, lengths that differ, one class, or too many for this
                probe.
        """
        check_seed(self.get_params())
        matrix = as_matrix(X)
        n, width = matrix.shape
        classes, codes = np.unique(as_labels(y, n), return_inverse=True)
        self._check_classes(classes)
        units = range(n) if groups is None else groups
        later = held_out(validation, classes, width)
        lesson = Lesson(matrix.values, codes.astype(np.int64), len(classes), units, later)
        (coef, intercept), notes = self._solve(lesson)
        self.classes_, self.coef_, self.intercept_, self.notes_ = classes, coef, intercept, notes
        return self

    def _check_classes(self, classes: np.ndarray) -> None:
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class, {classes.tolist()[0]!r}; a probe needs at least two to tell apart."
            )
        if self.most_classes is not None and len(classes) > self.most_classes:
            raise ValueError(
                f"y holds {len(classes)} classes; {type(self).__name__} tells {self.most_classes} apart. "
                "Use NearestCentroidProbe, its form for several classes, or LogisticProbe."
            )

    def decision_function(self, X: Inputs) -> torch.Tensor | np.ndarray:
        """Give ``[example label]`` scores, in the order of ``classes_``, as X's kind of array."""
        return self._converted(X, lambda scores: scores)

    def _converted(self, X: Inputs, change: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor | np.ndarray:
        self.require_fitted("coef_")
        matrix = as_matrix(X, width=self.width)
        return matrix.back(change(linear_scores(matrix.values, (self.coef_, self.intercept_))))

    def predict(self, X: Inputs) -> np.ndarray:
        """Give the label with the highest score for every example."""
        self.require_fitted("coef_")
        scores = linear_scores(as_matrix(X, width=self.width).values, (self.coef_, self.intercept_))
        return self.classes_[scores.argmax(axis=1)]

    def score(self, X: Inputs, y: Labels) -> float:
        """Give the accuracy, from 0 to 1, over all examples."""
        predicted = self.predict(X)
        return float(np.mean(predicted == as_labels(y, len(predicted))))

    @property
    def width(self) -> int:
        """Give the number of columns the probe was fitted on."""
        self.require_fitted("coef_")
        return self.coef_.shape[1]

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the coefficients and offsets."""
        self.require_fitted("coef_")
        return {"coef": np.ascontiguousarray(self.coef_), "intercept": np.ascontiguousarray(self.intercept_)}

    def facts(self) -> dict[str, Any]:
        """Give the classes and the notes of the fit."""
        self.require_fitted("coef_")
        return {"classes": self.classes_.tolist(), **self.notes_}

    def restore(self: ThisProbe, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ThisProbe:
        """Take back coefficients, offsets, classes and notes."""
        self.coef_, self.intercept_ = arrays["coef"], arrays["intercept"]
        self.classes_ = np.array(facts["classes"])
        self.notes_ = {name: value for name, value in facts.items() if name != "classes"}
        if self.coef_.shape[0] != len(self.classes_) or self.intercept_.shape != self.classes_.shape:
            raise ValueError(f"{len(self.classes_)} classes, but coefficients of shape {self.coef_.shape}")
        return self


class LogisticProbe(LinearProbe):
    """Fit a softmax regression, the penalty chosen on data it was not fitted on.

    Minimises the mean cross-entropy (nats) plus ``regularisation / 2`` times the squared norm of the weights,
    on features of mean 0 and variance 1, so that the penalty means the same at every layer, width and sample
    size. Solver: scikit-learn's L-BFGS.

    Args:
        seed: of the inner folds.
        regularisation: a penalty, or several to choose from by accuracy: on ``validation`` where ``fit`` is
            given it, otherwise over five inner folds of whole groups. Of equally accurate ones the strongest
            wins.
        standardise: whether features are scaled to mean 0 and variance 1 while fitting (sparse counts:
            variance only).
        max_iterations: of the solver; ``notes_["converged"]`` says whether it was enough.
    """

    kind: ClassVar[str] = "logistic"

    def __init__(
        self,
        *,
        seed: int = 0,
        regularisation: Strengths = STRENGTHS,
        standardise: bool = True,
        max_iterations: int = 1000,
    ) -> None:
        self.seed = seed
        self.regularisation = regularisation
        self.standardise = standardise
        self.max_iterations = max_iterations

    def predict_proba(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, X: Inputs
    ) -> torch.Tensor | np.ndarray:
        """Give ``[example label]`` probabilities that add up to 1, in the order of ``classes_``."""
        return self._converted(X, lambda scores: special.softmax(scores, axis=1))

    def _solve(self, lesson: Lesson) -> Fit:
        return chosen(lesson, self._path, self.regularisation, self.seed)

    def _path(self, lesson: Lesson, strengths: Sequence[float]) -> Iterator[Fit]:
        """Fit one penalty after the other, strongest first, each from where the last one ended."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        scaling = Scaling.of(lesson.values, self.standardise)
        scaled = scaling.apply(lesson.values)
        solver = LogisticRegression(max_iter=self.max_iterations, tol=1e-5, warm_start=True)
        for strength in strengths:
            solver.C = 1 / (strength * len(lesson.codes))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                solver.fit(scaled, lesson.codes)
            converged = int(solver.n_iter_.max()) < self.max_iterations
            yield scaling.folded(_per_class(solver, lesson.n_classes)), {"converged": converged}


class RidgeProbe(LinearProbe):
    """Fit least squares onto one column per class (1 where an example belongs to it), in closed form.

    Minimises the mean squared error plus ``regularisation`` times the squared norm of the weights, on
    features of mean 0 and variance 1. All penalties come from one decomposition, so it is the fast screen
    over many layers.

    Args:
        seed: of the inner folds.
        regularisation: a penalty, or several to choose from, as for :class:`LogisticProbe`.
        standardise: whether features are scaled to mean 0 and variance 1 while fitting (otherwise only
            centred).
    """

    kind: ClassVar[str] = "ridge"

    def __init__(
        self, *, seed: int = 0, regularisation: Strengths = STRENGTHS, standardise: bool = True
    ) -> None:
        self.seed = seed
        self.regularisation = regularisation
        self.standardise = standardise

    def _solve(self, lesson: Lesson) -> Fit:
        return chosen(lesson, self._path, self.regularisation, self.seed)

    def _path(self, lesson: Lesson, strengths: Sequence[float]) -> Iterator[Fit]:
        dense, targets = lesson.dense, lesson.one_hot
        scaling = Scaling.of(dense, True)
        if not self.standardise:
            scaling = Scaling(scaling.mean, np.ones_like(scaling.scale))
        left, sizes, right = np.linalg.svd((dense - scaling.mean) / scaling.scale, full_matrices=False)
        share = targets.mean(axis=0)
        projected = left.T @ (targets - share)
        for strength in strengths:
            shrunk = sizes / (sizes**2 + strength * len(targets))
            yield scaling.folded(((right.T @ (shrunk[:, None] * projected)).T, share)), {}


class MeanDifferenceProbe(LinearProbe):
    """Project onto the difference of the two class means, with the threshold halfway (two classes only).

    Also called difference-in-means or mass-mean probe. Nothing is tuned; the raw direction is ``coef_[1] -
    coef_[0]``.
    """

    kind: ClassVar[str] = "mean-difference"
    most_classes: ClassVar[int | None] = 2

    def _solve(self, lesson: Lesson) -> Fit:
        means = class_means(lesson, lesson.dense)
        half = (means[1] - means[0]) / 2
        offset = float(half @ (means[0] + means[1])) / 2
        return (np.stack([-half, half]), np.array([offset, -offset])), {}


class NearestCentroidProbe(LinearProbe):
    """Give the class whose mean is nearest (Euclidean), on features of mean 0 and variance 1.

    Args:
        standardise: whether features are scaled to mean 0 and variance 1 while fitting.
    """

    kind: ClassVar[str] = "nearest-centroid"

    def __init__(self, *, standardise: bool = True) -> None:
        self.standardise = standardise

    def _solve(self, lesson: Lesson) -> Fit:
        dense = lesson.dense
        scaling = Scaling.of(dense, self.standardise)
        means = class_means(lesson, np.asarray(scaling.apply(dense)))
        return scaling.folded((means, -(means**2).sum(axis=1) / 2)), {}


def _per_class(solver: Any, n_classes: int) -> Weights:
    """Give one row per class from scikit-learn's weights; one that was not in the fold is never predicted."""
    coef, intercept = solver.coef_, solver.intercept_
    if len(coef) == 1:
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    rows, offsets = np.zeros((n_classes, coef.shape[1])), np.full(n_classes, -np.inf)
    rows[solver.classes_], offsets[solver.classes_] = coef, intercept
    return rows, offsets
