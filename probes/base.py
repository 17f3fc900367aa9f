"""The contract every probe keeps.

The constructor takes keyword arguments and only stores them; ``fit`` learns, names what it learned with a
trailing underscore and returns the probe; ``predict`` and ``score`` never learn. scikit-learn users know it,
and its ``clone`` works.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from probes.arrays import Inputs, Labels
from probes.cards import ProbeCard

__all__ = ["NotFittedError", "Probe", "Validation", "check_seed"]

ThisProbe = TypeVar("ThisProbe", bound="Probe")
"""The class of the probe a method is called on."""

Validation = tuple[Inputs, Labels]
"""Held-out examples and their labels, on which a probe may choose its penalty: never the test set."""


def check_seed(parameters: Mapping[str, Any]) -> None:
    """Refuse a seed that the generators would refuse.

    Raises:
        ValueError: it is not a whole number from 0 to 2**32 - 1.
    """
    seed = parameters.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r} asked; give a whole number from 0 to 4294967295.")


class NotFittedError(ValueError, AttributeError):
    """Report that a probe was asked for predictions before it was fitted."""


class Probe(ABC):
    """Read labels off activations.

    Subclasses are final. Their constructor stores its keyword arguments under the same names; everything that
    ``fit`` learns ends in an underscore.

    Attributes:
        kind: the probe's name in :data:`probes.PROBES`.
        card_: where a saved probe came from, after :func:`probes.load` or :meth:`save`.
    """

    kind: ClassVar[str]
    card_: ProbeCard

    @abstractmethod
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
            validation: held-out ``(X, y)`` on which parameters are chosen, instead of inner folds.
        """

    @abstractmethod
    def decision_function(self, X: Inputs) -> torch.Tensor | np.ndarray:
        """Give ``[example label]`` scores, higher is likelier, as X's kind of array."""

    @abstractmethod
    def predict(self, X: Inputs) -> np.ndarray:
        """Give the likeliest label of every example, as an array of labels."""

    @property
    def predict_proba(self) -> Any:
        """Give ``[example label]`` probabilities, where the probe has any: then this is a method.

        Raises:
            AttributeError: this kind of probe has none (so that ``hasattr`` tells, as in scikit-learn).
        """
        raise AttributeError(
            f"{type(self).__name__} has no probabilities; use decision_function for scores, "
            "or LogisticProbe for probabilities."
        )

    @abstractmethod
    def score(self, X: Inputs, y: Labels) -> float:
        """Give the accuracy, from 0 to 1, over all examples."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Give the number of columns the probe was fitted on."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Give everything learned that is an array of numbers, by name."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Give everything else that was learned, as plain JSON types."""

    @abstractmethod
    def restore(self: ThisProbe, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ThisProbe:
        """Take back what :meth:`arrays` and :meth:`facts` gave."""

    def parameters(self) -> dict[str, Any]:
        """Give the constructor's arguments as they are written to a saved probe: plain JSON types."""
        return self.get_params()

    def save_parts(self, folder: Path) -> None:
        """Write what is neither an array nor a plain fact beside the probe; most kinds have nothing."""
        return

    def load_parts(self, folder: Path, facts: dict[str, Any]) -> None:
        """Read back what :meth:`save_parts` wrote."""
        return

    def save(self, folder: str | Path, *, card: ProbeCard | None = None) -> Path:
        """Write ``probe.safetensors``, ``probe.json`` and a readable ``README.md`` to a folder.

        Args:
            folder: made if missing; a probe already there is replaced.
            card: what the probe was trained on and how it scored.

        Raises:
            NotFittedError: nothing was learned yet.
        """
        from probes import saving

        return saving.save(self, Path(folder), card or getattr(self, "card_", None) or ProbeCard())

    @classmethod
    def load(
        cls: type[ThisProbe],
        folder: str | Path,
        *,
        fingerprint: str | None = None,
        site: str | None = None,
        scheme: str | None = None,
        width: int | None = None,
        allow_mismatch: bool = False,
    ) -> ThisProbe:
        """Read a probe of this class back; see :func:`probes.load`.

        Raises:
            ProbeFileError: the files are missing, corrupt, of another kind of probe, or made for something
                else.
        """
        from probes import saving

        found = saving.load(
            folder,
            fingerprint=fingerprint,
            site=site,
            scheme=scheme,
            width=width,
            allow_mismatch=allow_mismatch,
        )
        return saving.require(found, cls, Path(folder))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the constructor's arguments by name (scikit-learn's protocol; ``deep`` changes nothing)."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self: ThisProbe, **params: Any) -> ThisProbe:
        """Replace constructor arguments by name (scikit-learn's protocol).

        Raises:
            ValueError: the probe has no such parameter.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                has = ", ".join(known) or "none"
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has: {has}.")
            setattr(self, name, value)
        return self

    def require_fitted(self, learned: str) -> None:
        """Raise unless ``fit`` has set the attribute ``learned``.

        Raises:
            NotFittedError: naming the class and the cure.
        """
        if learned not in vars(self):
            name = type(self).__name__
            raise NotFittedError(
                f"this {name} is not fitted yet; call its fit(X, y) first, or {name}.load(folder)."
            )

    @property
    def n_features_in_(self) -> int:
        """Give the number of columns the probe was fitted on, under scikit-learn's name."""
        return self.width

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn what kind of estimator this is."""
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags
        from sklearn.utils._tags import InputTags

        from probes.table import PROBES

        row = PROBES[self.kind]
        number = row.target == "number"
        return Tags(
            estimator_type="regressor" if number else "classifier",
            target_tags=TargetTags(required=True, multi_output=number),
            classifier_tags=None
            if number
            else ClassifierTags(multi_class=row.most_classes is None, multi_label=row.target == "labels"),
            regressor_tags=RegressorTags() if number else None,
            transformer_tags=None,
            input_tags=InputTags(sparse=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn whether ``fit`` was called."""
        return any(name.endswith("_") for name in vars(self))

    def __repr__(self) -> str:
        """Give the call that makes an unfitted copy."""
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"
