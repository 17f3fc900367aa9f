"""The Hyperdimensional Probe: reduction of layers, encoders, decoding, and scores apart from decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes._lazy import exports

if TYPE_CHECKING:
    from probes.hyperdimensional.decoding import Decodings as Decodings
    from probes.hyperdimensional.decoding import decode as decode
    from probes.hyperdimensional.encoders import ENCODERS as ENCODERS
    from probes.hyperdimensional.probe import HyperdimensionalProbe as HyperdimensionalProbe
    from probes.hyperdimensional.reduction import REDUCTIONS as REDUCTIONS
    from probes.hyperdimensional.scoring import ConceptScores as ConceptScores
    from probes.hyperdimensional.scoring import constant_floor as constant_floor
    from probes.hyperdimensional.scoring import evaluate as evaluate
    from probes.hyperdimensional.scoring import published_floors as published_floors

__getattr__, __dir__, __all__ = exports(__name__)
