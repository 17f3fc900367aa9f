"""The circuit run: prompts whose readers get some edges from another prompt, exactly, many at once.

Each row is a copy of a prompt with a set of edges that are *cut*. Everything is computed anew: a reader gets

    stream(v) = the row's own stream before v + sum over cut edges u->v of (other(u) - own(u))

where ``own(u)`` is what the writer u adds in this very row and ``other(u)`` is what it adds in the other
prompt. With no edge cut that is the prompt's own run; with all of them cut it is the other prompt's (Conmy et
al. 2023, 2304.14997; Mueller et al. 2025, 2504.13151).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.mediation.edges.blocks import Blocks, contribution
from interp.mediation.edges.graph import Graph
from interp.models.hooks import Writer, evaluating
from interp.models.model import Model
from interp.sites import Site

__all__ = ["Chunk", "Runner", "carriers_of"]

Values = Mapping[Site, Tensor]
MORE_THAN = 2.0
"""Project head by head once there are more than this many distinct inputs per row."""


def carriers_of(writers: Sequence[Site]) -> list[Site]:
    """The sites whose values make up what some writers add."""
    return sorted({Site("z", one.layer) if one.kind == "head" else one for one in writers})


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that are run together, in the order in which they join.

    Attributes:
        examples: which prompt each row is a copy of.
        starts: the first block with a cut edge; the number of blocks where only the logits have one.
        cut: ``[row reader writer]``.
    """

    examples: Int[Tensor, " row"]
    starts: Int[Tensor, " row"]
    cut: Bool[Tensor, "row reader writer"]


