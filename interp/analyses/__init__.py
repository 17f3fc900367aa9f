"""Ready analyses: a model in, a result with its controls out. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.analyses.causal import CausalUse, causal_use
    from interp.analyses.concepts import ConceptResult, probe_concepts
    from interp.analyses.costs import cost
    from interp.analyses.hops import two_hop
    from interp.analyses.knowledge import recall
    from interp.analyses.outputs import behaviour
    from interp.analyses.patching import Patching, patch, patch_agreement
    from interp.analyses.probing import ProbeResult, probe
    from interp.analyses.similarity import geometry
    from interp.analyses.table import ANALYSES
    from interp.analyses.transfer import probe_transfer

__all__ = [
    "ANALYSES",
    "CausalUse",
    "ConceptResult",
    "Patching",
    "ProbeResult",
    "behaviour",
    "causal_use",
    "cost",
    "geometry",
    "patch",
    "patch_agreement",
    "probe",
    "probe_concepts",
    "probe_transfer",
    "recall",
    "two_hop",
]

_HOME = {
    "ANALYSES": "table",
    "CausalUse": "causal",
    "ConceptResult": "concepts",
    "Patching": "patching",
    "ProbeResult": "probing",
    "behaviour": "outputs",
    "causal_use": "causal",
    "cost": "costs",
    "geometry": "similarity",
    "patch": "patching",
    "patch_agreement": "patching",
    "probe": "probing",
    "probe_concepts": "concepts",
    "probe_transfer": "transfer",
    "recall": "knowledge",
    "two_hop": "hops",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(
            f"module 'interp.analyses' has no attribute {name!r}; it has: {', '.join(__all__)}."
        )
    return getattr(import_module(f"interp.analyses.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """Give the public names."""
    return sorted(__all__)
