"""One instance of every result class, by schema: what the test of all results walks over."""

from __future__ import annotations

from collections.abc import Callable

from interp.results import Result

__all__ = ["MAKERS"]

MAKERS: dict[str, Callable[[], Result]] = {}
"""Schema -> makes a small result of that class."""
