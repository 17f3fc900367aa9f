"""Several labels at once: one logistic probe per label, each with a penalty of its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, TypeVar, final

import numpy as np
import torch
from scipy import special

from probes.arrays import Inputs, Labels, as_indicators, as_matrix
from probes.base import Probe, Validation, check_seed
from probes.fitting import STRENGTHS, Strengths
from probes.linear import LogisticProbe

__all__ = ["MultiLabelProbe"]

ThisProbe = TypeVar("ThisProbe", bound="MultiLabelProbe")


@final
class MultiLabelProbe(Probe):
    """Say of every label whether it holds, independently (binary relevance).

    Args:
        seed: of the inner folds.
        regularisation: as for :class:`LogisticProbe`, chosen label by label.
        standardise: whether features are scaled to mean 0 and variance 1 while fitting.
        max_iterations: of each solver.

    Attributes:
        classes_: the labels, sorted; column numbers where y was a matrix.
        coef_: ``[label dim]``, in the units of the raw activations: the log odds of each label.
        intercept_: ``[label]``.
        notes_: the penalty of each label, and which did not converge.
    """

    kind: ClassVar[str] = "multi-label"
    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    notes_: dict[str, Any]

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
            y: ``[example label]`` of 0 and 1, or one collection of names per example.
            groups: what must not straddle inner folds, one per example.
            validation: held-out ``(X, y)`` on which the penalties are chosen, instead of inner folds.

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

    def decision_function(self, X: Inputs) -> torch.Tensor | np.ndarray:
        """Give ``[example label]`` log odds, in the order of ``classes_``, as X's kind of array."""
        self.require_fitted("coef_")
        matrix = as_matrix(X, width=self.width)
        return matrix.back(np.asarray(matrix.values @ self.coef_.T) + self.intercept_)

    def predict_proba(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, X: Inputs
    ) -> torch.Tensor | np.ndarray:
        """Give ``[example label]`` probabilities, each label's own; a row need not add up to 1."""
        self.require_fitted("coef_")
        matrix = as_matrix(X, width=self.width)
        return matrix.back(special.expit(np.asarray(matrix.values @ self.coef_.T) + self.intercept_))

    def predict(self, X: Inputs) -> np.ndarray:
        """Give ``[example label]`` of 0 and 1: a label holds where its probability is above a half."""
        self.require_fitted("coef_")
        found = np.asarray(as_matrix(X, width=self.width).values @ self.coef_.T) + self.intercept_
        return (found > 0).astype(np.int64)

    def score(self, X: Inputs, y: Labels) -> float:
        """Give the share of examples with every label right (as scikit-learn does for several labels)."""
        predicted = self.predict(X)
        truth = as_indicators(y, len(predicted), names=self.classes_.tolist())[0]
        return float(np.mean((predicted == truth).all(axis=1)))

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
        """Give the labels and the notes of the fit."""
        self.require_fitted("coef_")
        return {"classes": self.classes_.tolist(), **self.notes_}

    def restore(self: ThisProbe, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ThisProbe:
        """Take back coefficients, offsets, labels and notes."""
        self.coef_, self.intercept_ = arrays["coef"], arrays["intercept"]
        self.classes_ = np.array(facts["classes"])
        self.notes_ = {name: value for name, value in facts.items() if name != "classes"}
        if self.coef_.shape[0] != len(self.classes_) or self.intercept_.shape != self.classes_.shape:
            raise ValueError(f"{len(self.classes_)} labels, but coefficients of shape {self.coef_.shape}")
        return self
