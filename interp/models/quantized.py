"""What quantization did to a model: the report that a quantized ``Model`` carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import ModelError

if TYPE_CHECKING:
    import pandas

__all__ = ["REQUESTED", "Quantization", "QuantizedModule"]

REQUESTED = "left out on request"
"""Why a module was skipped that the caller named."""


@dataclass(frozen=True)
class QuantizedModule:
    """Hold one quantized weight.

    Attributes:
        name: of the module in the Hugging Face model.
        group: weights along the input that share a scale; 0 for a whole row.
        bytes: what the weight takes now, scales included.
        error: ``|W - Wq| / |W|``, Frobenius norms.
    """

    name: str
    group: int
    bytes: int
    error: float


@dataclass(frozen=True, eq=False, repr=False)
class Quantization:
    """Hold what a quantized model was made of, and how far its weights are from the base's.

    Attributes:
        scheme: its name.
        mode: ``dense`` (the scheme's numbers in the model's own modules) or ``packed`` (the library's).
        modules: what was quantized, in the model's order.
        skipped: linear modules of the blocks that were not -> why.
        expected: linear modules in the blocks, and other matrices there, such as stacked experts.
        bytes_before: of all weights of the base.
        bytes_after: of all weights now: measured for packed modules, counted for dense ones (codes, scales
            and offsets as the scheme needs them).
        seconds: how long it took.
        asked: the group size that was asked; 0 for rows.
        calibration: texts, tokens and sha256 of what it was calibrated on; {} without.
        base: the fingerprint of the model it was made from.
        gradients: why gradients of it must not be believed, or "".
    """

    scheme: str
    mode: str
    modules: tuple[QuantizedModule, ...]
    skipped: Mapping[str, str]
    expected: int
    bytes_before: int
    bytes_after: int
    seconds: float
    asked: int = 0
    calibration: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    gradients: str = ""

    @property
    def quantized(self) -> tuple[str, ...]:
        """Give the names of the modules that were quantized."""
        return tuple(one.name for one in self.modules)

    @property
    def requested(self) -> tuple[str, ...]:
        """Give the names of the modules that were left out on request."""
        return tuple(name for name, why in self.skipped.items() if why == REQUESTED)

    @property
    def weight_error(self) -> float:
        """Give the mean relative error of the quantized weights; 0 where there are none."""
        return float(np.mean([one.error for one in self.modules])) if self.modules else 0.0

    @property
    def narrower(self) -> tuple[QuantizedModule, ...]:
        """Give the modules whose width the group asked does not divide, which have another."""
        return tuple(one for one in self.modules if one.group != self.asked)

    def table(self) -> pandas.DataFrame:
        """Give one row per linear module of the blocks: module, quantized, group, bytes, error, why."""
        import pandas

        rows: list[dict[str, Any]] = [
            {
                "module": m.name,
                "quantized": True,
                "group": m.group,
                "bytes": m.bytes,
                "error": m.error,
                "why": "",
            }
            for m in self.modules
        ]
        rows += [
            {"module": name, "quantized": False, "group": None, "bytes": None, "error": None, "why": why}
            for name, why in self.skipped.items()
        ]
        return pandas.DataFrame(rows, columns=["module", "quantized", "group", "bytes", "error", "why"])

    def to_dict(self) -> dict[str, Any]:
        """Give the numbers as JSON types, with one row per group size instead of one per module."""
        groups: dict[str, int] = {}
        for one in self.modules:
            groups[str(one.group or "row")] = groups.get(str(one.group or "row"), 0) + 1
        return {
            "scheme": self.scheme,
            "mode": self.mode,
            "quantized": len(self.modules),
            "expected": self.expected,
            "skipped": dict(self.skipped),
            "groups": groups,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "weight_error": self.weight_error,
            "largest_error": max((one.error for one in self.modules), default=0.0),
            "seconds": self.seconds,
            "calibration": dict(self.calibration),
            "base": self.base,
            "gradients": self.gradients,
        }

    def check_gradients(self, name: str) -> None:
        """Refuse gradients that would be silently wrong.

        Raises:
            ModelError: they would; the message says why, and what to do instead.
        """
        if self.gradients:
            raise ModelError(
                f"gradients of {name!r} at {self.scheme} ({self.mode}) asked, but {self.gradients}. Use "
                "mode='dense', whose gradients are exact, or a search without them, such as 'exhaustive'."
            )

    def __repr__(self) -> str:
        """Say in one line what was done."""
        ratio = self.bytes_after / max(1, self.bytes_before)
        return (
            f"Quantization({self.scheme}, {self.mode}: {len(self.modules)} of {self.expected} modules, "
            f"{self.bytes_before:,} -> {self.bytes_after:,} bytes ({ratio:.0%}), "
            f"weight error {self.weight_error:.2g}, {self.seconds:.1f} s)"
        )
