"""The hooked wrappers over Hugging Face models. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "BACKENDS": "backends",
    "FAMILIES": "families",
    "Family": "families",
    "Generation": "generation",
    "Intervention": "interventions",
    "Model": "model",
    "Run": "model",
    "Tokens": "tokens",
    "ModelLike": "loading",
    "as_model": "loading",
    "load": "loading",
}

__all__ = [
    "BACKENDS",
    "FAMILIES",
    "Family",
    "Generation",
    "Intervention",
    "Model",
    "ModelLike",
    "Run",
    "Tokens",
    "as_model",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'interp.models' has no attribute {name!r}")
    return getattr(import_module(f"interp.models.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
