"""The Hyperdimensional Probe: reduction of layers, encoders, decoding, and scores apart from decoding."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.hyperdimensional.decoding import Decodings, decode
    from probes.hyperdimensional.encoders import ENCODERS
    from probes.hyperdimensional.probe import HyperdimensionalProbe
    from probes.hyperdimensional.reduction import REDUCTIONS
    from probes.hyperdimensional.scoring import ConceptScores, constant_floor, evaluate, published_floors

_WHERE = {
    "ConceptScores": "scoring",
    "Decodings": "decoding",
    "ENCODERS": "encoders",
    "HyperdimensionalProbe": "probe",
    "REDUCTIONS": "reduction",
    "constant_floor": "scoring",
    "decode": "decoding",
    "evaluate": "scoring",
    "published_floors": "scoring",
}

__all__ = [
    "ENCODERS",
    "REDUCTIONS",
    "ConceptScores",
    "Decodings",
    "HyperdimensionalProbe",
    "constant_floor",
    "decode",
    "evaluate",
    "published_floors",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _WHERE:
        known = ", ".join(__all__)
        raise AttributeError(
            f"module 'probes.hyperdimensional' has no attribute {name!r}; its names: {known}"
        )
    value = getattr(importlib.import_module(f"probes.hyperdimensional.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Give the public names."""
    return sorted(__all__)
