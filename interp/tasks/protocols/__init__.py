"""Protocols: the prompts a concept probe is trained and tested on, and what it could know without a model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.tasks.protocols.items import Item as Item
    from interp.tasks.protocols.items import ProtocolItems as ProtocolItems
    from interp.tasks.protocols.table import PROTOCOLS as PROTOCOLS
    from interp.tasks.protocols.table import Protocol as Protocol

_HOME = {"Item": "items", "PROTOCOLS": "table", "Protocol": "table", "ProtocolItems": "items"}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOME:
        known = ", ".join(__all__)
        raise AttributeError(f"module 'interp.tasks.protocols' has no attribute '{name}'; it has: {known}.")
    return getattr(importlib.import_module(f"interp.tasks.protocols.{_HOME[name]}"), name)
