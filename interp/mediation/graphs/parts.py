"""The nodes and edges of an attribution graph, as they are saved and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from interp.errors import DataError

__all__ = ["KINDS", "Edge", "Joint", "Node", "carried"]

KINDS: dict[str, str] = {
    "embed": "the embedding of a token",
    "head": "one attention head at one token",
    "heads": "all other heads of a block at one token",
    "neuron": "one neuron of an MLP at one token",
    "feature": "one feature of a dictionary at one token",
    "rest": "all other neurons of an MLP at one token",
    "skip": "what the skip connection of a transcoder writes at one token",
    "error": "what the features of a layer leave out at one token",
    "output": "the answer",
}
SOLE = 0.99
"""The part of what a target reads from which on its source is all of it."""
FOLLOWED = ("head", "heads", "neuron", "feature", "rest")
"""Kinds whose own inputs are looked at; influence ends in the others."""


@dataclass(frozen=True)
class Node:
    """A node at one token.

    Attributes:
        name: such as ``head.5.3@4``: the site and the token, counted from 0.
        kind: a key of ``KINDS``.
        layer: its block; None of embeddings and outputs.
        index: of the head, neuron or feature; the token's id of an embedding or output.
        position: of the token.
        value: of a neuron or feature its activation; of others and an output what edges and bias add up to.
        influence: the share of the output's influence that goes through it.
        followed: whether its own inputs were looked at.
        effect: the change of the output when it is taken out of the running model; of this one prompt.
        promoted: tokens that what it writes raises most.
        bias: what of its value comes from no node.
    """

    name: str
    kind: str
    layer: int | None
    index: int | None
    position: int
    value: float
    influence: float
    followed: bool = False
    effect: float | None = None
    promoted: tuple[str, ...] = ()
    bias: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a kind that is none.

        Raises:
            DataError: names those there are.
        """
        if self.kind not in KINDS:
            raise DataError(f"node {self.name!r} is of kind {self.kind!r}; kinds: {', '.join(KINDS)}.")


@dataclass(frozen=True)
class Edge:
    """What one node adds to another's value, and what interventions made of it.

    Attributes:
        source: name of a node.
        target: name of a node.
        weight: what the source adds to the target's value, with attention and norms held.
        share: of the output's influence that goes through it.
        part: of all that the target reads, in absolute values, its bias included.
        predicted: the change of the target when the source is taken out (or exchanged), by its weight.
        held: that change where the source is missing in the target's own input alone.
        live: that change where it is missing in the running model.
    """

    source: str
    target: str
    weight: float
    share: float
    part: float = 0.0
    predicted: float | None = None
    held: float | None = None
    live: float | None = None

    def confirmed(self, of: str = "live") -> bool | None:
        """Whether the change has the predicted sign and between half and twice its size.

        None where nothing was tested, where the source is all that the target reads, so that taking it out
        could not fail, and where the other prompt leaves the source as it is.

        Args:
            of: ``live`` or ``held``.
        """
        found = self.live if of == "live" else self.held
        if found is None or self.predicted is None or self.part > SOLE:
            return None
        if abs(self.predicted) <= 1e-6 * abs(self.weight):
            return None
        return found * self.predicted > 0 and 0.5 <= found / self.predicted <= 2.0


@dataclass(frozen=True)
class Joint:
    """What tokens do to the output along all drawn paths at once, by a real intervention.

    Attributes:
        whole: the change of the output where they are taken out (or exchanged) for all that reads them.
        drawn: where they are for drawn edges alone, and every node on the way responds.
        random: the same of random graphs of whole paths, of as many edges.
    """

    whole: float
    drawn: float
    random: tuple[float, ...]

    @property
    def share(self) -> float:
        """The part of the whole change that drawn paths bring about."""
        return self._share(self.drawn)

    @property
    def chance(self) -> float:
        """The mean of how near random graphs come, as ``reached`` has it."""
        return fmean(self._near(one) for one in self.random) if self.random else 0.0

    @property
    def reached(self) -> float:
        """The share, what overshoots as what falls short by as much: 130% as 70%; never below 0."""
        return self._near(self.drawn)

    @property
    def p(self) -> float:
        """How often random graphs come as near: (b + 1) / (n + 1)."""
        return (sum(self._near(one) >= self.reached for one in self.random) + 1) / (len(self.random) + 1)

    def _share(self, change: float) -> float:
        return change / self.whole if self.whole else 0.0

    def _near(self, change: float) -> float:
        return max(0.0, 1 - abs(1 - self._share(change)))


def carried(nodes: Sequence[Node], edges: Sequence[Edge]) -> float:
    """The share of influence that edges alone carry from the outputs back to embeddings.

    Args:
        nodes: in order of execution: what reads stands after what it reads.
        edges: between them.
    """
    amounts = {one.name: one.influence if one.kind == "output" else 0.0 for one in nodes}
    into: dict[str, list[Edge]] = {}
    for edge in edges:
        into.setdefault(edge.target, []).append(edge)
    for node in reversed(nodes):
        for edge in into.get(node.name, []):
            amounts[edge.source] += amounts[node.name] * edge.part
    return sum((amounts[one.name] for one in nodes if one.kind == "embed"), 0.0)
