"""The table of selections: from effects to the circuit of a size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError, counted
from interp.mediation.edges.edge import Edge
from interp.mediation.edges.graph import EMBED, LOGITS, Graph, fed_by
from interp.mediation.effects import Effects
from interp.mediation.mediators import Members
from interp.mediation.rankings import sign_stability
from interp.models.loading import ModelLike, as_model

__all__ = ["SELECTIONS", "Selection", "choose"]

STABLE, POSITIVE = 0.95, 0.8
"""The share of draws in which a sign has to hold, and the share of a circuit that works for the answer."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """What is chosen from.

    Attributes:
        effects: of nodes or edges.
        means: of each, over pairs and directions.
        k: how many to choose, at most.
        graph: of the model, where edges are chosen.
        direction: of the effects; "" for both.
    """

    effects: Effects
    means: Float[np.ndarray, " member"]
    k: int
    graph: Graph | None
    direction: str = ""

    @property
    def order(self) -> list[int]:
        """The largest first, whichever way they work."""
        return np.argsort(-np.abs(self.means), kind="stable").tolist()


def _top(found: Candidates) -> list[int]:
    return found.order[: found.k]


def _signed(found: Candidates) -> list[int]:
    return np.argsort(-found.means, kind="stable")[: found.k].tolist()


def _stable(found: Candidates) -> list[int]:
    """The largest of those whose sign hardly depends on which groups were drawn."""
    share = sign_stability(found.effects, direction=found.direction)
    return [at for at in found.order if share[at] >= STABLE][: found.k]


def _ratio(found: Candidates) -> list[int]:
    """First the largest that work towards the answer, up to their share; then the largest of the rest."""
    first = [at for at in found.order if found.means[at] > 0][: round(POSITIVE * found.k)]
    return list(dict.fromkeys([*first, *found.order]))[: found.k]


def _greedy(found: Candidates) -> list[int]:
    """From the logits: the largest edge into what is read already, one after the other; then what is fed."""
    graph, edges = cast("Graph", found.graph), cast("tuple[Edge, ...]", found.effects.mediators)
    written = fed_by(graph)
    read: set[Any] = {LOGITS}
    chosen: list[int] = []
    waiting = list(found.order)
    while waiting and len(chosen) < found.k:
        at = next((at for at in waiting if edges[at].reader in read), None)
        if at is None:
            break
        waiting.remove(at)
        chosen.append(at)
        read |= {reader for reader, writers in written.items() if edges[at].writer in writers}
    return chosen


def _ilp(found: Candidates) -> list[int]:
    """The largest sum of absolute effects over all circuits whose every edge lies on a path.

    Binary ``z_e`` per edge and ``y_w`` per writer, maximise ``sum |s_e| z_e`` with ``sum z_e <= k``. An edge
    needs its writer, and one of the writers that its reader feeds; a writer needs an edge into what feeds it
    and an edge out of it. The graph has no circles, so this is a path from ``embed`` to ``logits`` through
    every edge.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    graph, edges = cast("Graph", found.graph), cast("tuple[Edge, ...]", found.effects.mediators)
    written = fed_by(graph)
    writers = {writer: len(edges) + at for at, writer in enumerate(w for w in graph.writers if w != EMBED)}
    rules: list[list[int]] = []  # each: the first number at most the sum of the others
    into: dict[Any, list[int]] = {writer: [] for writer in writers}
    out: dict[Any, list[int]] = {writer: [] for writer in writers}
    for at, edge in enumerate(edges):
        if edge.writer != EMBED:
            rules.append([at, writers[edge.writer]])
            out[edge.writer].append(at)
        if edge.reader != LOGITS:
            rules.append([at, *(writers[one] for one in written[edge.reader])])
        for one in written[edge.reader]:
            into[one].append(at)
    for writer, number in writers.items():
        rules += [[number, *into[writer]], [number, *out[writer]]]
    size = len(edges) + len(writers)
    entries = [
        (row, at, 1.0 if n == 0 else -1.0) for row, rule in enumerate(rules) for n, at in enumerate(rule)
    ]
    entries += [(len(rules), at, 1.0) for at in range(len(edges))]
    rows, columns, values = (np.array(one) for one in zip(*entries, strict=True))
    table = coo_array((values, (rows, columns)), shape=(len(rules) + 1, size)).tocsr()
    most: Any = np.zeros(len(rules) + 1)
    most[-1] = found.k
    gain = np.concatenate([-np.abs(found.means), np.zeros(len(writers))])
    limits = LinearConstraint(table, -np.inf, most)
    solved = milp(gain, integrality=np.ones(size), bounds=Bounds(0, 1), constraints=limits)
    if solved.x is None:
        raise ConfigError(
            f"selection 'ilp' of {counted(len(edges), 'edge')} found no circuit ({solved.message}). "
            "Select by 'greedy' or 'top'."
        )
    return np.flatnonzero(solved.x[: len(edges)] > 0.5).tolist()


@dataclass(frozen=True)
class Selection:
    """A way to choose a circuit.

    Attributes:
        name: what users type (``--select``).
        description: one line.
        numbers: from candidates to the numbers of those chosen.
        connected: whether it needs edges, and a graph that they lie in: too slow to be done for every size.
    """

    name: str
    description: str
    numbers: Callable[[Candidates], list[int]]
    connected: bool = False


_ROWS = (
    Selection("top", "the largest effects, whichever way they work", _top),
    Selection("signed", "the largest effects towards the clean answer", _signed),
    Selection("stable", "the largest effects whose sign holds in 95% of draws of groups", _stable),
    Selection("ratio", "four in five towards the clean answer, then the largest of the rest", _ratio),
    Selection("greedy", "edges: from the logits, the largest into what is read already", _greedy, True),
    Selection("ilp", "edges: the largest sum of effects of any circuit of edges on a path", _ilp, True),
)

SELECTIONS: dict[str, Selection] = {row.name: row for row in _ROWS}
"""Bootstrap signs, the ratio and integer programming after 2510.25786."""


def choose(model: ModelLike, effects: Effects, k: int, by: str = "top", *, direction: str = "") -> Members:
    """Choose a circuit of at most k nodes or edges.

    Args:
        model: whose graph edges lie in.
        effects: what a search returned.
        k: how many.
        by: a key of ``SELECTIONS``.
        direction: of the effects; over both where left out.

    Raises:
        ConfigError: an unknown selection, one that needs edges, a k below 0, or a direction that was not run.
    """
    if by not in SELECTIONS:
        raise ConfigError(f"selection {by!r} asked; there are: {', '.join(SELECTIONS)}.")
    if k < 0:
        raise ConfigError(f"k={k} asked; it is how many to choose, from 0 on.")
    row, members = SELECTIONS[by], effects.mediators
    edges = bool(members) and isinstance(members[0], Edge)
    if row.connected and not edges:
        others = ", ".join(name for name, one in SELECTIONS.items() if not one.connected)
        raise ConfigError(
            f"selection {by!r} asked of nodes; it chooses edges that lie on a path. Search edge.*, or select "
            f"by one of: {others}."
        )
    graph = Graph.of(as_model(model)) if edges else None
    numbers = row.numbers(Candidates(effects, effects.mean(direction), k, graph, direction))
    return cast("Members", tuple(members[at] for at in numbers))
