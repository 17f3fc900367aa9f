"""Circuits of nodes or of edges: run alone, left out, beside random ones, and by size."""

from __future__ import annotations

from interp.mediation.circuits.controls import UNMATCHED
from interp.mediation.circuits.curve import COMPAT, FRACTIONS, Curve, curve
from interp.mediation.circuits.evaluation import Evaluation, evaluate
from interp.mediation.circuits.runs import nodes_of
from interp.mediation.circuits.selection import SELECTIONS, choose
from interp.mediation.circuits.transfer import CircuitTransfer, generality, selectivity

__all__ = [
    "COMPAT",
    "FRACTIONS",
    "SELECTIONS",
    "UNMATCHED",
    "CircuitTransfer",
    "Curve",
    "Evaluation",
    "choose",
    "curve",
    "evaluate",
    "generality",
    "nodes_of",
    "selectivity",
]
