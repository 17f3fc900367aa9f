"""Experiments on edges: exact by the circuit run, or estimated from gradients (EAP, EAP-IG).

The score of an edge u->v is ``sum over positions of (other(u) - own(u)) . gradient(v)``, where the gradient
is that of what v reads before its norm (Syed et al. 2023, 2310.10348; Hanna et al. 2024, 2403.17806). Heads
are kept as ``z``; one layer of them at a time is written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, ModelError
from interp.mediation.edges.blocks import Blocks, contribution
from interp.mediation.edges.edge import Edge
from interp.mediation.edges.engine import CutRow, EdgeEngine
from interp.mediation.edges.graph import Graph
from interp.mediation.edges.run import carriers_of
from interp.mediation.experiment import SIGNS, Estimates, Experiment, Forecast, Replaced, Sets, by_site
from interp.mediation.gradients import PER_PASS, gradients_at, need_gradient
from interp.mediation.patches import interchange
from interp.mediation.replacements import REPLACEMENTS
from interp.models.forward import gradients
from interp.models.hooks import evaluating
from interp.models.interventions import Intervention
from interp.sites import Site

__all__ = ["ALLOWED", "COMPAT", "PATHS", "EdgeExperiment", "ReaderSlopes", "Scores", "billed", "needed"]

PATHS: dict[str, str] = {
    "point": "at the run itself (EAP)",
    "inputs": "averaged along the line from one prompt's embeddings to the other's (EAP-IG, inputs)",
    "activations": "averaged along the line of each writer's own value (EAP-IG, activations)",
}
"""Where the gradient is taken."""
COMPAT: dict[str, str] = {
    "": "points in the middle of each step, whose error falls with the square of the number of steps",
    "mib": "what the code of EAP-IG does, which the MIB benchmark ranks by; see EdgeIntegratedGradients",
}
"""Where on each step of a path."""


@dataclass(frozen=True, eq=False)
class EdgeExperiment(Experiment):
    """An experiment whose mediators are edges, at all positions."""

    mediators: tuple[Edge, ...]
    graph: Graph
    over: ClassVar[str] = "edges"

    def __post_init__(self) -> None:
        """Refuse a replacement that is made of the value it replaces.

        Raises:
            ConfigError: names those that edges have.
        """
        if self.replacement.rule is not interchange:
            fit = [row.name for row in REPLACEMENTS.values() if row.rule is interchange]
            raise ConfigError(
                f"replacement {self.replacement.name!r} asked, but an edge carries a value of its own; "
                f"for edges there are: {', '.join(fit)}."
            )

    @classmethod
    def of(cls, asked: Experiment, edges: Sequence[Edge], graph: Graph) -> EdgeExperiment:
        """The same experiment on some edges instead of its own mediators."""
        measured = (asked.metric, asked.replacement, asked.directions, asked.seed)
        return cls(asked.model, asked.pairs, tuple(edges), *measured, graph, steps=asked.steps)

    @cached_property
    def known(self) -> frozenset[Edge]:
        """Its mediators, to look one up."""
        return frozenset(self.mediators)

    @property
    def carriers(self) -> list[Site]:
        """The sites whose values make up what any writer adds."""
        return carriers_of(self.graph.writers)

    def notes(self) -> tuple[str, ...]:
        """What a reader should know, of this model's edges too."""
        return (*super().notes(), *((self.graph.note,) if self.graph.note else ()))

    def replaced(self, sets: Sequence[Sequence[Edge]], direction: str, *, progress: bool = False) -> Replaced:
        """Let each set of edges carry the other prompt's values, in every pair; their readers respond."""
        n, engine = len(self.pairs), self.engine(direction)
        cuts = [self.graph.indices(edges) for edges in ((), *sets)]
        rows = [CutRow(at, cut) for cut in cuts for at in range(n)]
        found = self.measure(engine, rows, self.sources(direction), progress).reshape(-1, n)
        return Replaced(found[1:], found[0], billed(engine))

    def engine(self, direction: str) -> EdgeEngine:
        """What runs copies of one direction's prompts."""
        return EdgeEngine(self.model, self.base(direction)[0], self.graph)

    def measure(
        self,
        engine: EdgeEngine,
        rows: Sequence[CutRow],
        carried: Mapping[Site, Tensor],
        progress: bool = False,
    ) -> Float[np.ndarray, " row"]:
        """Run rows and measure each.

        Args:
            engine: of the rows' direction.
            rows: which edges are cut in which copy.
            carried: carrier -> ``[pair pos ...]``, what cut edges carry.
            progress: show a progress bar.
        """
        found, targets = np.zeros(len(rows)), self.targets

        def keep(numbers: Sequence[int], logits: Tensor) -> None:
            index = torch.tensor([rows[at].example for at in numbers], device=targets.answers.device)
            found[list(numbers)] = self.values(logits.to(index.device), targets.rows(index))

        engine.each(rows, carried, keep, progress)
        return found

    def forecast(self, sets: Sets | None = None) -> Forecast:
        """What replacing sets of edges costs, roughly: a copy is run from its first reader's layer on.

        A parallel block is run once for its attention and once for its MLP, which read different streams.
        """
        depth, n = self.model.n_layers, len(self.pairs)
        each = n * (2 if self.model.architecture.parallel else 1)
        asked = sets or (lambda direction: [(edge,) for edge in self.mediators])
        every = [one for direction in self.directions for one in asked(direction)]
        first = (min((self._layer(edge) for edge in one), default=depth) for one in every)
        run = sum(depth - layer for layer in first) / depth * each
        return Forecast("exhaustive", n, len(self.mediators), run, each * len(every), exact=False)

    def _layer(self, edge: Edge) -> int:
        """The block of the reader; the number of blocks for the logits."""
        return self.model.n_layers if edge.reader.layer is None else edge.reader.layer

    @gradients()
    def first_order(self, path: str = "point", steps: int = 1, compat: str = "") -> Estimates:
        """Estimate each edge from the gradient of what reads it.

        Args:
            path: a key of ``PATHS``: where the gradient is taken.
            steps: points of a path.
            compat: a key of ``COMPAT``: where on each step the gradient is taken.

        Raises:
            ConfigError: a metric without a gradient.
            ModelError: the readers' gradients do not add up to the stream's.
        """
        need_gradient(self)
        scores = Scores(self, path, steps, compat)
        values = {direction: scores.estimates(direction) for direction in self.directions}
        return Estimates(values, self.clean, self.corrupt, scores.bill)

    def first_order_passes(self, path: str = "point", steps: int = 1, compat: str = "") -> float | int:
        """How often every pair passes through the model for :meth:`first_order`, which has these arguments.

        Both sides are read; a gradient is a pass and its way back, and each MLP beside attention once more.
        """
        lines = Scores(self, path, steps, compat).lines()
        again = 0.0
        if self.model.architecture.parallel:
            for carrier, writers in lines:
                blocks = range(writers[0].layer or 0, self.model.n_layers)
                held = path == "activations" and carrier.kind == "mlp_out" and carrier.layer in blocks
                again += 2 * (len(blocks) - held) / self.model.n_layers
        return 2 + len(self.directions) * steps * (2 * len(lines) + again)


