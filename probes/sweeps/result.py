"""What a sweep returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probes.evaluation.splits import Split
from probes.statistics import BestOf, Estimate, best_of, bootstrap
from probes.statistics.groups import counted

if TYPE_CHECKING:
    import pandas

__all__ = ["Sweep"]


@dataclass(frozen=True, eq=False)
class Sweep:
    """The probes of every seed, layer and target, and what they score.

    For targets of 0 and 1 the score ``states @ coef + intercept`` is positive where 1 is predicted; for other
    numbers it is the prediction.

    Attributes:
        kind: a key of :data:`KINDS`.
        metric: ``accuracy`` for targets of 0 and 1, ``R^2`` for other numbers.
        layers: their names, in the order given.
        seeds: of the splits.
        targets: their names.
        coef: ``[seed layer target dim]``, in the units of the raw activations.
        intercept: ``[seed layer target]``.
        regularisation: ``[seed layer target]``, the penalty chosen; NaN for a kind without one.
        validation: ``[seed layer target]``.
        test: ``[seed layer target]``.
        reference: ``[seed target]``, what the majority (or the mean) of the training part scores on test.
        splits: the rows of each seed's parts.
        hits: per seed ``[layer target example]``: each test example's share of the score, their mean: 1 or 0
            for right or wrong, ``1 - error^2 / variance`` for numbers.
        reference_hits: per seed ``[target example]``: the same for the reference.
        groups: the group of each example.
    """

    kind: str
    metric: str
    layers: tuple[str, ...]
    seeds: tuple[int, ...]
    targets: tuple[str, ...]
    coef: Float[np.ndarray, "seed layer target dim"]
    intercept: Float[np.ndarray, "seed layer target"]
    regularisation: Float[np.ndarray, "seed layer target"]
    validation: Float[np.ndarray, "seed layer target"]
    test: Float[np.ndarray, "seed layer target"]
    reference: Float[np.ndarray, "seed target"]
    splits: tuple[Split, ...]
    hits: tuple[np.ndarray, ...]
    reference_hits: tuple[np.ndarray, ...]
    groups: tuple[Any, ...]

    def table(self) -> pandas.DataFrame:
        """One row per seed, layer and target."""
        import pandas

        rows = [
            {
                "seed": seed,
                "layer": layer,
                "target": target,
                "regularisation": self.regularisation[s, at, t],
                "validation": self.validation[s, at, t],
                "test": self.test[s, at, t],
                "reference": self.reference[s, t],
            }
            for s, seed in enumerate(self.seeds)
            for at, layer in enumerate(self.layers)
            for t, target in enumerate(self.targets)
        ]
        return pandas.DataFrame(rows)

    def curve(self, target: str | int = 0) -> pandas.DataFrame:
        """One row per layer: means over seeds, and the lowest and highest test score of any seed.

        Args:
            target: its name or column.
        """
        import pandas

        column = self._column(target)
        validation, test = self.validation[:, :, column], self.test[:, :, column]
        columns = {
            "validation": validation.mean(axis=0),
            "test": test.mean(axis=0),
            "test_low": test.min(axis=0),
            "test_high": test.max(axis=0),
            "reference": np.full(len(self.layers), self.reference[:, column].mean()),
        }
        return pandas.DataFrame(columns, index=pandas.Index(self.layers, name="layer"))

    def best(self, target: str | int = 0) -> dict[int, tuple[str, Estimate]]:
        """For each seed the layer chosen on validation and its score on test, interval over groups.

        The interval of an R^2 takes the variance of the test targets as known.

        Args:
            target: its name or column.

        Raises:
            ValueError: no such target, or the sweep had no validation part.
        """
        column = self._column(target)
        if np.isnan(self.validation[:, :, column]).any():
            raise ValueError(
                "the best layer is chosen on validation, and this sweep has no such part; give validation a "
                "share in fractions, or read curve() or best_of()."
            )
        found: dict[int, tuple[str, Estimate]] = {}
        for s, seed in enumerate(self.seeds):
            at = int(self.validation[s, :, column].argmax())
            names = [self.groups[row] for row in self.splits[s].test]
            estimate = bootstrap(self.hits[s][at, column], groups=names, seed=seed)
            found[seed] = self.layers[at], estimate
        return found

    def best_of(self, target: str | int = 0) -> dict[int, BestOf]:
        """For each seed the best layer *on test* and its p-value, corrected for the number of layers.

        The null is that no layer differs from the reference; see :func:`probes.statistics.best_of`.
        """
        column = self._column(target)
        found: dict[int, BestOf] = {}
        for s, seed in enumerate(self.seeds):
            names = [self.groups[row] for row in self.splits[s].test]
            scores = self.hits[s][:, column].astype(np.float64)
            references = np.broadcast_to(self.reference_hits[s][column], scores.shape).astype(np.float64)
            found[seed] = best_of(scores, references, groups=names, seed=seed)
        return found

    def _column(self, target: str | int) -> int:
        if isinstance(target, int) and 0 <= target < len(self.targets):
            return target
        if target in self.targets:
            return self.targets.index(str(target))
        raise ValueError(f"target {target!r} asked; the targets are: {', '.join(self.targets)}.")

    def __repr__(self) -> str:
        """What was swept, in one line."""
        sizes = {"seed": self.seeds, "layer": self.layers, "target": self.targets}
        shape = " x ".join(counted(len(held), name) for name, held in sizes.items())
        return f"Sweep({self.kind!r}, {shape}, mean test {self.metric} {self.test.mean():.3f})"
