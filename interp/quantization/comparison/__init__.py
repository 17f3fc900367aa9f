"""Run any analysis of a model and of its quantized copies, and judge what survives."""

from __future__ import annotations

from interp.quantization.comparison.cells import Cell
from interp.quantization.comparison.run import Analysis, compare
from interp.quantization.comparison.value import Comparison
from interp.quantization.comparison.verdicts import VERDICTS, Judgement, judge

__all__ = ["VERDICTS", "Analysis", "Cell", "Comparison", "Judgement", "compare", "judge"]
