"""Run any analysis of a model and of its quantized copies, and judge what survives."""

from __future__ import annotations

from interp.quantization.comparison.run import Comparable, compare
from interp.quantization.comparison.value import Comparison
from interp.quantization.comparison.verdicts import VERDICTS, Cell, Judgement, judge

__all__ = ["VERDICTS", "Cell", "Comparable", "Comparison", "Judgement", "compare", "judge"]
