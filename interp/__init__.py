"""Interpretability for causal language models: every number with its control, its interval and its noise.

Importing this package loads nothing heavy; each name below is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp import mediation as mediation
    from interp import quantization as quantization
    from interp import tasks as tasks
    from interp.activations import Activations as Activations
    from interp.analyses.concepts import probe_concepts as probe_concepts
    from interp.analyses.patching import patch as patch
    from interp.analyses.probing import probe as probe
    from interp.errors import InterpError as InterpError
    from interp.models.doctor import examine as examine
    from interp.models.interventions import Intervention as Intervention
    from interp.models.loading import load as load
    from interp.models.model import Model as Model
    from interp.report import plot as plot
    from interp.sites import Site as Site

__version__ = "0.1.0"

_HOME = {
    "Activations": "interp.activations",
    "Intervention": "interp.models",
    "InterpError": "interp.errors",
    "Model": "interp.models",
    "Site": "interp.sites",
    "examine": "interp.models.doctor",
    "load": "interp.models",
    "patch": "interp.analyses.patching",
    "plot": "interp.report",
    "probe": "interp.analyses.probing",
    "probe_concepts": "interp.analyses.concepts",
}
_MODULES = ("mediation", "quantization", "tasks")

__all__ = ["__version__", *sorted([*_HOME, *_MODULES])]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"interp.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'interp' has no attribute '{name}'; it has: {', '.join(__all__)}.")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return list(__all__)
