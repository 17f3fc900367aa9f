"""How prompts are drawn: different ones, by a seed, until there are enough."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from interp.errors import ConfigError
from interp.tasks.prompts import Example, Labelled
from interp.tasks.splits import part_of
from interp.tasks.table import LABELLED, find
from interp.tasks.world import load_world

__all__ = ["distinct", "labelled"]

T = TypeVar("T")


def distinct(
    stream: Iterable[T | None], n: int, key: Callable[[T], Hashable], *, tries: int, stale: int | None = None
) -> list[T]:
    """The first ``n`` things of a stream that differ, or as many as there are within a fixed number of tries.

    Args:
        stream: what is drawn from; None stands for a try that gave nothing.
        n: how many are wanted.
        key: what must differ.
        tries: how many things are drawn at most.
        stale: after how many repeats in a row all there is has been seen.
    """
    found: dict[Hashable, T] = {}
    repeats = 0
    for _, one in zip(range(tries if n > 0 else 0), stream, strict=False):
        if one is None:
            continue
        repeats = repeats + 1 if key(one) in found else 0
        found.setdefault(key(one), one)
        if len(found) == n or repeats == stale:
            break
    return list(found.values())


def labelled(name: str, *, n: int | None = None, seed: int = 0) -> Labelled:
    """Draw the prompts of a bundled probing task.

    Args:
        name: a key of ``LABELLED``.
        n: how many prompts; the task's own number when left out.
        seed: which prompts are drawn; the split of a word never depends on it.

    Raises:
        ConfigError: there is no such task, or ``n`` is below 1.
    """
    task, world = find(name, LABELLED, "the tasks"), load_world()
    assert task.labels is not None
    wanted = task.n if n is None else n
    if wanted < 1:
        raise ConfigError(f"n={wanted} prompts asked; ask for at least 1.")
    stream = task.labels(world, random.Random(f"{name}-{seed}"))
    examples = distinct(stream, wanted, lambda example: example.prompt, tries=50 * wanted)
    groups = tuple(_subject(example) for example in examples)
    return Labelled(
        name=name,
        description=task.description,
        texts=tuple(example.prompt for example in examples),
        labels=tuple(example.label for example in examples),
        groups=groups,
        splits=tuple(part_of(group) for group in groups),
    )


def _subject(example: Example) -> str:
    """What a prompt is about, which must not straddle a split."""
    values = dict(example.variables)
    return (
        values.get("bridge")
        or values.get("noun")
        or values.get("c")
        or values.get("subject")
        or example.group
    )
