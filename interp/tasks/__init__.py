"""Seeded generators of prompts with known answers, and the bundled facts behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.tasks.chains import read_chains as read_chains
    from interp.tasks.files import read_labelled as read_labelled
    from interp.tasks.own_facts import read_facts as read_facts
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

__getattr__, __dir__, __all__ = exports(__name__)
