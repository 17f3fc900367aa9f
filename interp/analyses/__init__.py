"""Ready analyses: a model in, a result with its controls out. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.analyses.causal import CausalUse, causal_use
    from interp.analyses.concepts import ConceptResult, probe_concepts
    from interp.analyses.patching import Patching, patch
    from interp.analyses.probing import ProbeResult, probe

__all__ = [
    "CausalUse",
    "ConceptResult",
    "Patching",
    "ProbeResult",
    "causal_use",
    "patch",
    "probe",
    "probe_concepts",
]

_HOME = {
    "CausalUse": "causal",
    "ConceptResult": "concepts",
    "Patching": "patching",
    "ProbeResult": "probing",
    "causal_use": "causal",
    "patch": "patching",
    "probe": "probing",
    "probe_concepts": "concepts",
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
