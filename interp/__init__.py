"""Interpretability for causal language models: every number with its control, its interval and its noise.

Importing this package loads nothing heavy; each name below is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports, quiet_imports
from interp._version import __version__

if TYPE_CHECKING:
    from interp import audit as audit
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
    from interp.models.sampling import Sampling as Sampling
    from interp.report import plot as plot
    from interp.report import show_tokens as show_tokens
    from interp.sites import Site as Site

quiet_imports()
__getattr__, _, _names = exports(__name__)
__all__ = ["__version__", *_names]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return list(__all__)
