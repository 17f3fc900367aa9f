"""The table of algebras: a new one is one file and one row here."""

from __future__ import annotations

from probes.vsa.algebra import Algebra
from probes.vsa.binary_spatter_code import BSC
from probes.vsa.fourier_holographic import FHRR
from probes.vsa.holographic import HRR
from probes.vsa.multiply_add_permute import MAP

__all__ = ["ALGEBRAS"]

ALGEBRAS: dict[str, type[Algebra]] = {"MAP": MAP, "BSC": BSC, "HRR": HRR, "FHRR": FHRR}