@dataclass(eq=False)
class Runner:
    """Run copies of prompts of one length with edges cut.

    Attributes:
        model: what is run.
        graph: its writers and readers.
        blocks: its blocks, each part on its own.
        streams: ``[example pos d_model]`` before each block, and after the last, of the plain run.
        own: carrier -> ``[example pos ...]`` of the plain run.
        other: the same of the other prompts: what a cut edge carries.
    """

    model: Model
    graph: Graph
    blocks: Blocks
    streams: Sequence[Tensor]
    own: Values
    other: Values

    @classmethod
    def of(
        cls, model: Model, graph: Graph, blocks: Blocks, token_ids: Sequence[Sequence[int]], other: Values
    ) -> Runner:
        """Run the prompts once and keep their streams and what their writers add.

        Args:
            model: what is run.
            graph: its writers and readers.
            blocks: for prompts of this length.
            token_ids: prompts of one length.
            other: carrier -> ``[example pos ...]``, what a cut edge carries.
        """
        streams = [Site("resid_pre", layer) for layer in range(model.n_layers)]
        streams.append(Site("resid_post", model.n_layers - 1))
        carriers = list(other)
        read = model.capture(
            [list(ids) for ids in token_ids], [*map(str, streams), *map(str, carriers)], "all"
        )
        own = {site: read[str(site)] for site in carriers}
        return cls(model, graph, blocks, [read[str(site)] for site in streams], own, other)

    def __call__(self, chunk: Chunk) -> Float[Tensor, "row vocab"]:
        """The fp32 logits after the last token of each row."""
        used = chunk.cut.flatten(0, 1).any(dim=0).nonzero()[:, 0]
        last, starts = self.model.n_layers, chunk.starts.tolist()
        shape = self.streams[0].shape[1:]
        state = _State(
            writers=[self.graph.writers[at] for at in used.tolist()],
            cut=chunk.cut[:, :, used],
            examples=chunk.examples,
            hidden=self.streams[0][:0],
            change=self.streams[0].new_zeros(len(starts), len(used), *shape),
        )
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluating(self.model.architecture.modules))
            for layer in range(starts[0], last + 1):
                self._join(state, layer, sum(start == layer for start in starts))
                if layer < last:
                    state.hidden = self._block(state, layer)
            final = state.hidden[:, -1] + self._final_shift(state)
            return self.model.unembed(final)

    def _join(self, state: _State, layer: int, count: int) -> None:
        """Let rows start at a block, from the streams and writers of the plain run."""
        if not count:
            return
        rows = slice(len(state.hidden), len(state.hidden) + count)
        examples = state.examples[rows]
        state.hidden = torch.cat([state.hidden, self.streams[layer][examples]])
        for at, writer in enumerate(state.writers):
            if (writer.layer is None) or writer.layer < layer:
                state.change[rows, at] = contribution(self.model, writer, self.other, self.own)[examples]

    def _final_shift(self, state: _State) -> Tensor:
        return _weighted(state.cut[:, -1], state.change[:, :, -1:])[:, 0]

    def _block(self, state: _State, layer: int) -> Tensor:
        """Run one block for all rows that have joined; give their streams after it."""
        n = len(state.hidden)
        number = self.graph.at(layer, "mlp")[0]
        shifted = bool(state.cut[:n, number].any())
        mine = [writer.kind for writer in state.writers if writer.layer == layer]
        writers = self._attention_writers(state, layer)
        if not shifted and not mine:
            return self.blocks.call(layer, state.hidden, writers=writers)

        def middle(found: Values) -> Tensor | None:
            """Note what attention's writers changed; give what that adds to the MLP's input."""
            self._note(state, layer, found)
            return _weighted(state.cut[:n, number], state.change[:n]) if shifted else None

        kinds = ["attn_out", *(["z"] if "head" in mine else [])]
        found = self.blocks.parts(layer, state.hidden, kinds, writers, middle)
        self._note(state, layer, found)
        return state.hidden + found[Site("attn_out", layer)] + found[Site("mlp_out", layer)]

    def _note(self, state: _State, layer: int, found: Values) -> None:
        """Keep by how much the other prompt's writers differ from those just run."""
        rows = slice(len(state.hidden))
        for at, writer in enumerate(state.writers):
            if writer.layer != layer:
                continue
            [carrier] = carriers_of([writer])
            if carrier in found:
                there = {carrier: self.other[carrier][state.examples[rows]]}
                state.change[rows, at] = contribution(self.model, writer, there, found)

    def _attention_writers(self, state: _State, layer: int) -> list[Writer]:
        """Compute queries, keys and values anew where a row has an edge into them cut."""
        n, numbers = len(state.hidden), self.graph.at(layer, "q", "k", "v")
        cut = state.cut[:n, numbers]
        rows, columns = cut.any(dim=2).nonzero(as_tuple=True)
        if not len(rows):
            return []
        inputs, place = self._inputs(state, layer, rows, cut[rows, columns])
        by_head = len(inputs) > MORE_THAN * n
        new: dict[str, list[_New]] = {}
        whole: dict[str, Tensor] = {}
        for column, number in enumerate(numbers):
            mine = columns == column
            reader = self.graph.readers[number]
            if not bool(mine.any()):
                continue
            if by_head:
                site = Site(reader.kind, layer, reader.index)
                value = self.blocks.project(site, inputs[place[mine]])
            else:
                if reader.kind not in whole:
                    whole[reader.kind] = self.blocks.project(Site(reader.kind, layer), inputs)
                value = whole[reader.kind][place[mine], :, reader.index]
            new.setdefault(reader.kind, []).append(_New(rows[mine], reader.index or 0, value))
        locate = self.model.architecture.locate
        return [
            Writer(Site(kind, layer), locate(Site(kind, layer), write=True), partial(_put, entries))
            for kind, entries in new.items()
        ]

    def _inputs(self, state: _State, layer: int, rows: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct normed inputs of the readers of a block, and which of them each entry has."""
        keys = torch.cat([rows[:, None], cut.long()], dim=1)
        distinct, place = torch.unique(keys, dim=0, return_inverse=True)  # sorted by row
        row, mask = distinct[:, 0], distinct[:, 1:]
        present, counts = row.unique_consecutive(return_counts=True)
        slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts).repeat_interleave(
            counts
        )
        table = state.change.new_zeros(len(present), int(counts.max()), mask.shape[1])
        seat = torch.arange(len(present), device=row.device).repeat_interleave(counts)
        table[seat, slot] = mask.to(table.dtype)
        change = state.change[: len(state.hidden)]
        change = change if len(present) == len(change) else change[present]
        shift = torch.bmm(table, change.flatten(2))[seat, slot].unflatten(1, change.shape[2:])
        return self.blocks.normed(layer, state.hidden[row] + shift), place


@dataclass(eq=False)
class _State:
    """Where a chunk is on its way through the blocks.

    ``change`` is other less own, ``[row writer pos d_model]``, zero for writers still to come.
    """

    writers: list[Site]
    cut: Tensor
    examples: Tensor
    hidden: Tensor
    change: Tensor


@dataclass(frozen=True, eq=False)
class _New:
    """New values ``[entry pos d_head]`` of one head in some rows."""

    rows: Tensor
    head: int
    value: Tensor


def _put(entries: Sequence[_New], current: Tensor) -> Tensor:
    result = current.clone()
    for entry in entries:
        result[entry.rows, :, entry.head] = entry.value.to(result.dtype)
    return result


def _weighted(mask: Tensor, change: Tensor) -> Tensor:
    """Add up the changes of the cut writers, ``[row pos d_model]``."""
    return torch.bmm(mask[:, None].to(change.dtype), change.flatten(2))[:, 0].unflatten(1, change.shape[2:])
