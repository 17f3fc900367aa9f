"""The table of probes: one row each. A new probe is one class and one row here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

__all__ = ["PROBES", "ProbeRow"]


@dataclass(frozen=True)
class ProbeRow:
    """A kind of probe without loading it.

    Attributes:
        name: what users type (``--kind``).
        module: where its class is.
        class_name: the class.
        description: one line for ``interp ls probes``.
        probabilities: whether it has ``predict_proba``.
        most_classes: how many classes it can tell apart; ``None`` for any number.
        seeded: whether it makes random choices (the folds of an inner cross-validation), and so takes a seed.
        target: what it reads: ``class`` (one label), ``sequence`` (one label of many tokens), ``labels``
            (several), ``number``, or ``concept`` (one name of a codebook).
    """

    name: str
    module: str
    class_name: str
    description: str
    probabilities: bool = False
    most_classes: int | None = None
    seeded: bool = False
    target: str = "class"

    def load(self) -> type[Any]:
        """Import the class, a :class:`probes.Probe`."""
        return getattr(importlib.import_module(self.module), self.class_name)

    def create(self, *, seed: int = 0) -> Any:
        """Make an unfitted probe with its default parameters."""
        kind = self.load()
        return kind(seed=seed) if self.seeded else kind()


_ROWS = (
    ProbeRow(
        "logistic",
        "probes.linear",
        "LogisticProbe",
        "softmax regression on standardised features, penalty chosen on held-out data",
        probabilities=True,
        seeded=True,
    ),
    ProbeRow(
        "ridge",
        "probes.linear",
        "RidgeProbe",
        "least squares onto one column per class, in closed form, penalty chosen on held-out data",
        seeded=True,
    ),
    ProbeRow(
        "mean-difference",
        "probes.linear",
        "MeanDifferenceProbe",
        "the difference of two class means, threshold halfway",
        most_classes=2,
    ),
    ProbeRow(
        "whitened-mean-difference",
        "probes.linear",
        "WhitenedMeanDifferenceProbe",
        "the difference of two class means in units of the covariance within classes",
        most_classes=2,
    ),
    ProbeRow(
        "lda",
        "probes.linear",
        "LDAProbe",
        "linear discriminant analysis, one shrunk covariance for all classes",
    ),
    ProbeRow(
        "nearest-centroid",
        "probes.linear",
        "NearestCentroidProbe",
        "the class whose mean is nearest, on standardised features",
    ),
    ProbeRow(
        "mlp",
        "probes.perceptron",
        "MLPProbe",
        "a perceptron with one hidden layer, stopped early on held-out data",
        probabilities=True,
        seeded=True,
    ),
    ProbeRow(
        "sequence",
        "probes.sequences",
        "SequenceProbe",
        "a linear probe at every selected token of a sequence, its scores pooled to one",
        probabilities=True,
        seeded=True,
        target="sequence",
    ),
    ProbeRow(
        "multi-label",
        "probes.linear",
        "MultiLabelProbe",
        "one logistic probe per label, for examples that carry several",
        probabilities=True,
        seeded=True,
        target="labels",
    ),
    ProbeRow(
        "linear-regression",
        "probes.linear",
        "LinearRegressionProbe",
        "least squares onto numbers, without a penalty",
        target="number",
    ),
    ProbeRow(
        "ridge-regression",
        "probes.linear",
        "RidgeRegressionProbe",
        "least squares onto numbers, penalty chosen on held-out data",
        seeded=True,
        target="number",
    ),
    ProbeRow(
        "hyperdimensional",
        "probes.hyperdimensional.probe",
        "HyperdimensionalProbe",
        "a map into the concept space of a vector symbolic architecture, decoded to names",
        seeded=True,
        target="concept",
    ),
)

PROBES: dict[str, ProbeRow] = {row.name: row for row in _ROWS}
