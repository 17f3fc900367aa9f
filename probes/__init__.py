"""Probes: read-outs of activations, what they must beat, and intervals for their scores.

Tensors in, tensors out: this package knows no model. Names load on first use; importing it loads neither
torch nor NumPy.

    >>> import probes
    >>> sorted(probes.PROBES)
    ['hyperdimensional', 'lda', 'linear-regression', 'logistic', 'mean-difference', 'mlp', 'multi-label',
    'nearest-centroid', 'ridge', 'ridge-regression', 'whitened-mean-difference']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes import controls, evaluation, hyperdimensional, statistics, sweeps, vsa
    from probes.base import NotFittedError, Probe
    from probes.cards import ProbeFileError
    from probes.discriminant import LDAProbe, WhitenedMeanDifferenceProbe
    from probes.hyperdimensional.probe import HyperdimensionalProbe
    from probes.linear import LogisticProbe, MeanDifferenceProbe, NearestCentroidProbe, RidgeProbe
    from probes.multilabel import MultiLabelProbe
    from probes.perceptron import MLPProbe
    from probes.regression import LinearRegressionProbe, RidgeRegressionProbe
    from probes.saving import load
    from probes.table import PROBES

__all__ = [
    "PROBES",
    "HyperdimensionalProbe",
    "LDAProbe",
    "LinearRegressionProbe",
    "LogisticProbe",
    "MLPProbe",
    "MeanDifferenceProbe",
    "MultiLabelProbe",
    "NearestCentroidProbe",
    "NotFittedError",
    "Probe",
    "ProbeFileError",
    "RidgeProbe",
    "RidgeRegressionProbe",
    "WhitenedMeanDifferenceProbe",
    "controls",
    "evaluation",
    "hyperdimensional",
    "load",
    "statistics",
    "sweeps",
    "vsa",
]

_WHERE = {
    "HyperdimensionalProbe": "probes.hyperdimensional.probe",
    "LDAProbe": "probes.discriminant",
    "LinearRegressionProbe": "probes.regression",
    "MLPProbe": "probes.perceptron",
    "MultiLabelProbe": "probes.multilabel",
    "RidgeRegressionProbe": "probes.regression",
    "LogisticProbe": "probes.linear",
    "MeanDifferenceProbe": "probes.linear",
    "NearestCentroidProbe": "probes.linear",
    "NotFittedError": "probes.base",
    "PROBES": "probes.table",
    "Probe": "probes.base",
    "ProbeFileError": "probes.cards",
    "RidgeProbe": "probes.linear",
    "WhitenedMeanDifferenceProbe": "probes.discriminant",
    "load": "probes.saving",
}
_MODULES = ("controls", "evaluation", "hyperdimensional", "statistics", "sweeps", "vsa")


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"probes.{name}")
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'probes' has no attribute {name!r}; its names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    """Give the public names."""
    return sorted(__all__)
