"""Seeded generators of prompts with known answers, and the bundled facts behind them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.tasks.files import read_labelled as read_labelled
    from interp.tasks.pairs import draw as draw
    from interp.tasks.pairs import sample as sample
    from interp.tasks.prompts import Example as Example
    from interp.tasks.prompts import Labelled as Labelled
    from interp.tasks.sampling import labelled as labelled
    from interp.tasks.splits import is_held_out as is_held_out
    from interp.tasks.table import LABELLED as LABELLED
    from interp.tasks.table import PAIR_TASKS as PAIR_TASKS
    from interp.tasks.table import TASKS as TASKS
    from interp.tasks.world import World as World
    from interp.tasks.world import load_world as load_world

_HOME = {
    "Example": "prompts",
    "LABELLED": "table",
    "Labelled": "prompts",
    "PAIR_TASKS": "table",
    "TASKS": "table",
    "World": "world",
    "draw": "pairs",
    "is_held_out": "splits",
    "labelled": "sampling",
    "load_world": "world",
    "read_labelled": "files",
    "sample": "pairs",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(
            f"module 'interp.tasks' has no attribute '{name}'; it has: {', '.join(__all__)}."
        )
    value = getattr(importlib.import_module(f"interp.tasks.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