def billed(engine: EdgeEngine) -> dict[str, Any]:
    """The bill of an engine as plain data."""
    return engine.bill.facts()


@dataclass(eq=False)
class Scores:
    """Run the passes of one estimate and add up the scores.

    ``passes`` counts forward passes and gradients of one prompt through the whole model; ``off`` is the worst
    sum of gradients.
    """

    experiment: EdgeExperiment
    path: str
    steps: int
    compat: str
    passes: float = 0.0
    off: float = 0.0
    _blocks: dict[int, Blocks] = field(default_factory=dict)
    _read: dict[str, dict[Site, Tensor]] = field(default_factory=dict)

    @property
    def bill(self) -> dict[str, Any]:
        """Passes of every pair, and single ones to set up; a part of a block counts as the block."""
        again = 2 * sum(blocks.steps for blocks in self._blocks.values()) / self.experiment.model.n_layers
        forwards = (self.passes + again) / len(self.experiment.pairs)
        return {"forwards": round(forwards, 2), "setup": len(self._blocks), "off": self.off}

    def sides(self, direction: str) -> tuple[Mapping[Site, Tensor], Mapping[Site, Tensor]]:
        """The carriers' values in the prompts that are patched, and what is put in; each side is run once."""
        asked = self.experiment
        if not self._read:
            for side, tokens in (("clean", asked.pairs.clean), ("corrupt", asked.pairs.corrupt)):
                run = asked.model.run(tokens, capture=[str(site) for site in asked.carriers], positions="all")
                assert run.logits is not None and run.activations is not None
                asked.ran(side, run.logits)
                self._read[side] = by_site(run.activations, asked.carriers)
                self.passes += len(asked.pairs)
        base, source = ("corrupt", "clean") if direction == "denoising" else ("clean", "corrupt")
        return self._read[base], asked.sources(direction, read=self._read[source])

    def estimates(self, direction: str) -> np.ndarray:
        """``[edge pair]`` first-order effects in one direction."""
        asked = self.experiment
        own, other = self.sides(direction)
        places = asked.graph.indices(asked.mediators)
        found = np.zeros((len(asked.mediators), len(asked.pairs)))
        for rows in self.chunks():
            width = asked.pairs.lengths[rows[0]]
            there = {site: value[rows, :width] for site, value in other.items()}
            here = {site: value[rows, :width] for site, value in own.items()}
            total = self._scores(direction, rows, here, there)
            found[:, rows] = SIGNS[direction] * total.flatten(1)[:, places].T.cpu().numpy()
        return found

    def chunks(self, most: int | None = None) -> list[list[int]]:
        """Group pairs of one length, a few per pass (at most so many)."""
        groups: dict[int, list[int]] = {}
        for at, length in enumerate(self.experiment.pairs.lengths):
            groups.setdefault(length, []).append(at)
        readers = self.experiment.model.n_heads + 2 * self.experiment.model.n_kv_heads
        found: list[list[int]] = []
        for length, rows in groups.items():
            step = min(max(1, 4 * PER_PASS // (length * readers)), most or len(rows))
            found += [rows[at : at + step] for at in range(0, len(rows), step)]
        return found

    def _scores(
        self, direction: str, rows: Sequence[int], own: Mapping[Site, Tensor], other: Mapping[Site, Tensor]
    ) -> Tensor:
        """``[row reader writer]`` scores."""
        graph = self.experiment.graph
        total = torch.zeros(len(rows), len(graph.readers), len(graph.writers), dtype=torch.float64)
        if self.path == "point":
            [(_, asked)] = self.lines()
            self._add(total, self.run(direction, rows, []), own, other, asked, 1.0)
            return total
        for carrier, writers in self.lines():
            for alpha in _points(self.steps, self.compat, self.path, direction):
                value = own[carrier] + alpha * (other[carrier] - own[carrier])
                run = self.run(direction, rows, [Intervention(carrier, value)])
                self._add(total, run, own, other, writers, 1 / self.steps)
        return total / len(own) if self._shared else total

    @property
    def _shared(self) -> bool:
        """Whether the gradients along every writer's line are averaged for each edge, as in EAP-IG."""
        return self.path == "activations" and self.compat == "mib"

    def lines(self) -> list[tuple[Site, list[Site]]]:
        """What is moved in turn, and the writers whose edges are scored by the gradients on its way."""
        asked = sorted({edge.writer for edge in self.experiment.mediators})
        if self.path != "activations":
            return [(Site("embed"), asked)]
        if self._shared:
            return [(carrier, asked) for carrier in self.experiment.carriers]
        carried: dict[Site, list[Site]] = {}
        for writer in asked:
            carried.setdefault(carriers_of([writer])[0], []).append(writer)
        return list(carried.items())

    def run(
        self, direction: str, rows: Sequence[int], edits: Sequence[Intervention], also: Sequence[Site] = ()
    ) -> ReaderSlopes:
        """Run some pairs and take the gradients that the readers' slopes are made of, and some besides."""
        asked, model, graph = self.experiment, self.experiment.model, self.experiment.graph
        length = asked.pairs.lengths[rows[0]]
        if length not in self._blocks:
            self._blocks[length] = Blocks.of(model, asked.base(direction)[0].token_ids[rows[0]])
        blocks = "parallel" if model.architecture.parallel else "sequential"
        sites = [*needed(graph, model.n_layers, blocks), *also]
        self.passes += 2 * len(rows)
        found = gradients_at(asked, direction, rows, asked.targets, sites, edits)
        held = frozenset(Site.parse(str(edit.site)) for edit in edits)
        return ReaderSlopes(self._blocks[length], graph, found.nodes, found.gradients, held)

    @torch.no_grad()
    def _add(
        self,
        total: Tensor,
        run: ReaderSlopes,
        own: Mapping[Site, Tensor],
        other: Mapping[Site, Tensor],
        writers: Sequence[Site],
        weight: float,
    ) -> None:
        """Add change times slope of every writer and reader."""
        graph, model = self.experiment.graph, self.experiment.model
        first = writers[0].layer or 0
        groups: dict[int, list[int]] = {}
        for writer in writers:
            groups.setdefault(-1 if writer.layer is None else writer.layer, []).append(
                graph.writers.index(writer)
            )
        for readers, slope in run.each(first):
            reach = max(graph.reach[at] for at in readers)
            flat = slope.flatten(2).double()
            for numbers in groups.values():
                seen = [at for at in numbers if at < reach]
                if not seen:
                    continue
                change = [contribution(model, graph.writers[at], other, own) for at in seen]
                table = torch.stack(change, dim=1).flatten(2).double()
                score = weight * torch.bmm(flat, table.transpose(1, 2)).cpu()
                total[:, readers[0] : readers[-1] + 1, seen] += score
        self.off = max(self.off, run.off)


def _points(steps: int, compat: str, path: str, direction: str) -> list[float]:
    """How far along the line from the run to the other prompt each gradient is taken."""
    if compat != "mib":
        return [(at + 0.5) / steps for at in range(steps)]
    first = 1 if path == "activations" else 0  # EAP-IG's two functions count their steps differently
    from_corrupt = [(at + first) / steps for at in range(steps)]
    return from_corrupt if direction == "denoising" else [1 - at for at in from_corrupt]


ALLOWED = 1e-3


def needed(graph: Graph, n_layers: int, blocks: str) -> list[Site]:
    """The sites whose gradients are needed.

    Args:
        graph: the model's readers.
        n_layers: how many blocks.
        blocks: ``sequential`` or ``parallel``.
    """
    kinds = ["q", "k", "v", "resid_pre", *(["resid_mid"] if blocks == "sequential" else [])]
    found = [Site(kind, layer) for layer in range(n_layers) for kind in kinds]
    return [*found, Site("resid_post", n_layers - 1)]


@dataclass(eq=False)
class ReaderSlopes:
    """The slopes of every reader of one pass.

    Attributes:
        blocks: of the model.
        graph: its readers.
        nodes: site -> value ``[row pos ...]`` of the pass.
        gradients: site -> the metric's gradient with respect to it.
        held: sites that were written in the pass: what a block computed there had no effect on it.
        off: largest difference between the stream's gradient and the sum of its readers', relative to it.
    """

    blocks: Blocks
    graph: Graph
    nodes: Mapping[Site, Tensor]
    gradients: Mapping[Site, Tensor]
    held: frozenset[Site] = frozenset()
    off: float = 0.0

    def each(self, first: int = 0) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers of readers and their slopes ``[row reader pos d_model]``, block by block.

        Args:
            first: the first block.

        Raises:
            ModelError: the readers' slopes do not add up to the stream's.
        """
        last = self.blocks.model.n_layers
        with evaluating(self.blocks.model.architecture.modules):
            for layer in range(first, last):
                attention = self._attention(layer)
                mlp = self._mlp(layer)
                self._check(layer, attention.sum(dim=1) + mlp)
                yield self.graph.at(layer, "q", "k", "v"), attention
                yield self.graph.at(layer, "mlp"), mlp[:, None]
        yield [len(self.graph.readers) - 1], self._after(last - 1)[:, None]

    def _after(self, layer: int) -> Tensor:
        """The gradient of the stream after a block."""
        last = layer == self.blocks.model.n_layers - 1
        return self.gradients[Site("resid_post", layer) if last else Site("resid_pre", layer + 1)]

    def _attention(self, layer: int) -> Tensor:
        """Pull the gradients of queries, keys and values back to the stream, head by head."""
        stream = self.nodes[Site("resid_pre", layer)]
        sites = [Site(kind, layer) for kind in "qkv"]
        inner = self.blocks.normed(layer, stream).detach()
        pulled = torch.cat([self.blocks.pulled(s, inner, self.gradients[s]) for s in sites], dim=1)
        return self.before_norm(layer, stream, pulled)

    def before_norm(self, layer: int, stream: Tensor, pulled: Tensor) -> Tensor:
        """Pull slopes ``[row reader pos d_model]`` of what projections get back through a block's norm."""
        rows, readers = pulled.shape[:2]
        copies = stream.repeat_interleave(readers, dim=0).requires_grad_()
        with torch.enable_grad():
            normed = self.blocks.normed(layer, copies)
        [found] = torch.autograd.grad(normed, copies, pulled.flatten(0, 1))
        return found.unflatten(0, (rows, readers))

    def _mlp(self, layer: int) -> Tensor:
        """The slope of what the MLP reads."""
        after = self._after(layer)
        if not self.blocks.model.architecture.parallel:
            return self.gradients[Site("resid_mid", layer)] - after
        if Site("mlp_out", layer) in self.held:
            return torch.zeros_like(after)
        stream = self.nodes[Site("resid_pre", layer)].clone().requires_grad_()
        with torch.enable_grad():
            out = self.blocks.read(layer, stream, ["mlp_out"])[Site("mlp_out", layer)]
        return torch.autograd.grad(out, stream, after)[0]

    def _check(self, layer: int, readers: Tensor) -> None:
        wanted = self.gradients[Site("resid_pre", layer)] - self._after(layer)
        scale = max(float(self.gradients[Site("resid_pre", layer)].abs().max()), 1e-30)
        self.off = max(self.off, float((readers - wanted).abs().max()) / scale)
        model = self.blocks.model
        if not self.off <= (ALLOWED if model.dtype == torch.float32 else 0.1):
            raise ModelError(
                f"the slopes of what layer {layer} of {model.name!r} reads do not add up to the stream's: "
                f"they differ by {self.off:.1e} of it. Use exact edges (exhaustive) instead."
            )
