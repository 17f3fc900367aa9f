"""Edges: what one part of a model adds to the residual stream, as another part reads it.

A *writer* adds to the stream (``embed``, ``head.3.1``, ``mlp_out.2``); a *reader* takes its input from it
(``q.5.2``, ``k.5.0``, ``v.5.0``, ``mlp.5``, ``logits``). The edge ``head.3.1->q.5.2`` is the part of what
``q.5.2`` reads that ``head.3.1`` wrote (Elhage et al. 2021; Conmy et al. 2023, 2304.14997). Keys and values
are read once per key-value group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp.errors import SiteError, counted
from interp.mediation.edges.edge import ARROW, PREFIX, Edge, Reader
from interp.models.model import Model
from interp.sites import Site

__all__ = ["Edge", "Graph", "Reader", "fed_by", "heads_add_up", "on_a_path"]


@dataclass(frozen=True, eq=False)
class Graph:
    """Every writer and reader of a model, and which reader can see which writer.

    Attributes:
        writers: in order of execution; a reader sees the first ``reach`` of them.
        readers: in order of execution.
        reach: per reader, how many writers come before it.
        note: what a user should know, or "".
    """

    writers: tuple[Site, ...]
    readers: tuple[Reader, ...]
    reach: tuple[int, ...]
    note: str = ""

    @classmethod
    def of(cls, model: Model) -> Graph:
        """Lay out the graph of a model.

        Raises:
            SiteError: the model does not offer a site that edges need; names the reason.
        """
        _check(model)
        additive = heads_add_up(model)
        note = (
            ""
            if additive
            else (
                f"{model.name!r} has a norm after attention, so its heads do not add up in the stream: "
                "the writer is the whole attn_out of a layer."
            )
        )
        heads = model.n_heads if additive else 0
        sizes = (model.n_layers, heads, model.n_heads, model.n_kv_heads)
        return _graph(*sizes, model.architecture.parallel, note)

    @classmethod
    def sized(cls, n_layers: int, n_heads: int, n_kv_heads: int, *, blocks: str = "sequential") -> Graph:
        """Lay out the graph of a model that is not there, from its sizes.

        Args:
            n_layers: blocks.
            n_heads: query heads per block.
            n_kv_heads: key-value heads per block.
            blocks: ``sequential`` or ``parallel``.
        """
        return _graph(n_layers, n_heads, n_heads, n_kv_heads, blocks == "parallel")

    @property
    def n_edges(self) -> int:
        """The number of edges."""
        return sum(self.reach)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge, in order of execution."""
        return tuple(self)

    def __iter__(self) -> Iterator[Edge]:
        """One edge after the other, reader by reader."""
        for reader, reach in zip(self.readers, self.reach, strict=True):
            for writer in self.writers[:reach]:
                yield Edge(writer, reader)

    @cached_property
    def _rows(self) -> dict[Reader, int]:
        return {reader: at for at, reader in enumerate(self.readers)}

    @cached_property
    def _columns(self) -> dict[Site, int]:
        return {writer: at for at, writer in enumerate(self.writers)}

    @cached_property
    def _places(self) -> dict[Edge, int]:
        """The number of every edge in the table of readers and writers."""
        width, columns = len(self.writers), self._columns
        return {edge: self._rows[edge.reader] * width + columns[edge.writer] for edge in self.edges}

    def __contains__(self, edge: object) -> bool:
        """Whether an edge exists here."""
        return edge in self._places

    def indices(self, edges: Sequence[Edge]) -> Int[Tensor, " edge"]:
        """``reader number * number of writers + writer number`` of each edge."""
        places = [self._places[edge] for edge in edges]
        return torch.tensor(places, dtype=torch.long)

    def mask(self, edges: Sequence[Edge]) -> Bool[Tensor, "reader writer"]:
        """Mark some edges in the table of all readers and writers."""
        table = torch.zeros(len(self.readers) * len(self.writers), dtype=torch.bool)
        table[self.indices(edges)] = True
        return table.view(len(self.readers), len(self.writers))

    def reaching(self, reader: Reader) -> tuple[Site, ...]:
        """The writers that a reader sees, in order of execution."""
        return self.writers[: self.reach[self._rows[reader]]]

    def at(self, layer: int, *kinds: str) -> list[int]:
        """The numbers of a block's readers of some kinds."""
        return [at for at, r in enumerate(self.readers) if r.layer == layer and r.kind in kinds]

    def select(self, asked: str | Edge | Sequence[str | Edge]) -> tuple[Edge, ...]:
        """Turn names and globs into edges, in order of execution and without repeats.

        Args:
            asked: ``edge.*`` for all, ``edge.head.3.*->*``, ``edge.*->logits``, ``head.3.1->q.5.2``, edges.

        Raises:
            SiteError: nothing matches; names the writers and readers there are.
        """
        given = [asked] if isinstance(asked, str | Edge) else list(asked)
        found: set[Edge] = set()
        for item in given:
            found.update([self._known(item)] if isinstance(item, Edge) else self._matching(item))
        if not found:
            raise SiteError(f"no edges asked. {self._there_are}")
        return tuple(sorted(found, key=self._places.__getitem__))

    def readers_of(self, asked: str | Sequence[str]) -> tuple[Reader, ...]:
        """Turn names and globs such as ``q.5.*`` or ``logits`` into readers.

        Raises:
            SiteError: nothing matches; names the readers there are.
        """
        return tuple(self._picked([asked] if isinstance(asked, str) else asked, self.readers, "reader"))

    def writers_of(self, asked: str | Site | Sequence[str | Site]) -> tuple[Site, ...]:
        """Turn names and globs such as ``head.5.*`` into writers.

        Raises:
            SiteError: nothing matches; names the writers there are.
        """
        given = [asked] if isinstance(asked, str | Site) else asked
        return tuple(self._picked([str(one) for one in given], self.writers, "writer"))

    def _picked(self, asked: Sequence[str], known: Sequence[Any], what: str) -> list[Any]:
        found: set[Any] = set()
        for text in asked:
            matching = [one for one in known if fnmatchcase(str(one), text.strip())]
            if not matching:
                raise SiteError(f"no {what} matches {text!r}. {self._there_are}")
            found.update(matching)
        return sorted(found)

    def _known(self, edge: Edge) -> Edge:
        if edge not in self:
            raise SiteError(f"there is no edge '{edge}': {self._why_not(edge)} {self._there_are}")
        return edge

    def _why_not(self, edge: Edge) -> str:
        if edge.at:
            return "the part of an edge at one position is scored, not cut: ask for the whole edge."
        if edge.writer in self._columns and edge.reader in self._rows:
            return "the reader comes before the writer, or beside it."
        return "its writer or its reader does not exist here."

    def _matching(self, text: str) -> list[Edge]:
        """Match ``[edge.]WRITER->READER``, either side a glob; ``edge.*`` is every edge."""
        body = text.strip().removeprefix(PREFIX)
        if body == "*":
            return list(self.edges)
        writer, arrow, reader = body.partition(ARROW)
        if not arrow:
            raise SiteError(
                f"cannot read the edge {text!r}: write edge.WRITER->READER, such as edge.head.3.*->logits, "
                f"or edge.* for all. {self._there_are}"
            )
        writers = set(self._picked([writer], self.writers, "writer"))
        found = [
            Edge(one, there)
            for there in self._picked([reader], self.readers, "reader")
            for one in self.writers[: self.reach[self._rows[there]]]
            if one in writers
        ]
        if not found:
            raise SiteError(f"no edge matches {text!r}: those readers come before those writers.")
        return found

    @property
    def _there_are(self) -> str:
        return f"Writers: {_kinds(self.writers)}. Readers: {_kinds(self.readers)}."

    def __repr__(self) -> str:
        """One line with its size."""
        return (
            f"Graph({counted(len(self.writers), 'writer')}, {counted(len(self.readers), 'reader')}, "
            f"{counted(self.n_edges, 'edge')})"
        )


