"""The same model at another precision: schemes, quantized copies, and what survives in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.quantization.comparison import VERDICTS as VERDICTS
    from interp.quantization.comparison import Comparison as Comparison
    from interp.quantization.comparison import Judgement as Judgement
    from interp.quantization.comparison import compare as compare
    from interp.quantization.comparison import judge as judge
    from interp.quantization.integrity import Integrity as Integrity
    from interp.quantization.integrity import verify_quantization as verify_quantization
    from interp.quantization.quantizing import MODES as MODES
    from interp.quantization.quantizing import calibration_texts as calibration_texts
    from interp.quantization.quantizing import quantize as quantize
    from interp.quantization.schemes import SCHEMES as SCHEMES
    from interp.quantization.schemes import Scheme as Scheme

__getattr__, __dir__, __all__ = exports(__name__, {"examine": "verify_quantization"})
