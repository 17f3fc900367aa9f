"""Probes for numbers: least squares, with and without a penalty.

``predictions = X @ coef_.T + intercept_`` holds in the units of the raw activations, as for linear probes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, TypeVar, final

import numpy as np
import torch
from jaxtyping import Float64

from probes.arrays import Inputs, Labels, as_matrix, as_numbers
from probes.base import Probe, Validation, check_seed
from probes.evaluation.splits import folds
from probes.fitting import STRENGTHS, Scaling, Strengths, Weights, penalties

__all__ = ["LinearRegressionProbe", "RegressionProbe", "RidgeRegressionProbe"]

ThisProbe = TypeVar("ThisProbe", bound="RegressionProbe")
Table = Float64[np.ndarray, "example dim"]
Numbers = Float64[np.ndarray, "example target"]
Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Features and numbers to fit, features and numbers to judge on."""


class RegressionProbe(Probe):
    """Predict numbers by a linear function of the activations.

    Attributes:
        coef_: ``[target dim]``, in units of the target per unit of the raw activations.
        intercept_: ``[target]``.
        notes_: facts about the fit: the penalty chosen; whether y had one column.
    """

    coef_: np.ndarray
    intercept_: np.ndarray
    notes_: dict[str, Any]

    @abstractmethod
    def _solve(
        self,
        dense: Table,
        numbers: Numbers,
        units: Collection[Any],
        later: tuple[np.ndarray, np.ndarray] | None,
    ) -> tuple[Weights, dict[str, Any]]:
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
            y: one number per example, or ``[example target]``.
            groups: what must not straddle inner folds, one per example.
            validation: held-out ``(X, y)`` on which the penalty is chosen, instead of inner folds.

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

    def decision_function(self, X: Inputs) -> torch.Tensor | np.ndarray:
        """Give ``[example target]`` predictions, as X's kind of array."""
        self.require_fitted("coef_")
        matrix = as_matrix(X, width=self.width)
        return matrix.back(np.asarray(matrix.values @ self.coef_.T) + self.intercept_)

    def predict(self, X: Inputs) -> np.ndarray:
        """Give the predicted numbers, in the shape that y had in ``fit``."""
        self.require_fitted("coef_")
        found = np.asarray(as_matrix(X, width=self.width).values @ self.coef_.T) + self.intercept_
        return found[:, 0] if self.notes_["one_column"] else found

    def score(self, X: Inputs, y: Labels) -> float:
        """Give the coefficient of determination R^2, the mean over targets: 1 is exact, 0 is the mean's.

        A target that does not vary scores 0.
        """
        predicted = self.predict(X)
        truth = as_numbers(y, len(predicted)).reshape(len(predicted), -1)
        left = ((truth - predicted.reshape(truth.shape)) ** 2).sum(axis=0)
        spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
        return float(np.mean(np.where(spread > 0, 1 - left / np.where(spread > 0, spread, 1), 0.0)))

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
        """Give the notes of the fit; there are no classes."""
        self.require_fitted("coef_")
        return {"classes": [], **self.notes_}

    def restore(self: ThisProbe, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ThisProbe:
        """Take back coefficients, offsets and notes."""
        self.coef_, self.intercept_ = arrays["coef"], arrays["intercept"]
        self.notes_ = {name: value for name, value in facts.items() if name != "classes"}
        if self.intercept_.shape != self.coef_.shape[:1]:
            raise ValueError(f"coefficients of shape {self.coef_.shape}, offsets {self.intercept_.shape}")
        return self


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
        return self._path(dense, numbers, several[best : best + 1])[0], {"regularisation": several[best]}

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

    def _path(self, dense: np.ndarray, numbers: np.ndarray, strengths: Sequence[float]) -> list[Weights]:
        scaling = Scaling.of(dense, True)
        if not self.standardise:
            scaling = Scaling(scaling.mean, np.ones_like(scaling.scale))
        left, sizes, right = np.linalg.svd(np.asarray(scaling.apply(dense)), full_matrices=False)
        mean = numbers.mean(axis=0)
        projected = left.T @ (numbers - mean)
        return [
            scaling.folded(((right.T @ ((sizes / (sizes**2 + s * len(dense)))[:, None] * projected)).T, mean))
            for s in strengths
        ]
