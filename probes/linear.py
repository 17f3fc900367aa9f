"""Linear probes: for one label, several labels or numbers, always in the units of the raw activations.

Whatever scaling a probe applies while it learns is folded back into ``coef_`` and ``intercept_``, so that
``scores = X @ coef_.T + intercept_`` holds for every probe here, and a row of ``coef_`` is a direction in the
residual stream.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar, TypeVar, final

import numpy as np
import torch
from jaxtyping import Float64
from scipy import special

from probes.arrays import Inputs, Labels, as_indicators, as_labels, as_matrix, as_numbers
from probes.base import Probe, Validation, check_seed
from probes.evaluation.splits import folds
from probes.fitting import (
    STRENGTHS,
    Fit,
    Lesson,
    Scaling,
    Strengths,
    Weights,
    chosen,
    class_means,
    halfway,
    held_out,
    linear_scores,
    penalties,
    per_class,
    ridge_path,
    within_classes,
)

__all__ = [
    "AffineProbe",
    "LDAProbe",
    "LinearProbe",
    "LinearRegressionProbe",
    "LogisticProbe",
    "MeanDifferenceProbe",
    "MultiLabelProbe",
    "NearestCentroidProbe",
    "RegressionProbe",
    "RidgeProbe",
    "RidgeRegressionProbe",
    "WhitenedMeanDifferenceProbe",
]

ThisProbe = TypeVar("ThisProbe", bound="AffineProbe")
ThisClassifier = TypeVar("ThisClassifier", bound="LinearProbe")
ThisRegression = TypeVar("ThisRegression", bound="RegressionProbe")
Table = Float64[np.ndarray, "example dim"]
Numbers = Float64[np.ndarray, "example target"]
Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Features and numbers to fit, features and numbers to judge on."""


