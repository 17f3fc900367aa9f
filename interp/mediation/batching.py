"""Which rows are run together and from which position on: the cheapest way under a model of the cost.

A row must be run from its first changed position and its first changed layer on. Rows of one walk share the
position they begin at, so that a walk costs its rows more than they need; every walk costs a call of every
block, however few its rows. Rows join a walk at their own layer at no cost. The best division of the sorted
positions into walks is found by dynamic programming.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from interp.errors import ConfigError
from interp.models.forward import most_prompts
from interp.models.model import Model

__all__ = ["DIVISIONS", "Costs", "Need", "Plan", "Walk", "planned"]

TOKENS = {"cpu": 4096, "cuda": 131072}
"""Tokens of one walk: on CPU about what stays in the cache."""
ROOM = 1 << 30
"""Bytes of intermediate values of one walk, on CPU and where the device's memory is not known."""
SHARE = 8
"""On a GPU the intermediate values of one walk take at most this part of its memory."""
CALL = 5e6
"""Parameters times tokens whose products take as long as the Python of a block's call: measured."""
READ = 25
"""Tokens whose products take as long as reading a block's weights from memory: measured."""
FEWER = 8
"""By what a walk is smaller in another layout of batches."""
LENT = 0.05
"""What a position whose keys and values are lent costs, as a share of one that is run."""
MOST = 48


@dataclass(frozen=True)
class Costs:
    """What the cost of a walk depends on, in passes of one token through one block.

    Attributes:
        depth: number of blocks.
        call: of calling a block at all.
        tokens: most tokens of one walk, so that its intermediate values fit beside the weights.
    """

    depth: int
    call: float
    tokens: int

    @classmethod
    def of(cls, model: Model) -> Costs:
        """Estimate them from the number of parameters of a block and the kind of device."""
        size = sum(p.numel() for p in model.architecture.blocks[0].parameters())
        tokens = min(TOKENS.get(model.device.type, 4096), max(1, _room(model.device) // _per_token(model)))
        tokens = tokens if most_prompts() is None else max(1, tokens // FEWER)
        return cls(model.n_layers, READ + CALL / max(size, 1), tokens)


def _room(device: torch.device) -> int:
    """Bytes that intermediate values may take; of a GPU's whole memory, so that plans do not vary."""
    if device.type != "cuda":
        return ROOM
    return int(torch.cuda.get_device_properties(device).total_memory) // SHARE


def _per_token(model: Model) -> int:
    """Bytes of intermediate values of one token in one block, roughly: streams, projections, the MLP."""
    return model.dtype.itemsize * (6 * model.d_model + 3 * model.d_mlp)


@dataclass(frozen=True)
class Need:
    """What one row needs at least.

    Attributes:
        layer: the first block it must be run through; the number of blocks where none.
        position: the first position it must be run at.
    """

    layer: int
    position: int


@dataclass(frozen=True)
class Walk:
    """What is run together.

    Attributes:
        start: the first position that is run.
        rows: numbers of the rows, in order of the layers they join at.
    """

    start: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How rows are run.

    Attributes:
        walks: each row is in one of them.
        forwards: what they cost, in forward passes of one prompt through the whole model.
    """

    walks: tuple[Walk, ...]
    forwards: float


def planned(needs: Sequence[Need], length: int, costs: Costs, *, division: str = "auto") -> Plan:
    """Plan the walks of rows of one length.

    Args:
        needs: of every row.
        length: tokens of a prompt.
        costs: of walks.
        division: a key of ``DIVISIONS``: ``"auto"``, or a fixed one.

    Raises:
        ConfigError: an unknown division.
    """
    if division not in DIVISIONS:
        raise ConfigError(f"division {division!r} asked; there are: {', '.join(DIVISIONS)}.")
    order = sorted(range(len(needs)), key=lambda at: (needs[at].position, needs[at].layer, at))
    walks: list[Walk] = []
    work = 0.0
    starts = DIVISIONS[division]([needs[at] for at in order], length, costs)
    for start, end in pairwise([*starts, length]):
        here = (at for at in order if start <= needs[at].position < end)
        rows = sorted(here, key=lambda at: needs[at].layer)
        size = max(1, costs.tokens // (length - start))
        walks += [Walk(start, tuple(rows[at : at + size])) for at in range(0, len(rows), size)]
        work += sum(costs.depth - needs[at].layer for at in rows) * (length - start)
    return Plan(tuple(walks), work / (length * costs.depth))


def _whole(needs: Sequence[Need], length: int, costs: Costs) -> list[int]:
    """Run every row from the first position on."""
    return [0]


def _common(needs: Sequence[Need], length: int, costs: Costs) -> list[int]:
    """Run every row from the first position on that any needs."""
    return [needs[0].position]


def _each(needs: Sequence[Need], length: int, costs: Costs) -> list[int]:
    """Run every row from its own position on."""
    return sorted({need.position for need in needs})


def _cheapest(needs: Sequence[Need], length: int, costs: Costs) -> list[int]:
    """Divide the positions so that the modelled cost is least."""
    starts = _thinned(_each(needs, length, costs))
    group = np.searchsorted(starts, [need.position for need in needs], side="right") - 1
    count = np.bincount(group, minlength=len(starts)).astype(float)
    layers = np.array([need.layer for need in needs])
    passes = np.bincount(group, costs.depth - layers, minlength=len(starts))
    first = np.array([layers[group == at].min(initial=costs.depth) for at in range(len(starts))])
    best, cut = [0.0], [0]
    for end in range(1, len(starts) + 1):
        found = [
            best[at] + _cost(starts[at], length, _Sums.of(count, passes, first, slice(at, end)), costs)
            for at in range(end)
        ]
        cut.append(int(np.argmin(found)))
        best.append(float(min(found)))
    chosen, end = [], len(starts)
    while end:
        end = cut[end]
        chosen.append(starts[end])
    return chosen[::-1]


@dataclass(frozen=True)
class _Sums:
    """Rows of one start: how many, their passes through blocks, and the first block of any."""

    rows: float
    passes: float
    first: int

    @classmethod
    def of(cls, count: np.ndarray, passes: np.ndarray, first: np.ndarray, part: slice) -> _Sums:
        return cls(float(count[part].sum()), float(passes[part].sum()), int(first[part].min()))


def _cost(start: int, length: int, sums: _Sums, costs: Costs) -> float:
    """Model the cost of rows that begin at one position, in passes of a token through a block."""
    width = length - start
    walks = math.ceil(sums.rows * width / costs.tokens)
    return sums.passes * (width + LENT * start) + (walks * (costs.depth - sums.first) + 2) * costs.call


def _thinned(starts: list[int]) -> list[int]:
    """Keep at most ``MOST`` positions, the first among them."""
    step = -(-len(starts) // MOST)
    return starts[::step]


Division = Callable[[Sequence[Need], int, Costs], list[int]]
DIVISIONS: dict[str, Division] = {"auto": _cheapest, "common": _common, "each": _each, "whole": _whole}
"""Name -> from the needs, sorted by position, to the positions that walks begin at."""
