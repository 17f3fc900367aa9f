"""Readers: anything that turns states of a model into names, the likeliest first.

A reader is a name and a callable; ``READERS`` lists the ready ones (a lens, probes), each made for a model
and its layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.readers.reader import Reader as Reader

__getattr__, __dir__, __all__ = exports(__name__)
