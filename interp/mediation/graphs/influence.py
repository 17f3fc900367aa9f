"""How influence flows back from the outputs, and which nodes and edges carry most of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.mediation.graphs.frozen import FrozenRun, Reading

__all__ = ["Flow", "Pruned", "flow", "pruned"]

Key = int
"""A source by its place, an output by ``-1 - number``."""


@dataclass(frozen=True, eq=False)
class Flow:
    """The influence of every source, and where it ends.

    ``influence = sum over outputs of weight * row of (I - W)^-1``, where ``W[t, s]`` is ``|A[s -> t]|`` as a
    share of all that t reads, its bias included. The graph has no circles, so one sweep from the last block
    to the first gives it exactly.

    Attributes:
        influence: ``[source]``.
        shares: target -> ``[source]`` of its reach, the row of W.
        reaches: target -> the span of sources that it reads.
        ends: where all of it ends, by kind: embed, rest, error, bias, skip where there is one, and
            ``unfollowed`` for parts whose own inputs were not looked at; 1 in all.
    """

    influence: Float[Tensor, " source"]
    shares: Mapping[Key, Tensor]
    reaches: Mapping[Key, slice]
    ends: Mapping[str, float]


def flow(run: FrozenRun, *, least: float = 1e-5, most: int = 4000) -> Flow:
    """Follow influence back to where it ends.

    Args:
        run: whose parts.
        least: influence of a part from which on its inputs are looked at.
        most: how many parts are: shared out evenly over the blocks, those with most influence first.
    """
    parts, orders = run.sources.parts, run.sources.orders
    influence = torch.zeros(len(parts), dtype=torch.float64)
    shares: dict[Key, Tensor] = {}
    reaches: dict[Key, slice] = {}
    ends: dict[str, float] = dict.fromkeys(("embed", "rest", "error", "bias", "unfollowed"), 0.0)

    def follow(key: Key, reading: Reading, amount: float) -> None:
        sizes = reading.weights.abs()
        whole = float(sizes.sum()) + abs(reading.bias)
        if whole == 0.0:
            ends["bias"] += amount
            return
        row = (sizes / whole).cpu()
        shares[key], reaches[key] = row.float(), reading.reach
        influence[reading.reach] += amount * row
        ends["bias"] += amount * abs(reading.bias) / whole

    for number, weight in enumerate(run.outputs.weights.tolist()):
        follow(-1 - number, run.reading(number), weight)
    groups = sorted(set(orders), reverse=True)
    left = most
    for number, order in enumerate(groups):
        inside = [at for at, one in enumerate(orders) if one == order]  # none of them reads another
        inside.sort(key=lambda at: -float(influence[at]))
        room = -(-left // (len(groups) - number))
        for at in inside:
            part, amount = parts[at], float(influence[at])
            if not part.followed:
                ends[part.kind] = ends.get(part.kind, 0.0) + amount
            elif amount < least or room == 0:
                ends["unfollowed"] += amount
            else:
                follow(at, run.reading(part, kept=False), amount)
                room, left = room - 1, left - 1
    return Flow(influence, shares, reaches, ends)


@dataclass(frozen=True)
class Pruned:
    """What is drawn.

    Attributes:
        nodes: places of sources, in order of execution.
        edges: (source, target key, share of the influence), the largest first.
        kept: the share of all sources' influence that these nodes have.
    """

    nodes: tuple[int, ...]
    edges: tuple[tuple[int, Key, float], ...]
    kept: float


def pruned(run: FrozenRun, found: Flow, *, keep: float, nodes: int, edges: int) -> Pruned:
    """Keep the sources with most influence, and the edges between them that carry most of it.

    Args:
        run: whose parts.
        found: its flow.
        keep: share of the influence, of nodes and then of the edges between them.
        nodes: how many at most.
        edges: how many at most.
    """
    order = found.influence.argsort(descending=True)
    chosen = _until(found.influence[order], keep, nodes)
    kept = sorted(order[:chosen].tolist())
    places = set(kept)
    outputs = [-1 - number for number in range(len(run.outputs.tokens))]
    candidates = []
    for key in (*outputs, *kept):
        if key not in found.shares:
            continue
        reach = found.reaches[key]
        amount = float(run.outputs.weights[-1 - key]) if key < 0 else float(found.influence[key])
        row = found.shares[key]
        candidates += [
            (at, key, amount * share)
            for at in kept
            if reach.start <= at < reach.stop and (share := float(row[at - reach.start])) > 0
        ]
    candidates.sort(key=lambda one: -one[2])
    n = _until(torch.tensor([one[2] for one in candidates], dtype=torch.float64), keep, edges)
    drawn = tuple(candidates[:n])
    touched = {at for source, target, _ in drawn for at in (source, target)} & places
    total = float(found.influence.sum())
    return Pruned(
        tuple(sorted(touched)), drawn, float(found.influence[sorted(touched)].sum()) / total if total else 0.0
    )


def _until(values: Tensor, keep: float, most: int) -> int:
    """How many of these, the largest first, make up a share of all; only those above 0."""
    total = float(values.sum())
    if total == 0.0:
        return 0
    n = int((values.cumsum(0) < keep * total).sum()) + 1
    return min(n, most, int((values > 0).sum()))
