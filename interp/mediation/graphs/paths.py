"""Which nodes and edges are drawn: whole paths from tokens to the outputs, the heaviest first.

A path's influence is the product of its edges' parts. Taken one by one, the heaviest nodes need not be joined
to anything; paths are, so that what is drawn carries influence all the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.mediation.graphs.frozen import FrozenRun
from interp.mediation.graphs.influence import Flow, Key

__all__ = ["Pruned", "pruned", "random_paths"]

TRIED = 64
"""Paths that are looked at for one that fits into the nodes and edges that are left."""
Pair = tuple[int, Key]
"""A source, and what reads it."""


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
    """Draw the path that adds most to what drawn edges carry back to tokens, then the next.

    Args:
        run: whose parts.
        found: its flow.
        keep: the share of what reaches tokens at all that drawn edges carry, from which on no more is drawn.
        nodes: how many at most, outputs aside.
        edges: how many at most.
    """
    grown = _Grown(run, found)
    while grown.carried() < keep * found.ends["embed"]:
        path = grown.next(nodes, edges)
        if not path:
            break
        grown.add(path)
    drawn = sorted(
        ((s, t, grown.amount(t) * grown.part(s, t)) for s, t in grown.edges()), key=lambda e: -e[2]
    )
    total = float(found.influence.sum())
    places = sorted(grown.places)
    kept = float(found.influence[places].sum()) / total if total else 0.0
    return Pruned(tuple(places), tuple(drawn), kept)


@dataclass(eq=False)
class _Grown:
    """Paths drawn so far.

    Attributes:
        run: whose parts.
        found: its flow.
        into: target -> its drawn sources.
        places: sources that are drawn.
        best: ``[source]``, the influence of the heaviest path from it to a token, its own being 1.
        after: the next source on that path.
    """

    run: FrozenRun
    found: Flow
    into: dict[Key, set[int]] = field(default_factory=dict)
    places: set[int] = field(default_factory=set)
    best: Float[Tensor, " source"] = field(init=False)
    after: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the heaviest path of every source."""
        parts, found = self.run.sources.parts, self.found
        self.best = torch.zeros(len(parts), dtype=torch.float64)
        for at, part in enumerate(parts):
            if part.kind == "embed":
                self.best[at] = 1.0
            elif at in found.shares and len(found.shares[at]):
                rows = found.shares[at].double() * self.best[found.reaches[at]]
                self.after[at] = int(rows.argmax()) + found.reaches[at].start
                self.best[at] = rows.max()

    def edges(self) -> list[Pair]:
        """What is drawn."""
        return [(source, target) for target, some in self.into.items() for source in sorted(some)]

    def amount(self, key: Key) -> float:
        """The influence of a source or an output, over all paths."""
        return float(self.run.outputs.weights[-1 - key]) if key < 0 else float(self.found.influence[key])

    def part(self, source: int, target: Key) -> float:
        """The part of what a target reads that is a source's."""
        return float(self.found.shares[target][source - self.found.reaches[target].start])

    def add(self, path: list[Pair]) -> None:
        """Draw a path."""
        for source, target in path:
            self.into.setdefault(target, set()).add(source)
            self.places.add(source)

    def arrived(self) -> dict[Key, float]:
        """What drawn edges alone carry to each, from the outputs on."""
        outputs = [-1 - number for number in range(len(self.run.outputs.tokens))]
        found: dict[Key, float] = dict.fromkeys(sorted(self.places, reverse=True), 0.0)
        found = {key: self.amount(key) for key in outputs} | found
        for target in list(found):
            for source in self.into.get(target, ()):
                found[source] += found[target] * self.part(source, target)
        return found

    def carried(self) -> float:
        """What drawn edges alone carry to tokens."""
        parts = self.run.sources.parts
        return sum((v for at, v in self.arrived().items() if at >= 0 and parts[at].kind == "embed"), 0.0)

    def onward(self) -> Float[Tensor, " source"]:
        """Of each source what goes on to tokens: by drawn edges if it is drawn, else by its heaviest path."""
        found = self.best.clone()
        for at in sorted(self.places):
            if some := self.into.get(at):
                found[at] = sum(self.part(source, at) * float(found[source]) for source in some)
        return found

    def next(self, nodes: int, edges: int) -> list[Pair]:
        """The path that adds most, of those that fit: from what is drawn to a token, or to what is drawn."""
        onward, arrived, candidates = self.onward(), self.arrived(), []
        for target, amount in arrived.items():
            if target not in self.found.shares:
                continue
            reach = self.found.reaches[target]
            gains = amount * self.found.shares[target].double() * onward[reach]
            gains[[one - reach.start for one in self.into.get(target, ())]] = 0.0
            top = gains.topk(min(TRIED, len(gains)))
            candidates += [
                (gain, target, at + reach.start)
                for gain, at in zip(top.values.tolist(), top.indices.tolist(), strict=True)
                if gain > 0
            ]
        drawn = sum(map(len, self.into.values()))
        for _, target, source in sorted(candidates, key=lambda one: -one[0])[:TRIED]:
            path = self.path(target, source)
            fresh = {at for at, _ in path} - self.places
            if len(self.places) + len(fresh) <= nodes and drawn + len(path) <= edges:
                return path
        return []

    def path(self, target: Key, source: int) -> list[Pair]:
        """From a target by a source along its heaviest path, until what is drawn or a token."""
        found = [(source, target)]
        while source not in self.places and source in self.after:
            source, target = self.after[source], source
            found.append((source, target))
        return found


def random_paths(run: FrozenRun, found: Flow, edges: int, seed: int) -> list[Pair]:
    """Whole paths from the outputs to tokens, each step to any source that is read: the control.

    Args:
        run: whose parts.
        found: its flow.
        edges: how many in all, at most.
        seed: of the steps.
    """
    generator = torch.Generator().manual_seed(seed)
    parts, chosen = run.sources.parts, dict[Pair, None]()
    outputs = [-1 - number for number in range(len(run.outputs.tokens))]
    for step in range(10 * edges):
        key, path = outputs[step % len(outputs)], []
        while key in found.shares:
            free = found.shares[key].nonzero()[:, 0]
            if not len(free):
                break
            at = int(free[int(torch.randint(len(free), (1,), generator=generator))])
            path.append((at + found.reaches[key].start, key))
            key = path[-1][0]
        fresh = [one for one in path if one not in chosen]
        if key < 0 or parts[key].kind != "embed" or len(chosen) + len(fresh) > edges:
            continue
        chosen |= dict.fromkeys(fresh)
    return list(chosen)
