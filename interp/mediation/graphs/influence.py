"""How influence flows back from the outputs, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.mediation.graphs.frozen import FrozenRun, Reading

__all__ = ["Flow", "Key", "flow"]

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
        ends: where all of it ends, by kind: embed, error, bias, skip where there is one, and
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
    ends: dict[str, float] = dict.fromkeys(("embed", "error", "bias", "unfollowed"), 0.0)

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
