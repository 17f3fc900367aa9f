"""The same model at another precision: schemes, quantized copies, and what survives in them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Comparison": "comparison",
    "Integrity": "integrity",
    "examine": "integrity",
    "Judgement": "comparison",
    "MODES": "quantizing",
    "SCHEMES": "schemes",
    "Scheme": "schemes",
    "VERDICTS": "comparison",
    "calibration_texts": "calibration",
    "compare": "comparison",
    "judge": "comparison",
    "quantize": "quantizing",
}

__all__ = [
    "MODES",
    "SCHEMES",
    "VERDICTS",
    "Comparison",
    "Integrity",
    "Judgement",
    "Scheme",
    "calibration_texts",
    "compare",
    "examine",
    "judge",
    "quantize",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(
            f"module 'interp.quantization' has no attribute {name!r}; it has: {', '.join(__all__)}."
        )
    return getattr(import_module(f"interp.quantization.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """Give the public names."""
    return sorted(__all__)
