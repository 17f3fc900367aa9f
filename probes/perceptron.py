"""A probe that is not linear: a multilayer perceptron, stopped early on data it was not fitted on.

It reads more than a linear probe, and stores more: compare it with the same perceptron on shuffled labels and
on the prompt's words before calling anything represented (Hewitt and Liang 2019).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any, ClassVar, TypeVar, final

import numpy as np
import torch
from scipy import special

from probes.arrays import Inputs, Labels, as_labels, as_matrix
from probes.base import Probe, Validation, check_seed
from probes.evaluation.splits import folds
from probes.fitting import Scaling, held_out

__all__ = ["MLPProbe"]

ThisProbe = TypeVar("ThisProbe", bound="MLPProbe")
Layers = list[tuple[np.ndarray, np.ndarray]]


@final
class MLPProbe(Probe):
    """Fit a perceptron with rectified units by Adam (scikit-learn's MLPClassifier), on standardised features.

    After every pass over the training data it is scored on held-out data, ``validation`` or a fifth of the
    groups; it stops after ``patience`` passes without a better accuracy, and keeps the best pass.

    Args:
        seed: of the weights, the order of examples and the held-out groups.
        hidden: units of each hidden layer.
        regularisation: ``regularisation / 2`` times the squared norm of the weights, per batch example.
        learning_rate: of Adam.
        max_epochs: passes at most.
        patience: passes without a better held-out accuracy.

    Attributes:
        classes_: the labels, sorted.
        layers_: (weights ``[dim unit]``, offsets ``[unit]``) of each layer, on raw activations.
        notes_: passes made, the best one, its held-out accuracy.
    """

    kind: ClassVar[str] = "mlp"
    classes_: np.ndarray
    layers_: Layers
    notes_: dict[str, Any]

    def __init__(
        self,
        *,
        seed: int = 0,
        hidden: tuple[int, ...] = (256,),
        regularisation: float = 1e-4,
        learning_rate: float = 1e-3,
        max_epochs: int = 200,
        patience: int = 10,
    ) -> None:
        self.seed = seed
        self.hidden = hidden
        self.regularisation = regularisation
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.patience = patience

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
            groups: what must not straddle the held-out part, one per example.
            validation: held-out ``(X, y)`` on which the number of passes is chosen.

        Raises:
            TypeError: X holds no numbers.
            ValueError: numbers that are not finite, lengths that differ, or one class.
        """
        check_seed(self.get_params())
        matrix = as_matrix(X)
        n, width = matrix.shape
        classes, codes = np.unique(as_labels(y, n), return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class, {classes.tolist()[0]!r}; a probe needs at least two to tell apart."
            )
        scaling = Scaling.of(matrix.dense, True)
        scaled = np.asarray(scaling.apply(matrix.dense))
        later = held_out(validation, classes, width)
        if later is None:
            train, judged = self._inner(scaled, codes, groups)
        else:
            rows, wanted = later
            dense = rows if isinstance(rows, np.ndarray) else rows.toarray()
            train, judged = (scaled, codes), (np.asarray(scaling.apply(dense)), wanted)
        layers, notes = self._trained(train, judged, len(classes))
        first = layers[0][0] / scaling.scale[:, None]
        layers[0] = (first, layers[0][1] - scaling.mean @ first)
        self.classes_, self.layers_, self.notes_ = classes, layers, notes
        return self

    def _inner(
        self, scaled: np.ndarray, codes: np.ndarray, groups: Collection[Any] | None
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Hold a fifth of the groups out; nothing where that would take a class away."""
        units = range(len(codes)) if groups is None else groups
        held = folds(units, seed=self.seed, stratify=codes)[0]
        keep = np.setdiff1d(np.arange(len(codes)), held)
        if len(np.unique(codes[keep])) < len(np.unique(codes)):
            return (scaled, codes), (scaled, codes)
        return (scaled[keep], codes[keep]), (scaled[held], codes[held])

    def _trained(
        self, train: tuple[np.ndarray, np.ndarray], judged: tuple[np.ndarray, np.ndarray], n_classes: int
    ) -> tuple[Layers, dict[str, Any]]:
        from sklearn.neural_network import MLPClassifier

        solver = MLPClassifier(
            tuple(self.hidden),
            alpha=self.regularisation,
            learning_rate_init=self.learning_rate,
            random_state=self.seed,
        )
        best, layers, at, epoch = -1.0, [], 0, 0
        for epoch in range(1, self.max_epochs + 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the batch is cut to the number of examples
                solver.partial_fit(*train, classes=np.arange(n_classes))
            weights: Any = zip(solver.coefs_, solver.intercepts_, strict=True)
            found = [(w.copy(), b.copy()) for w, b in weights]
            right = float(np.mean(_logits(judged[0], found).argmax(axis=1) == judged[1]))
            if right > best:
                best, layers, at = right, found, epoch
            elif epoch - at >= self.patience:
                break
        return layers, {"epochs": epoch, "best_epoch": at, "held_out_accuracy": best}

    def decision_function(self, X: Inputs) -> torch.Tensor | np.ndarray:
        """``[example label]`` scores before the softmax, in the order of ``classes_``."""
        self.require_fitted("layers_")
        matrix = as_matrix(X, width=self.width)
        return matrix.back(_logits(matrix.dense, self.layers_))

    def predict_proba(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, X: Inputs
    ) -> torch.Tensor | np.ndarray:
        """``[example label]`` probabilities that add up to 1, in the order of ``classes_``."""
        self.require_fitted("layers_")
        matrix = as_matrix(X, width=self.width)
        return matrix.back(special.softmax(_logits(matrix.dense, self.layers_), axis=1))

    def predict(self, X: Inputs) -> np.ndarray:
        """The label with the highest score for every example."""
        self.require_fitted("layers_")
        dense = as_matrix(X, width=self.width).dense
        return self.classes_[_logits(dense, self.layers_).argmax(axis=1)]

    def score(self, X: Inputs, y: Labels) -> float:
        """The accuracy, from 0 to 1, over all examples."""
        predicted = self.predict(X)
        return float(np.mean(predicted == as_labels(y, len(predicted))))

    @property
    def width(self) -> int:
        """The number of columns the probe was fitted on."""
        self.require_fitted("layers_")
        return self.layers_[0][0].shape[0]

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights and offsets of each layer."""
        self.require_fitted("layers_")
        named = {
            f"weights_{at}": np.ascontiguousarray(weights) for at, (weights, _) in enumerate(self.layers_)
        }
        return named | {f"offsets_{at}": offsets for at, (_, offsets) in enumerate(self.layers_)}

    def facts(self) -> dict[str, Any]:
        """The classes and the notes of the fit."""
        self.require_fitted("layers_")
        return {"classes": self.classes_.tolist(), **self.notes_}

    def restore(self: ThisProbe, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ThisProbe:
        """Take back layers, classes and notes."""
        count = len(arrays) // 2
        self.layers_ = [(arrays[f"weights_{at}"], arrays[f"offsets_{at}"]) for at in range(count)]
        self.classes_ = np.array(facts["classes"])
        self.notes_ = {name: value for name, value in facts.items() if name != "classes"}
        return self


def _logits(values: np.ndarray, layers: Layers) -> np.ndarray:
    """Walk the layers; one output unit stands for the second of two classes."""
    for weights, offsets in layers[:-1]:
        values = np.maximum(values @ weights + offsets, 0)
    found = values @ layers[-1][0] + layers[-1][1]
    return np.hstack([-found / 2, found / 2]) if found.shape[1] == 1 else found
