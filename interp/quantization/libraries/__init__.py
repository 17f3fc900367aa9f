"""The libraries that quantize, one file each; imported on first use."""

from __future__ import annotations

from importlib import import_module

from interp.quantization.libraries.library import Job, Library, Packed
from interp.quantization.schemes import Scheme

__all__ = ["LIBRARIES", "Job", "Library", "Packed", "library_of"]

LIBRARIES: dict[str, str] = {
    "builtin": "interp.quantization.libraries.rounding",
    "hqq": "interp.quantization.libraries.half_quadratic",
    "torchao": "interp.quantization.libraries.torchao",
    "bitsandbytes": "interp.quantization.libraries.bitsandbytes",
    "gguf": "interp.quantization.libraries.gguf",
    "gptqmodel": "interp.quantization.libraries.gptqmodel",
}


def library_of(scheme: Scheme) -> Library:
    """The library of a scheme, without importing the package behind it."""
    return import_module(LIBRARIES[scheme.library]).library()