class AffineProbe(Probe):
    """What every linear probe shares: scores, saving, and the shape of what was learned.

    Attributes:
        coef_: ``[output dim]``, in the units of the raw activations; an output is a label or a target.
        intercept_: ``[output]``.
        notes_: facts about the fit: the penalty chosen, whether the optimiser converged.
    """

    labelled: ClassVar[bool] = True
    """Whether the outputs are labels, kept sorted in ``classes_``."""
    coef_: np.ndarray
    intercept_: np.ndarray
    notes_: dict[str, Any]

    def decision_function(self, X: Inputs) -> torch.Tensor | np.ndarray:
        """Compute ``[example output]`` scores, in the order of ``coef_``, as X's kind of array."""
        return self._converted(X, lambda scores: scores)

    def _converted(self, X: Inputs, change: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor | np.ndarray:
        self.require_fitted("coef_")
        matrix = as_matrix(X, width=self.width)
        return matrix.back(change(linear_scores(matrix.values, (self.coef_, self.intercept_))))

    def _scores(self, X: Inputs) -> np.ndarray:
        self.require_fitted("coef_")
        return linear_scores(as_matrix(X, width=self.width).values, (self.coef_, self.intercept_))

    @property
    def width(self) -> int:
        """The number of columns the probe was fitted on."""
        self.require_fitted("coef_")
        return self.coef_.shape[1]

    def arrays(self) -> dict[str, np.ndarray]:
        """The coefficients and offsets."""
        self.require_fitted("coef_")
        return {"coef": np.ascontiguousarray(self.coef_), "intercept": np.ascontiguousarray(self.intercept_)}

    def facts(self) -> dict[str, Any]:
        """The labels, where outputs are labels, and the notes of the fit."""
        self.require_fitted("coef_")
        labels: np.ndarray = vars(self).get("classes_", np.array([]))
        return {"classes": labels.tolist(), **self.notes_}

    def restore(self: ThisProbe, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ThisProbe:
        """Take back coefficients, offsets, labels and notes.

        Raises:
            ValueError: their shapes do not fit each other.
        """
        self.coef_, self.intercept_ = arrays["coef"], arrays["intercept"]
        self.notes_ = {name: value for name, value in facts.items() if name != "classes"}
        outputs = len(facts["classes"]) if self.labelled else len(self.coef_)
        if self.coef_.shape[:1] != (outputs,) or self.intercept_.shape != (outputs,):
            raise ValueError(
                f"{outputs} outputs, but coefficients of shape {self.coef_.shape} and offsets of "
                f"{self.intercept_.shape}"
            )
        if self.labelled:
            vars(self)["classes_"] = np.array(facts["classes"])
        return self


class LinearProbe(AffineProbe):
    """Score classes by a linear function of the activations.

    Attributes:
        classes_: the labels, sorted.
    """

    classes_: np.ndarray
    most_classes: ClassVar[int | None] = None

    @abstractmethod
    def _solve(self, lesson: Lesson) -> Fit:
        """Find coefficients, offsets and notes."""

    def fit(
        self: ThisClassifier,
        X: Inputs,
        y: Labels,
        *,
        groups: Collection[Any] | None = None,
        validation: Validation | None = None,
    ) -> ThisClassifier:
        """Learn from examples; returns the probe itself.

        Args are those of :meth:`Probe.fit`; the penalty is what is chosen.

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

    def predict(self, X: Inputs) -> np.ndarray:
        """Predict the label with the highest score for every example."""
        best = self._scores(X).argmax(axis=1)
        return self.classes_[best]

    def score(self, X: Inputs, y: Labels) -> float:
        """Compute the accuracy, from 0 to 1, over all examples."""
        predicted = self.predict(X)
        return float(np.mean(predicted == as_labels(y, len(predicted))))


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
        """Compute ``[example label]`` probabilities that add up to 1, in the order of ``classes_``."""
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
            yield scaling.folded(per_class(solver, lesson.n_classes)), {"converged": converged}


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
        for weights in ridge_path(lesson.dense, lesson.one_hot, strengths, self.standardise):
            yield weights, {}


class MeanDifferenceProbe(LinearProbe):
    """Project onto the difference of the two class means, with the threshold halfway (two classes only).

    Also called difference-in-means or mass-mean probe. Nothing is tuned; the raw direction is ``coef_[1] -
    coef_[0]``.
    """

    kind: ClassVar[str] = "mean-difference"
    most_classes: ClassVar[int | None] = 2

    def _solve(self, lesson: Lesson) -> Fit:
        return halfway(class_means(lesson, lesson.dense), lambda apart: apart), {}


class NearestCentroidProbe(LinearProbe):
    """Predict the class whose mean is nearest (Euclidean), on features of mean 0 and variance 1.

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


@final
class WhitenedMeanDifferenceProbe(LinearProbe):
    """Project onto ``covariance^-1 (mean_1 - mean_0)``, with the threshold halfway (two classes only).

    The direction that tells the means apart best in units of how the activations vary within the classes
    (Fisher 1936; as a probe: Marks and Tegmark 2023, arXiv 2310.06824, section 5). The covariance is pooled
    over classes and shrunk (Ledoit and Wolf 2004), so that it can be inverted with fewer examples than
    dimensions.
    """

    kind: ClassVar[str] = "whitened-mean-difference"
    most_classes: ClassVar[int | None] = 2

    def _solve(self, lesson: Lesson) -> Fit:
        means, covariance = within_classes(lesson)
        return halfway(means, lambda apart: np.linalg.solve(covariance, apart)), {}


@final
class LDAProbe(LinearProbe):
    """Predict the likeliest class of Gaussians that share one covariance (linear discriminant analysis).

    Scores are log posteriors up to a constant: ``x S^-1 m_k - m_k S^-1 m_k / 2 + log share_k``, with the
    pooled covariance ``S`` shrunk (Ledoit and Wolf 2004) on features of variance 1.
    """

    kind: ClassVar[str] = "lda"

    def _solve(self, lesson: Lesson) -> Fit:
        means, covariance = within_classes(lesson)
        rows = np.linalg.solve(covariance, means.T).T
        shares = np.bincount(lesson.codes, minlength=lesson.n_classes) / len(lesson.codes)
        return (rows, np.log(shares) - (rows * means).sum(axis=1) / 2), {}


@final
class MultiLabelProbe(AffineProbe):
    """Whether each label holds, independently of the others (binary relevance).

    Args:
        seed: of the inner folds.
        regularisation: as for :class:`LogisticProbe`, chosen label by label.
        standardise: whether features are scaled to mean 0 and variance 1 while fitting.
        max_iterations: of each solver.

    Attributes:
        classes_: the labels, sorted; column numbers where y was a matrix.
        coef_: ``[label dim]``: the log odds of each label.
        notes_: the penalty of each label, and which did not converge.
    """

    kind: ClassVar[str] = "multi-label"
    classes_: np.ndarray

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

    def fit(
        self,
        X: Inputs,
        y: Labels,
        *,
        groups: Collection[Any] | None = None,
        validation: Validation | None = None,
    ) -> MultiLabelProbe:
        """Learn from examples; returns the probe itself.

        Args are those of :meth:`Probe.fit`; ``y`` is ``[example label]`` of 0 and 1, or one collection of
        names per example.

        Raises:
            ValueError: a label that holds for every example or for none, or lengths that differ.
        """
        check_seed(self.get_params())
        matrix = as_matrix(X)
        table, names = as_indicators(y, matrix.shape[0])
        self._check(table, names)
        later = None
        if validation is not None:
            held = as_matrix(validation[0], width=matrix.shape[1], name="validation X")
            later = (held.values, as_indicators(validation[1], held.shape[0], names=names)[0])
        fitted = [
            LogisticProbe(**self.get_params()).fit(
                matrix.values,
                column,
                groups=groups,
                validation=None if later is None else (later[0], later[1][:, at]),
            )
            for at, column in enumerate(table.T)
        ]
        self.classes_ = np.array(names)
        self.coef_ = np.stack([one.coef_[1] - one.coef_[0] for one in fitted])
        self.intercept_ = np.array([one.intercept_[1] - one.intercept_[0] for one in fitted])
        late = [name for name, one in zip(names, fitted, strict=True) if not one.notes_["converged"]]
        self.notes_ = {
            "regularisation": [one.notes_["regularisation"] for one in fitted],
            "not_converged": late,
            "converged": not late,
        }
        return self

    def _check(self, table: np.ndarray, names: list[Any]) -> None:
        for name, column in zip(names, table.T, strict=True):
            if column.min() == column.max():
                holds = "every example" if column[0] else "no example"
                raise ValueError(
                    f"label {name!r} holds for {holds}; a probe needs both: leave that label out."
                )

    def predict_proba(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, X: Inputs
    ) -> torch.Tensor | np.ndarray:
        """Compute ``[example label]`` probabilities, each label's own; a row need not add up to 1."""
        return self._converted(X, special.expit)

    def predict(self, X: Inputs) -> np.ndarray:
        """Predict ``[example label]`` of 0 and 1: a label holds where its probability is above a half."""
        return (self._scores(X) > 0).astype(np.int64)

    def score(self, X: Inputs, y: Labels) -> float:
        """Compute the share of examples with every label right (as scikit-learn does for several labels)."""
        predicted = self.predict(X)
        truth = as_indicators(y, len(predicted), names=self.classes_.tolist())[0]
        return float(np.mean((predicted == truth).all(axis=1)))


class RegressionProbe(AffineProbe):
    """Predict numbers by a linear function of the activations.

    Attributes:
        coef_: ``[target dim]``, in units of the target per unit of the raw activations.
        notes_: facts about the fit: the penalty chosen; whether y had one column.
    """

    labelled: ClassVar[bool] = False

    @abstractmethod
    def _solve(
        self,
        dense: Table,
        numbers: Numbers,
        units: Collection[Any],
        later: tuple[np.ndarray, np.ndarray] | None,
    ) -> tuple[Weights, dict[str, Any]]:
        """Find coefficients, offsets and notes."""

    def fit(
        self: ThisRegression,
        X: Inputs,
        y: Labels,
        *,
        groups: Collection[Any] | None = None,
        validation: Validation | None = None,
    ) -> ThisRegression:
        """Learn from examples; returns the probe itself.

        Args are those of :meth:`Probe.fit`; ``y`` is one number per example, or ``[example target]``.

        Raises:
            TypeError: X holds no numbers.
            ValueError: numbers that are not finite, or lengths that differ.
        """
        check_seed(self.get_params())
        matrix = as_matrix(X)
        n, width = matrix.shape
        numbers = as_numbers(y, n)
        later = None
        if validation is not None:
            held = as_matrix(validation[0], width=width, name="validation X")
            wanted = as_numbers(validation[1], held.shape[0], name="validation y")
            later = (held.dense, wanted.reshape(len(wanted), -1))
        table = numbers.reshape(n, -1)
        (coef, intercept), notes = self._solve(
            matrix.dense, table, range(n) if groups is None else list(groups), later
        )
        self.coef_, self.intercept_ = coef, intercept
        self.notes_ = {"one_column": numbers.ndim == 1, **notes}
        return self

    def predict(self, X: Inputs) -> np.ndarray:
        """Predict the numbers, in the shape that y had in ``fit``."""
        found = self._scores(X)
        return found[:, 0] if self.notes_["one_column"] else found

    def score(self, X: Inputs, y: Labels) -> float:
        """Compute the coefficient of determination R^2, the mean over targets: 1 is exact, 0 is the mean's.

        A target that does not vary scores 0.
        """
        predicted = self.predict(X)
        truth = as_numbers(y, len(predicted)).reshape(len(predicted), -1)
        left = ((truth - predicted.reshape(truth.shape)) ** 2).sum(axis=0)
        spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
        return float(np.mean(np.where(spread > 0, 1 - left / np.where(spread > 0, spread, 1), 0.0)))


@final
class LinearRegressionProbe(RegressionProbe):
    """Fit least squares without a penalty; of equally good solutions the smallest, on standardised features.

    With fewer examples than dimensions it fits the training data exactly, and its score there says nothing.
    """

    kind: ClassVar[str] = "linear-regression"

    def _solve(
        self,
        dense: Table,
        numbers: Numbers,
        units: Collection[Any],
        later: tuple[np.ndarray, np.ndarray] | None,
    ) -> tuple[Weights, dict[str, Any]]:
        scaling = Scaling.of(dense, True)
        mean = numbers.mean(axis=0)
        found = np.linalg.lstsq(np.asarray(scaling.apply(dense)), numbers - mean, rcond=None)[0]
        return scaling.folded((found.T, mean)), {}


@final
class RidgeRegressionProbe(RegressionProbe):
    """Fit least squares with a squared penalty, chosen on data it was not fitted on.

    Minimises the mean squared error plus ``regularisation`` times the squared norm of the weights, on
    features of mean 0 and variance 1. All penalties come from one decomposition.

    Args:
        seed: of the inner folds.
        regularisation: a penalty, or several to choose from by squared error: on ``validation`` where ``fit``
            is given it, otherwise over five inner folds of whole groups. Of equally good ones the strongest
            wins.
        standardise: whether features are scaled to variance 1 while fitting (otherwise only centred).
    """

    kind: ClassVar[str] = "ridge-regression"

    def __init__(
        self, *, seed: int = 0, regularisation: Strengths = STRENGTHS, standardise: bool = True
    ) -> None:
        self.seed = seed
        self.regularisation = regularisation
        self.standardise = standardise

    def _solve(
        self,
        dense: Table,
        numbers: Numbers,
        units: Collection[Any],
        later: tuple[np.ndarray, np.ndarray] | None,
    ) -> tuple[Weights, dict[str, Any]]:
        several = penalties(self.regularisation)
        best = 0
        if len(several) > 1:
            errors = np.zeros(len(several))
            for fit_X, fit_y, held_X, held_y in self._trials(dense, numbers, units, later):
                spread = np.maximum(held_y.var(axis=0), 1e-300)  # so that every target counts alike
                for at, (coef, offset) in enumerate(self._path(fit_X, fit_y, several)):
                    errors[at] += (((held_X @ coef.T + offset - held_y) ** 2) / spread).sum()
            best = int(errors.argmin())
        return next(self._path(dense, numbers, several[best : best + 1])), {"regularisation": several[best]}

    def _trials(
        self,
        dense: np.ndarray,
        numbers: np.ndarray,
        units: Collection[Any],
        later: tuple[np.ndarray, np.ndarray] | None,
    ) -> list[Parts]:
        if later is not None:
            return [(dense, numbers, *later)]
        parts = [(np.setdiff1d(np.arange(len(dense)), held), held) for held in folds(units, seed=self.seed)]
        return [(dense[keep], numbers[keep], dense[held], numbers[held]) for keep, held in parts if len(keep)]

    def _path(self, dense: np.ndarray, numbers: np.ndarray, strengths: Sequence[float]) -> Iterator[Weights]:
        return ridge_path(dense, numbers, strengths, self.standardise)
