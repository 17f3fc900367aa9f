"""One analysis at one precision: the verdicts, and what they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from interp.models.quantized import Quantization
from interp.quantization.comparison.verdicts import Judgement
from interp.quantization.integrity import Integrity
from interp.results.shapes import Table

__all__ = ["Cell", "Judged"]


@dataclass(frozen=True, eq=False, repr=False)
class Cell:
    """What one analysis of one model came to.

    Attributes:
        analysis: its name.
        scheme: at what precision, or the name of the other checkpoint; "" of the reference.
        judgements: one per finding; none of the reference.
        tables: of the analysis's result.
        quantization: what was done to the model; None for another checkpoint.
        integrity: whether it holds what it should.
        model: fingerprint of the reference.
        noise: of the reference's cell: finding -> kind -> noise floor.
        refused: why the analysis gave nothing, or "".
        missing: findings of the reference that the other model's result lacks.
        seconds: how long the analysis took.
        warnings: what a reader should know.
    """

    analysis: str
    scheme: str
    judgements: tuple[Judgement, ...] = ()
    tables: tuple[Table, ...] = ()
    quantization: Quantization | None = None
    integrity: Integrity | None = None
    model: str = ""
    noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refused: str = ""
    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


class Judged(NamedTuple):
    """A verdict with where it stands."""

    analysis: str
    scheme: str
    one: Judgement
