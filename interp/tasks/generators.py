"""The table of prompt generators: one row for each task."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from interp.tasks import (
    addition,
    agreement,
    analogy,
    greater_than,
    indirect_object,
    key_value,
    one_hop,
    patterns,
    two_hop,
)
from interp.tasks.examples import Example
from interp.tasks.splits import Split
from interp.tasks.world import World

__all__ = ["TASKS", "Generator", "Task"]

Generator = Callable[[World, random.Random, Split], Example]


@dataclass(frozen=True)
class Task:
    """Describe a generator of prompts with known answers."""

    name: str
    generate: Generator
    description: str


_ROWS = (
    Task("one-hop", one_hop.generate, "a fact in a sentence: the capital of France is -> Paris"),
    Task("analogy", analogy.generate, "two facts of one relation: Denmark : krone = Japan : -> yen"),
    Task("key-value", key_value.generate, "bindings that hold in the prompt only: a : x , b : y . a : -> x"),
    Task("pattern", patterns.generate, "repeating word patterns: a b a b a -> b"),
    Task("two-hop", two_hop.generate, "a fact about an entity that is only described"),
    Task("indirect-object", indirect_object.generate, "who receives what the repeated name gives"),
    Task("greater-than", greater_than.generate, "a year that comes after the year given"),
    Task("agreement", agreement.generate, "a verb that agrees with the subject, past an attractor"),
    Task("addition", addition.generate, "the sum of two numbers up to 49"),
)

TASKS: dict[str, Task] = {row.name: row for row in _ROWS}
