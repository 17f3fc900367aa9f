"""Which edges of a circuit lie on a path from the embedding to the logits; the others change nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from interp.mediation.edges.graph import Edge, Graph, Reader
from interp.sites import Site

__all__ = ["on_a_path"]

EMBED = Site("embed")
LOGITS = Reader("logits")


def on_a_path(graph: Graph, edges: Collection[Edge]) -> frozenset[Edge]:
    """Keep the edges that a path of these edges from ``embed`` to ``logits`` goes through.

    A circuit run gives the same without the others: what is fed by the other prompt alone writes what it
    writes there, and what nobody reads on does nothing. The MIB benchmark does not count them.

    Args:
        graph: which writer a reader belongs to.
        edges: a circuit.
    """
    written = _written(graph)
    given = list(edges)
    order = [given[at] for at in graph.indices(given).argsort().tolist()]
    fed: set[Site] = {EMBED}
    for edge in order:  # readers in order of execution, so that what feeds a writer has been met before it
        if edge.writer in fed:
            fed.update(written[edge.reader])
    used: set[Reader] = {LOGITS}
    read: set[Site] = set()
    for edge in reversed(order):
        if edge.reader in used or not read.isdisjoint(written[edge.reader]):
            used.add(edge.reader)
            read.add(edge.writer)
    return frozenset(edge for edge in order if edge.writer in fed and edge.reader in used)


def _written(graph: Graph) -> Mapping[Reader, tuple[Site, ...]]:
    """Give the writers that each reader feeds: a key-value group feeds all heads of the group."""
    heads: dict[int | None, list[Site]] = {}
    for writer in graph.writers:
        if writer.kind in ("head", "attn_out"):
            heads.setdefault(writer.layer, []).append(writer)
    found: dict[Reader, tuple[Site, ...]] = {LOGITS: ()}
    for reader in graph.readers:
        if reader.kind == "mlp":
            found[reader] = (Site("mlp_out", reader.layer),)
        elif reader.layer is not None:
            own = heads[reader.layer]
            share = len(own) // len(graph.at(reader.layer, reader.kind))
            start = (reader.index or 0) * share
            found[reader] = tuple(own[start : start + share] if share else own)  # attn_out is one for all
    return found
