"""MIB's circuit track both ways: its JSON read and written, and its metric on any model and search."""

from __future__ import annotations

from interp.mediation.mib.benchmark import LEVELS, MIB_TASKS, MIBScore, mib_score
from interp.mediation.mib.circuit_file import COPIES, MIBCircuit

__all__ = ["COPIES", "LEVELS", "MIB_TASKS", "MIBCircuit", "MIBScore", "mib_score"]
