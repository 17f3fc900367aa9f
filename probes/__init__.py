"""Probes: read-outs of activations, what they must beat, and intervals for their scores.

Tensors in, tensors out: this package knows no model. Names load on first use; importing it loads neither
torch nor NumPy.

    >>> import probes
    >>> sorted(probes.PROBES)
    ['hyperdimensional', 'lda', 'linear-regression', 'logistic', 'mean-difference', 'mlp', 'multi-label',
    'nearest-centroid', 'ridge', 'ridge-regression', 'sequence', 'whitened-mean-difference']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes._lazy import exports

if TYPE_CHECKING:
    from probes import controls as controls
    from probes import evaluation as evaluation
    from probes import hyperdimensional as hyperdimensional
    from probes import statistics as statistics
    from probes import sweeps as sweeps
    from probes import vsa as vsa
    from probes.base import NotFittedError as NotFittedError
    from probes.base import Probe as Probe
    from probes.base import load as load
    from probes.cards import ProbeFileError as ProbeFileError
    from probes.hyperdimensional.probe import HyperdimensionalProbe as HyperdimensionalProbe
    from probes.linear import LDAProbe as LDAProbe
    from probes.linear import LinearRegressionProbe as LinearRegressionProbe
    from probes.linear import LogisticProbe as LogisticProbe
    from probes.linear import MeanDifferenceProbe as MeanDifferenceProbe
    from probes.linear import MultiLabelProbe as MultiLabelProbe
    from probes.linear import NearestCentroidProbe as NearestCentroidProbe
    from probes.linear import RidgeProbe as RidgeProbe
    from probes.linear import RidgeRegressionProbe as RidgeRegressionProbe
    from probes.linear import WhitenedMeanDifferenceProbe as WhitenedMeanDifferenceProbe
    from probes.perceptron import MLPProbe as MLPProbe
    from probes.pooling import Sequences as Sequences
    from probes.sequences import SequenceProbe as SequenceProbe
    from probes.table import PROBES as PROBES

__getattr__, __dir__, __all__ = exports(__name__)
