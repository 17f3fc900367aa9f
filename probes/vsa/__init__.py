"""Vector symbolic architectures: names as long random vectors, and an algebra to join and part them.

>>> from probes.vsa import MAP, Codebook
>>> codebook = Codebook.random(MAP(4096), ["France", "Paris", "Japan", "Tokyo"], seed=0)
>>> bound = codebook.algebra.bind(codebook["France"], codebook["Paris"])
>>> codebook.top(codebook.algebra.unbind(bound, codebook["France"])[None], k=1).names
[('Paris',)]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.vsa import structures
    from probes.vsa.algebra import Algebra
    from probes.vsa.binary_spatter_code import BSC
    from probes.vsa.codebook import Codebook
    from probes.vsa.errors import CodebookError
    from probes.vsa.fourier_holographic import FHRR
    from probes.vsa.holographic import HRR
    from probes.vsa.multiply_add_permute import MAP
    from probes.vsa.ranking import Ranking
    from probes.vsa.structures import Targets
    from probes.vsa.table import ALGEBRAS

__all__ = [
    "ALGEBRAS",
    "BSC",
    "FHRR",
    "HRR",
    "MAP",
    "Algebra",
    "Codebook",
    "CodebookError",
    "Ranking",
    "Targets",
    "structures",
]

_WHERE = {
    "ALGEBRAS": "table",
    "Algebra": "algebra",
    "BSC": "binary_spatter_code",
    "Codebook": "codebook",
    "CodebookError": "errors",
    "FHRR": "fourier_holographic",
    "HRR": "holographic",
    "MAP": "multiply_add_permute",
    "Ranking": "ranking",
    "Targets": "structures",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name == "structures":
        return importlib.import_module("probes.vsa.structures")
    if name not in _WHERE:
        raise AttributeError(
            f"module 'probes.vsa' has no attribute {name!r}; its names: {', '.join(__all__)}"
        )
    value = getattr(importlib.import_module(f"probes.vsa.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Give the public names."""
    return sorted(__all__)
