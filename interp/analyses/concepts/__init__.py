"""Concept probing: which concepts a Hyperdimensional Probe reads, under a protocol, against its controls."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.analyses.concepts.controls import CONTROLS
    from interp.analyses.concepts.reading import next_tokens, trained_probe
    from interp.analyses.concepts.result import ConceptResult
    from interp.analyses.concepts.run import probe_concepts
    from interp.analyses.concepts.vocabulary import codebook_of

_HOME = {
    "CONTROLS": "controls",
    "ConceptResult": "result",
    "codebook_of": "vocabulary",
    "next_tokens": "reading",
    "probe_concepts": "run",
    "trained_probe": "reading",
}

__all__ = ["CONTROLS", "ConceptResult", "codebook_of", "next_tokens", "probe_concepts", "trained_probe"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOME:
        known = ", ".join(__all__)
        raise AttributeError(f"module 'interp.analyses.concepts' has no attribute {name!r}; it has: {known}.")
    return getattr(import_module(f"interp.analyses.concepts.{_HOME[name]}"), name)