def _kinds(items: Sequence[Site | Reader]) -> str:
    """Write ``head.0.0 ... head.2.3`` for each kind."""
    groups: dict[str, list[str]] = {}
    for item in items:
        groups.setdefault(item.kind, []).append(str(item))
    return ", ".join(names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}" for names in groups.values())


@lru_cache(maxsize=8)
def _graph(
    n_layers: int, written: int, n_heads: int, n_kv_heads: int, parallel: bool, note: str = ""
) -> Graph:
    """The one graph of these sizes: it has tens of thousands of edges, and every experiment asks for it."""
    writers: list[Site] = [Site("embed")]
    readers: list[Reader] = []
    reach: list[int] = []
    for layer in range(n_layers):
        before = len(writers)
        block = [
            Reader(kind, layer, at)
            for kind, n in zip("qkv", (n_heads, n_kv_heads, n_kv_heads), strict=True)
            for at in range(n)
        ]
        writers += [Site("head", layer, at) for at in range(written)] or [Site("attn_out", layer)]
        readers += [*block, Reader("mlp", layer)]
        reach += [before] * len(block) + [before if parallel else len(writers)]
        writers.append(Site("mlp_out", layer))
    return Graph(tuple(writers), (*readers, Reader("logits")), (*reach, len(writers)), note)


def heads_add_up(model: Model) -> bool:
    """Whether what attention adds to the stream is the sum of its heads, with no norm in between."""
    architecture = model.architecture
    if "head" in architecture.disabled or "attn_out" in architecture.disabled:
        return False
    layer = next(iter(architecture.anatomy.layers("head")))
    outer: nn.Module = architecture.module(layer, "attn_out", "attn_out")
    return any(module is architecture.module(layer, "out_projection", "z") for module in outer.modules())


def _check(model: Model) -> None:
    if model.backend is not None:
        raise SiteError(
            f"edges are run block by block, and the backend of {model.name!r} runs the whole model only. "
            "Load it without a backend."
        )
    needed = ["q", "k", "v", "z", "attn_out", "mlp_out", "final_norm"]
    if not model.architecture.parallel:
        needed.append("resid_mid")
    for kind in needed:
        if kind in model.architecture.disabled:
            raise SiteError(
                f"edges of {model.name!r} ({model.hf.config.model_type}) need '{kind}', which it does not "
                f"offer: {model.architecture.disabled[kind]} Use nodes (head.*, mlp_out.*) instead."
            )
    anatomy = model.anatomy
    lacking = next((kind for kind in needed if kind in dict(anatomy.some)), None)
    if lacking is not None or len({*anatomy.heads}) > 1 or len({*anatomy.kv_heads}) > 1:
        what = (
            f"'{lacking}' is in some of its layers only"
            if lacking
            else "its layers have other numbers of heads"
        )
        raise SiteError(
            f"edges of {model.name!r} ({model.hf.config.model_type}) need blocks that are alike, but {what}. "
            "Use nodes (head.*, mlp_out.*) instead."
        )


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
    written = fed_by(graph)
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


def fed_by(graph: Graph) -> Mapping[Reader, tuple[Site, ...]]:
    """The writers that each reader feeds: a key-value group feeds all heads of the group."""
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
