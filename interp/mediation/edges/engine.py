"""Run many circuits of edges on many prompts: planned into chunks, checked against the model's own runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError
from interp.mediation.batching import TOKENS
from interp.mediation.edges.blocks import Blocks
from interp.mediation.edges.graph import Edge, Graph
from interp.mediation.edges.run import Chunk, Runner, carriers_of
from interp.mediation.engine import Bill
from interp.models.forward import in_batches
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["CutRow", "EdgeEngine", "edge_logits"]

TOLERANCE = 1e-4
FLOATS = {"cpu": 1 << 26, "cuda": 1 << 29}
"""How many numbers a chunk may hold of what its writers changed and its readers get."""


Keep = Callable[[Sequence[int], Tensor], None]


@dataclass(frozen=True, eq=False)
class CutRow:
    """Which edges of one copy of a prompt carry the other prompt's value.

    Attributes:
        example: which prompt.
        cut: numbers of edges, as :meth:`Graph.indices` gives them; share the tensor between rows.
    """

    example: int
    cut: Int[Tensor, " edge"]


@dataclass(frozen=True, eq=False)
class _Needs:
    """What a set of cut edges costs: its first block, its writers, its most readers in one block."""

    start: int
    writers: frozenset[int]
    readers: int


@dataclass(eq=False)
class EdgeEngine:
    """Run copies of prompts with edges cut.

    Attributes:
        model: what is run.
        tokens: the prompts that are copied.
        graph: the model's writers and readers.
        bill: what was done so far.
    """

    model: Model
    tokens: Tokens
    graph: Graph
    bill: Bill = field(default_factory=Bill)
    _blocks: dict[int, Blocks] = field(default_factory=dict)
    _last: tuple[Any, Mapping[Site, Tensor], Runner] | None = None

    def logits(
        self, rows: Sequence[CutRow], other: Mapping[Site, Tensor], *, progress: bool = False
    ) -> Float[Tensor, "row vocab"]:
        """The fp32 logits after the last token of each copy.

        Args:
            rows: which edges are cut in which copy.
            other: carrier -> ``[example pos ...]``, what a cut edge carries, for every prompt.
            progress: show a progress bar.

        Raises:
            ModelError: edges of this model do not add up to its own runs.
        """
        found: dict[int, Tensor] = {}
        self.each(rows, other, lambda numbers, part: found.update(zip(numbers, part, strict=True)), progress)
        kept = [found[at] for at in range(len(rows))]
        return torch.stack(kept) if kept else torch.zeros(0, self.model.vocab_size)

    def each(
        self, rows: Sequence[CutRow], other: Mapping[Site, Tensor], keep: Keep, progress: bool = False
    ) -> None:
        """Run every copy and hand its fp32 logits over, chunk by chunk, so that they need not be kept.

        Args:
            rows: which edges are cut in which copy.
            other: as for :meth:`logits`.
            keep: called with numbers of rows and their logits ``[row vocab]``.
            progress: show a progress bar.
        """
        needs = {id(row.cut): self._needs(row.cut) for row in {id(row.cut): row for row in rows}.values()}
        groups: dict[int, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(self.tokens.lengths[row.example], []).append(at)
        for length, numbers in groups.items():
            examples = sorted({rows[at].example for at in numbers})
            runner = self._runner(length, examples, other)
            place = {example: at for at, example in enumerate(examples)}

            def run(batch: Sequence[int], runner: Runner = runner, place: dict[int, int] = place) -> None:
                order = sorted(batch, key=lambda at: needs[id(rows[at].cut)].start)
                keep(order, runner(self._chunk([rows[at] for at in order], needs, place)))

            before = runner.blocks.steps
            in_batches(list(self._batches(rows, numbers, needs, length)), run, progress=progress)
            self.bill.forwards += (runner.blocks.steps - before) / self.model.n_layers
        self.bill.rows += len(rows)

    def _needs(self, cut: Tensor) -> _Needs:
        width, last = len(self.graph.writers), self.model.n_layers
        if not len(cut):
            return _Needs(last, frozenset(), 0)
        layers = [last if r.layer is None else r.layer for r in self.graph.readers]
        readers = torch.unique(cut // width).tolist()
        count: dict[int, int] = {}
        for reader in readers:
            count[layers[reader]] = count.get(layers[reader], 0) + 1
        writers = frozenset(torch.unique(cut % width).tolist())
        return _Needs(min(count), writers, max(count.values()))

    def _batches(
        self, rows: Sequence[CutRow], numbers: Sequence[int], needs: Mapping[int, _Needs], length: int
    ) -> Iterator[list[int]]:
        """Group rows that start together and share writers, within the budgets of tokens and of memory."""
        kind = self.model.device.type
        most = max(1, TOKENS.get(kind, TOKENS["cpu"]) // length)
        room = FLOATS.get(kind, FLOATS["cpu"]) // (length * self.model.d_model)
        batch: list[int] = []
        writers: frozenset[int] = frozenset()
        readers = 0
        for at in sorted(numbers, key=lambda at: needs[id(rows[at].cut)].start):
            need = needs[id(rows[at].cut)]
            together, widest = writers | need.writers, max(readers, need.readers)
            if batch and (len(batch) >= most or (len(batch) + 1) * (len(together) + widest + 8) > room):
                yield batch
                batch, together, widest = [], need.writers, need.readers
            batch.append(at)
            writers, readers = together, widest
        if batch:
            yield batch

    def _chunk(self, rows: Sequence[CutRow], needs: Mapping[int, _Needs], place: Mapping[int, int]) -> Chunk:
        device, shape = self.model.device, (len(self.graph.readers), len(self.graph.writers))
        cut = torch.zeros(len(rows), shape[0] * shape[1], dtype=torch.bool, device=device)
        for at, row in enumerate(rows):
            cut[at, row.cut.to(device)] = True
        examples = torch.tensor([place[row.example] for row in rows], device=device)
        starts = torch.tensor([needs[id(row.cut)].start for row in rows])
        return Chunk(examples, starts, cut.view(len(rows), *shape))

    def _runner(self, length: int, examples: Sequence[int], other: Mapping[Site, Tensor]) -> Runner:
        key = (length, tuple(examples))
        if self._last is None or self._last[0] != key or self._last[1] is not other:
            self._last = (key, other, self._made(length, examples, other))
        return self._last[2]

    def _made(self, length: int, examples: Sequence[int], other: Mapping[Site, Tensor]) -> Runner:
        ids = [self.tokens.token_ids[at] for at in examples]
        self.bill.setup += len(ids)
        if length not in self._blocks:
            self._blocks[length] = Blocks.of(self.model, ids[0])
            self.bill.setup += 1
            if len(self._blocks) == 1:
                self._check(self._blocks[length], ids[0])
        index = torch.tensor(examples)
        short = {site: value[index.to(value.device), :length] for site, value in other.items()}
        return Runner.of(self.model, self.graph, self._blocks[length], ids, short)

    def _check(self, blocks: Blocks, ids: Sequence[int]) -> None:
        """Demand that no edge cut gives the model's own logits, and that other edges give another prompt's.

        In the second run every reader gets the other prompt's edges, and the logits get what the writers
        then write: all projections are computed from streams that were put together here.
        """
        there = (
            [ids[0], *reversed(ids[1:])]
            if len(set(ids[1:])) > 1
            else [(at + 1) % self.model.vocab_size for at in ids]
        )
        carriers = carriers_of(self.graph.writers)
        read = self.model.capture([there], [str(site) for site in carriers], "all")
        runner = Runner.of(
            self.model, self.graph, blocks, [ids], {site: read[str(site)] for site in carriers}
        )
        every = self.graph.mask(self.graph.edges)
        responding = every.clone()
        responding[-1, 1:] = False
        cut = torch.stack([responding, torch.zeros_like(every)]).to(self.model.device)
        found = runner(Chunk(torch.zeros(2, dtype=torch.long), torch.tensor([0, 0]), cut))
        wanted = self.model.logits([there, list(ids)]).to(found.device)
        self.bill.setup += 4 + blocks.steps / self.model.n_layers
        off = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
        self.bill.checked = max(self.bill.checked, off)
        allowed = TOLERANCE if self.model.dtype == torch.float32 else 0.05
        if not off <= allowed:
            raise ModelError(
                f"edges of {self.model.name!r} ({self.model.hf.config.model_type}) do not add up to its own "
                f"runs: the logits differ by {off:.1e} of their size (allowed: {allowed:.0e}). Use nodes "
                "(head.*, mlp_out.*) instead, and report the family."
            )


def edge_logits(
    model: Model, tokens: Tokens, other: Mapping[Site, Tensor], circuits: Sequence[Sequence[Edge]]
) -> Float[Tensor, "circuit example vocab"]:
    """Run circuits of edges on prompts: every edge outside a circuit carries the other prompt's value.

    Args:
        model: what is run.
        tokens: the prompts, such as ``pairs.clean``.
        other: carrier -> ``[example pos ...]``; see :func:`carriers_of`.
        circuits: the edges that are kept.

    Returns:
        The fp32 logits after the last token.

    Raises:
        SiteError: the model does not offer edges, or one of these.
        ModelError: its edges do not add up to its own runs.
    """
    graph = Graph.of(model)
    every = graph.mask(graph.edges)
    cuts = [
        (every & ~graph.mask(graph.select(list(kept)) if kept else ())).flatten().nonzero()[:, 0]
        for kept in circuits
    ]
    engine = EdgeEngine(model, tokens, graph)
    rows = [CutRow(example, cut) for cut in cuts for example in range(len(tokens))]
    return engine.logits(rows, other).unflatten(0, (len(cuts), len(tokens)))
