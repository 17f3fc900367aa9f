"""The table of backends: what can run captures, interventions and gradients."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from interp.models.architecture import Architecture
from interp.models.backends.base import Backend

__all__ = ["BACKENDS", "BackendRow"]


@dataclass(frozen=True)
class BackendRow:
    """Describe one backend.

    Attributes:
        name: how users ask for it.
        description: what it does, and when to use it.
        adapter: the module whose ``made`` builds it; "" for the native hooks.
    """

    name: str
    description: str
    adapter: str = ""

    def make(self, architecture: Architecture) -> Backend | None:
        """Build the backend for a model; None stands for the native one. The library is imported here.

        Raises:
            ModelError: the library cannot run this model.
        """
        return import_module(self.adapter).made(architecture) if self.adapter else None


BACKENDS = {
    row.name: row
    for row in (
        BackendRow("native", "PyTorch hooks on the Hugging Face model itself; the fastest, with every site"),
        BackendRow(
            "transformer-lens",
            "a TransformerLens bridge that shares the weights; to compare with work done in it",
            "interp.models.backends.transformer_lens",
        ),
        BackendRow(
            "nnsight",
            "nnsight traces on a model that shares the weights; importing nnsight changes Python globally",
            "interp.models.backends.nnsight",
        ),
    )
}
