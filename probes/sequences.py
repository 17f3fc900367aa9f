"""A probe of whole sequences: the scores of a linear probe at every selected token, pooled to one.

Where the weights of the pooling are fixed (mean, last, exponential), any linear probe learns from the pooled
states. Where they depend on the scores (max, rolling-max) or on a learned direction (attention), direction
and pooling are learned together: the pooled score predicts the label by a softmax. That is learning from
bags of which only the label is known (Dietterich, Lathrop and Lozano-Perez 1997; attention after Ilse,
Tomczak and Welling 2018, equation 8).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, TypeVar, final

import numpy as np
import torch
from scipy import special

from probes.arrays import Inputs, Labels, Matrix, as_labels, as_matrix
from probes.base import Probe, Validation, check_seed
from probes.evaluation.splits import folds
from probes.fitting import Strengths, penalties
from probes.linear import LinearProbe
from probes.multiple_instance import Bags, learned
from probes.pooling import Pooling, Sequences, read_pooling
from probes.table import PROBES

__all__ = ["SequenceProbe"]

ThisProbe = TypeVar("ThisProbe", bound="SequenceProbe")
STRENGTHS = (0.003, 0.03, 0.3)
LEARNED = "logistic"


@final
class SequenceProbe(Probe):
    """Score every selected token, and pool the scores of a prompt to one.

    It reads :class:`probes.pooling.Sequences`; a plain ``[example dim]`` table is one token per example. Of
    two labels there is one score, for ``positive_`` and against the other; of several there is one each.

    Args:
        pooling: a name of :data:`probes.pooling.POOLINGS`, with its size where it has one
            (``rolling-max:16``).
        base: the linear probe that learns from pooled states, where the pooling's weights are fixed.
        seed: of inner folds.
        regularisation: of the poolings that are learned: ``regularisation / 2`` times the squared norm of the
            weights, on features of variance 1, beside the mean cross-entropy (nats). Several are chosen from
            on held-out groups.
        positive: of two labels the one whose tokens are looked for; the one that fits better where left out.

    Attributes:
        classes_: the labels, sorted.
        positive_: the label that high scores stand for; of several labels the last.
        coef_: ``[output dim]``, in the units of the raw activations.
        intercept_: ``[output]``.
        query_: ``[dim]``, the direction of the keys; zeros where the pooling has none.
        notes_: facts about the fit.
    """

    kind: ClassVar[str] = "sequence"
    classes_: np.ndarray
    positive_: Any
    coef_: np.ndarray
    intercept_: np.ndarray
    query_: np.ndarray
    notes_: dict[str, Any]

    def __init__(
        self,
        *,
        pooling: str = "mean",
        base: str = LEARNED,
        seed: int = 0,
        regularisation: Strengths = STRENGTHS,
        positive: str | None = None,
    ) -> None:
        self.pooling = pooling
        self.base = base
        self.seed = seed
        self.regularisation = regularisation
        self.positive = positive

    def fit(
        self: ThisProbe,
        X: Sequences | Inputs,
        y: Labels,
        *,
        groups: Collection[Any] | None = None,
        validation: tuple[Sequences, Labels] | Validation | None = None,
    ) -> ThisProbe:
        """Learn from labelled sequences and give the probe itself.

        Args:
            X: sequences, or ``[example dim]`` of one token each.
            y: one label per sequence.
            groups: what must not straddle inner folds, one per sequence.
            validation: held-out sequences and labels on which the penalty is chosen.

        Raises:
            ValueError: an unknown pooling or base, one class, a positive label that there is not, or lengths
                that differ.
        """
        check_seed(self.get_params())
        pooling, data = self.check(), _sequences(X)
        labels = as_labels(y, len(data))
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class, {classes.tolist()[0]!r}; a probe needs at least two to tell apart."
            )
        if self.positive is not None and (len(classes) > 2 or self.positive not in classes.tolist()):
            raise ValueError(
                f"positive {self.positive!r} asked; it is one of two labels, and y holds: "
                f"{', '.join(map(str, classes.tolist()))}."
            )
        later = None if validation is None else (_sequences(validation[0]), np.asarray(list(validation[1])))
        units = list(range(len(data)) if groups is None else groups)
        self.classes_ = classes
        if pooling.row.fixed:
            self._fit_fixed(pooling, data, labels, units, later)
        else:
            self._fit_learned(pooling, data, labels, units, later)
        return self

    def check(self) -> Pooling:
        """Read the pooling, and refuse a base that cannot learn through it.

        Raises:
            ValueError: naming what is allowed.
        """
        pooling = read_pooling(self.pooling)
        row = PROBES.get(self.base)
        if row is None or not issubclass(row.load(), LinearProbe):
            known = [name for name, one in PROBES.items() if issubclass(one.load(), LinearProbe)]
            raise ValueError(f"base {self.base!r} asked; it is a linear probe, one of: {', '.join(known)}.")
        if not pooling.row.fixed and self.base != LEARNED:
            raise ValueError(
                f"pooling {self.pooling!r} learns its scores by logistic regression, and base {self.base!r} "
                "was asked; leave base out, or pool by mean, last or exponential."
            )
        return pooling

    def _fit_fixed(
        self,
        pooling: Pooling,
        data: Sequences,
        labels: np.ndarray,
        units: list[Any],
        later: tuple[Sequences, np.ndarray] | None,
    ) -> None:
        """Let the base probe learn from pooled states."""
        held = None if later is None else (_pooled(pooling, later[0]), later[1])
        given = {"regularisation": self.regularisation} if self._given else {}
        fitted = PROBES[self.base].create(seed=self.seed).set_params(**given)
        fitted.fit(_pooled(pooling, data), labels, groups=units, validation=held)
        coef, intercept = fitted.coef_, fitted.intercept_
        two = len(self.classes_) == 2
        at = 1 if self.positive is None else self.classes_.tolist().index(self.positive)
        if two:
            coef, intercept = coef[at : at + 1] - coef[1 - at], intercept[at : at + 1] - intercept[1 - at]
        self.positive_ = self.classes_.tolist()[at if two else -1]
        self.coef_, self.intercept_, self.notes_ = coef, intercept, dict(fitted.notes_)
        self.query_ = np.zeros(coef.shape[1])

    @property
    def _given(self) -> bool:
        """Whether one penalty was asked for, which a base probe that has one then takes."""
        return "regularisation" in PROBES[self.base].create().get_params() and np.isscalar(
            self.regularisation
        )

    def _fit_learned(
        self,
        pooling: Pooling,
        data: Sequences,
        labels: np.ndarray,
        units: list[Any],
        later: tuple[Sequences, np.ndarray] | None,
    ) -> None:
        """Learn scores and pooling together; of two labels either may be the one that is looked for."""
        names = self.classes_.tolist()
        either = names[-1:] if pooling.row.keyed else names[::-1]  # shares of keys serve both signs alike
        given = [self.positive] if self.positive is not None else either
        orders = [[other for other in names if other != one] + [one] for one in given]
        orders = orders if len(names) == 2 else [names]
        train, held = data, later
        strengths = penalties(self.regularisation)
        choosing = len(strengths) > 1 or len(orders) > 1
        if later is None and choosing:
            out = folds(units, seed=self.seed, stratify=labels)[0]
            keep = np.setdiff1d(np.arange(len(data)), out)
            if len(np.unique(labels[keep])) == len(names):
                train, held = data[keep], (data[out], labels[out])
        seen = labels if train is data else labels[keep]
        held = held or (train, seen)
        bags = [
            (order, Bags.of(pooling, train, seen, order), Bags.of(pooling, *held, order)) for order in orders
        ]
        fits = [(order, own, learned(own, strengths, judge, seed=self.seed)) for order, own, judge in bags]
        order, own, found = min(fits, key=lambda one: one[2].held_out)
        if train is not data:
            own = Bags.of(pooling, data, labels, order)
            found = learned(own, [found.strength], own, seed=self.seed, start=found)
        self.positive_ = order[-1]
        self.coef_, self.intercept_, self.query_ = own.raw(found)
        self.notes_ = {"regularisation": found.strength, "converged": found.converged}

    def token_scores(self, X: Sequences | Inputs) -> tuple[np.ndarray, np.ndarray]:
        """``[prompt pos output]`` scores and ``[prompt pos]`` keys of all tokens, else zeros."""
        self.require_fitted("coef_")
        data = _sequences(X, self.width)
        scores = data.states @ self.coef_.T + self.intercept_
        return np.where(data.valid[:, :, None], scores, 0.0), data.states @ self.query_

    def pooled(self, X: Sequences | Inputs) -> np.ndarray:
        """``[prompt output]`` scores of whole prompts: one for the positive label, or one for each label."""
        scores, keys = self.token_scores(X)
        return read_pooling(self.pooling)(scores, keys, _sequences(X).valid)

    def decision_function(self, X: Sequences | Inputs) -> torch.Tensor | np.ndarray:
        """``[prompt label]`` scores, in the order of ``classes_``; of two labels half the score each."""
        return self._back(X, self._both(self.pooled(X)))

    def predict_proba(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, X: Sequences | Inputs
    ) -> torch.Tensor | np.ndarray:
        """``[prompt label]`` probabilities: the softmax of the scores."""
        return self._back(X, special.softmax(self._both(self.pooled(X)), axis=1))

    def _both(self, scores: np.ndarray) -> np.ndarray:
        if len(self.classes_) > 2:
            return scores
        signs = [1.0 if name == self.positive_ else -1.0 for name in self.classes_.tolist()]
        return scores * np.array(signs) / 2

    def _back(self, X: Sequences | Inputs, found: np.ndarray) -> torch.Tensor | np.ndarray:
        return found if isinstance(X, Sequences) else as_matrix(X).back(found)

    def predict(self, X: Sequences | Inputs) -> np.ndarray:
        """The label with the highest score for every prompt."""
        pooled = self.pooled(X)
        return self.classes_[self._both(pooled).argmax(axis=1)]

    def score(self, X: Sequences | Inputs, y: Labels) -> float:
        """The accuracy, from 0 to 1, over all prompts."""
        predicted = self.predict(X)
        return float(np.mean(predicted == as_labels(y, len(predicted))))

    @property
    def width(self) -> int:
        """The number of columns the probe was fitted on."""
        self.require_fitted("coef_")
        return self.coef_.shape[1]

    def arrays(self) -> dict[str, np.ndarray]:
        """The coefficients, offsets and the query."""
        self.require_fitted("coef_")
        found = {"coef": self.coef_, "intercept": self.intercept_, "query": self.query_}
        return {name: np.ascontiguousarray(array) for name, array in found.items()}

    def facts(self) -> dict[str, Any]:
        """The labels, the positive one, and the notes of the fit."""
        self.require_fitted("coef_")
        return {"classes": self.classes_.tolist(), "positive": self.positive_, **self.notes_}

    def restore(self: ThisProbe, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ThisProbe:
        """Take back coefficients, labels and notes.

        Raises:
            ValueError: their shapes do not fit each other.
        """
        self.coef_, self.intercept_, self.query_ = (arrays[key] for key in ("coef", "intercept", "query"))
        outputs = 1 if len(facts["classes"]) == 2 else len(facts["classes"])
        if self.coef_.shape[:1] != (outputs,) or self.intercept_.shape != (outputs,):
            raise ValueError(f"{outputs} outputs, but coefficients of shape {self.coef_.shape}")
        self.classes_, self.positive_ = np.array(facts["classes"]), facts["positive"]
        self.notes_ = {name: value for name, value in facts.items() if name not in ("classes", "positive")}
        return self


def _sequences(X: Sequences | Inputs, width: int | None = None) -> Sequences:
    """Sequences; a table becomes one token each."""
    if not isinstance(X, Sequences):
        matrix: Matrix = as_matrix(X, width=width)
        return Sequences(matrix.dense[:, None], np.ones(matrix.shape[0], dtype=np.int64))
    if width is not None and X.shape[1] != width:
        raise ValueError(
            f"the sequences have {X.shape[1]} columns, but this probe was fitted on {width}; give it "
            "activations of the model and site it was trained on."
        )
    return X


def _pooled(pooling: Pooling, data: Sequences) -> np.ndarray:
    """``[prompt dim]`` weighted mean states of a pooling whose weights are fixed."""
    blank = np.zeros((*data.valid.shape, 1))
    return np.einsum("ntd,nt->nd", data.states, pooling.weights(blank, blank[:, :, 0], data.valid)[:, :, 0])
