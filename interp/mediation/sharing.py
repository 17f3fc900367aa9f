"""Walks that several processes share: each is made by whoever is free, and all read it from a folder.

Every process does the same call, in the same order. The holder makes the walks one after the other and takes
those that are there already; a helper makes others first, at random. A walk is the same batch of rows whoever
makes it, so that the numbers are those of one process, byte for byte. A lost or damaged one is made again.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.activations.files import read_facts, read_tensors, write_facts, write_tensors
from interp.errors import ArtifactError, out_of_memory
from interp.mediation.patches import Patch, Row

__all__ = ["Shared", "shared", "sharing"]

SCHEMA = "interp.walk/1"
Made = tuple[Tensor, float]
"""The last states of a walk, ``[row d_model]``, and the passes through blocks that it took."""


@dataclass(frozen=True, eq=False)
class Shared:
    """A folder of walks, as one process sees it.

    Attributes:
        folder: where they are.
        seed: of the order in which a helper makes them; None for the holder, who makes them in their order.
    """

    folder: Path
    seed: int | None = None
    _calls: Iterator[int] = field(default_factory=count)

    def call(self, about: Any, patch: Patch) -> str:
        """The name of a call: its number, what it is about, and the values that are put in."""
        found = hashlib.sha256(json.dumps([next(self._calls), about]).encode())
        for site, value in sorted(patch.values.items()):
            found.update(f"{site} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def names(
        self, call: str, walks: Sequence[Sequence[int]], rows: Sequence[Row]
    ) -> dict[Sequence[int], str]:
        """Of each walk the name of its file."""
        return {
            tuple(walk): hashlib.sha256(
                json.dumps(
                    [call, [(rows[at].example, [*map(str, rows[at].mediators)]) for at in walk]]
                ).encode()
            ).hexdigest()
            for walk in walks
        }

    def take(self, name: str) -> Made | None:
        """A walk that is there; None where it is not, or is damaged."""
        with suppress(ArtifactError):
            facts = read_facts(self.folder / f"{name}.json", SCHEMA)
            tensors = read_tensors(self.folder / f"{name}.safetensors", facts["file"], ["states"])
            return tensors["states"], facts["steps"]
        return None

    def give(self, name: str, made: Made) -> None:
        """Write a walk."""
        states, steps = made
        file = write_tensors(self.folder / f"{name}.safetensors", {"states": states})
        write_facts(self.folder / f"{name}.json", {"schema": SCHEMA, "file": file, "steps": steps})

    def ahead(self, names: dict[Sequence[int], str], make: Callable[[Sequence[int]], Made]) -> None:
        """As a helper, make the walks that are not there, at random, until all are."""
        if self.seed is None:
            return
        order = random.Random(self.seed).sample(list(names), len(names))
        for walk in order:
            if not (self.folder / f"{names[walk]}.json").is_file():
                try:
                    self.give(names[walk], make(walk))
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    return  # the call itself halves what does not fit


_HERE: ContextVar[Shared | None] = ContextVar("shared", default=None)


def shared() -> Shared | None:
    """The folder that walks are shared in; None outside of :func:`sharing`."""
    return _HERE.get()


@contextmanager
def sharing(folder: str | Path, *, seed: int | None = None) -> Iterator[Shared]:
    """Share the walks of what is patched inside the block.

    Args:
        folder: of one call alone: the same model, pairs and settings in every process.
        seed: of a helper, another one for each; None for the holder.
    """
    found = Shared(Path(folder), seed)
    token = _HERE.set(found)
    try:
        yield found
    finally:
        _HERE.reset(token)
