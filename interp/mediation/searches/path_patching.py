"""Path patching: what a part of the model does by way of chosen readers, and by no other way.

Three steps (Wang et al. 2022, 2211.00593, section 3.1): both prompts are run; the sender gets the other
prompt's value while all else keeps its own, and what the receivers then read is noted; the prompt is run
again with the receivers reading that, and everything after them responds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, SiteError
from interp.mediation.batching import TOKENS
from interp.mediation.edges.blocks import Blocks, contribution
from interp.mediation.edges.engine import CutRow
from interp.mediation.edges.experiment import EdgeExperiment, billed
from interp.mediation.edges.graph import Edge, Graph, Reader
from interp.mediation.edges.run import carriers_of
from interp.mediation.effects import Effects
from interp.mediation.experiment import SIGNS, Estimates, Experiment, Forecast
from interp.mediation.noise import rounding_error
from interp.mediation.searches.search import Search
from interp.models.forward import in_batches
from interp.models.hooks import evaluating
from interp.sites import Site

__all__ = ["THROUGH", "PathPatching"]

THROUGH: dict[str, str] = {
    "mlp": "MLPs after the sender respond to what reaches them, so paths through any number of them count",
}
Receivers = str | Reader | Sequence[str | Reader]
Values = Mapping[Site, Tensor]


@dataclass(frozen=True, kw_only=True)
class PathPatching(Search):
    """Let the receivers read each sender as it is in the other prompt, exactly; no one else sees the change.

    The mediators are the senders: ``embed``, ``head.3.*``, ``attn_out.*`` or ``mlp_out.*``, at all positions.
    What comes after the receivers responds. A receiver after another one does not: it reads its prompt's own
    stream and the sender's change, so that all paths start with one of the edges asked.

    Attributes:
        receivers: names and globs of readers: ``logits``, ``q.5.*``, ``k.5.0``, ``mlp.7``; all together.
        through: keys of ``THROUGH``: what may lie between a sender and the receivers; nothing where left out.

    Raises:
        ConfigError: an unknown way.
    """

    receivers: Receivers = "logits"
    through: Sequence[str] = ()

    name = "path-patching"
    description = "replace each mediator only in what chosen readers get of it"

    def __post_init__(self) -> None:
        """Check the options."""
        if isinstance(self.through, str) or any(way not in THROUGH for way in self.through):
            raise ConfigError(
                f"paths through {self.through!r} asked; give a sequence of: {', '.join(THROUGH)}."
            )

    def forecast(self, experiment: Experiment) -> Forecast:
        """About what an exhaustive search over the senders costs."""
        return replace(super().forecast(experiment), exact=False)

    def __call__(self, experiment: Experiment, *, progress: bool = False) -> Effects:
        """Find the effects of the senders that a receiver comes after.

        Raises:
            ConfigError: ``logits`` beside other receivers, or a replacement that edges do not have.
            SiteError: an unknown sender or receiver, no path between them, or a model without edges.
            ModelError: the model's edges do not add up to its own runs.
        """
        paths = self._paths(experiment)
        with_path = [at for at, sender in enumerate(experiment.mediators) if sender.site in paths.senders]
        without = [sender.site for sender in experiment.mediators if sender.site not in paths.senders]
        found = super().__call__(experiment.part(with_path, range(len(experiment.pairs))), progress=progress)
        if not without:
            return found
        left_out = f"left out, because no receiver comes after them: {_list(without)}"
        return replace(found, warnings=(*found.warnings, left_out))

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Patch the paths of each sender."""
        paths = self._paths(experiment)
        values: dict[str, np.ndarray] = {}
        cost: dict[str, Any] = {}
        for direction in experiment.directions:
            values[direction], cost[direction] = paths.sweep(direction, progress)
        noise = rounding_error(experiment, values, lambda part, way: self._paths(part).sweep(way, False)[0])
        ways = f"directly or through {' and '.join(self.through)}" if self.through else "directly"
        readers = _list(paths.receivers)
        note = f"effects of what {readers} read of each sender {ways}, and of nothing else"
        about = (paths.edges.graph.note,) if paths.edges.graph.note else ()
        return Estimates(values, experiment.clean, experiment.corrupt, cost, noise, (*about, note))

    def _paths(self, experiment: Experiment) -> _Paths:
        """The senders that a receiver comes after, and the edges from them."""
        graph = Graph.of(experiment.model)
        senders = graph.writers_of([str(sender) for sender in experiment.mediators])
        readers = _receivers(graph, self.receivers)
        edges = [edge for r in readers for w in senders if (edge := Edge(w, r)) in graph]
        if not edges:
            raise SiteError(f"no path from {_list(senders)} to {_list(readers)}: those readers come first.")
        asked = EdgeExperiment.of(experiment, edges, graph)
        return _Paths(asked, tuple(sorted({edge.writer for edge in edges})), readers, tuple(self.through))


def _receivers(graph: Graph, asked: Receivers) -> tuple[Reader, ...]:
    given = [asked] if isinstance(asked, str | Reader) else asked
    found = graph.readers_of([str(one) for one in given])
    if len(found) > 1 and found[-1].kind == "logits":
        raise ConfigError(
            f"receivers {_list(found)} asked: with the input of the logits fixed, no other counts. "
            "Ask for 'logits' and for the others one after the other."
        )
    return found


@dataclass(frozen=True, eq=False)
class _Paths:
    """Whose paths into what are patched.

    Attributes:
        edges: those from a sender to a receiver.
        senders: in order of execution.
        receivers: likewise.
        through: keys of ``THROUGH``.
    """

    edges: EdgeExperiment
    senders: tuple[Site, ...]
    receivers: tuple[Reader, ...]
    through: tuple[str, ...]

    def sweep(self, direction: str, progress: bool) -> tuple[np.ndarray, dict[str, Any]]:
        """Effects ``[sender pair]`` and the bill."""
        edges, n = self.edges, len(self.edges.pairs)
        engine, source = edges.engine(direction), edges.sources(direction)
        none = torch.zeros(0, dtype=torch.long)
        plain = edges.measure(engine, [CutRow(at, none) for at in range(n)], source)
        rows = [[CutRow(at, cut) for at in range(n)] for cut in map(self._cut, self.senders)]
        if not self.through and not self._after_the_first():
            flat = [row for one in rows for row in one]
            measured = edges.measure(engine, flat, source, progress).reshape(-1, n)
        else:
            noted = _Noted(edges, direction, source)
            carried = (noted.values(sender, self.through) for sender in self.senders)
            found = [
                edges.measure(engine, one, other, progress) for one, other in zip(rows, carried, strict=True)
            ]
            measured = np.stack(found)
            engine.bill.forwards += noted.forwards
        return SIGNS[direction] * (measured - plain), billed(engine)

    def _after_the_first(self) -> set[Site]:
        """The writers between the receivers, which respond to the first of them."""
        first, last = (
            self.edges.graph.reaching(reader) for reader in (self.receivers[0], self.receivers[-1])
        )
        return set(last) - set(first)

    def _cut(self, sender: Site) -> Tensor:
        """Number the edges that carry a value of their own: the sender's, and what holds the rest fixed."""
        graph, responding = self.edges.graph, self._after_the_first()
        edges: list[Edge] = []
        for reader in self.receivers:
            seen = graph.reaching(reader)
            if sender not in seen:
                continue
            later = seen[seen.index(sender) + 1 :]
            ways = {one for one in later if "mlp" in self.through and one.kind == "mlp_out"}
            edges += [Edge(one, reader) for one in seen if one == sender or one in responding | ways]
        return graph.indices(edges)


class _Noted:
    """Note what every writer adds when one sender has the other prompt's value and attention is held fixed.

    Attributes:
        forwards: passes of all pairs so far.
    """

    def __init__(self, asked: EdgeExperiment, direction: str, source: Values) -> None:
        model, tokens, carriers = asked.model, asked.base(direction)[0], asked.carriers
        streams = [Site("resid_pre", layer) for layer in range(model.n_layers)]
        read = model.capture(tokens, [str(site) for site in (*carriers, *streams)], "all")
        self.own: Values = {site: read[str(site)] for site in carriers}
        self.forwards = float(len(tokens))
        self._streams = [read[str(site)] for site in streams]
        self._model, self._graph, self._tokens, self._source = model, asked.graph, tokens, source
        self._groups: dict[int, list[int]] = {}
        for at, length in enumerate(tokens.lengths):
            self._groups.setdefault(length, []).append(at)
        self._blocks = {
            length: Blocks.of(model, tokens.token_ids[rows[0]]) for length, rows in self._groups.items()
        }

    def values(self, sender: Site, through: Sequence[str]) -> dict[Site, Tensor]:
        """What cut edges carry: carrier -> ``[pair pos ...]``.

        Args:
            sender: which has the other prompt's value.
            through: keys of ``THROUGH``; all else has its own.
        """
        [carrier] = carriers_of([sender])
        found = dict(self.own)
        moved = self._source[carrier].clone()
        if sender.kind == "head":
            moved = self.own[carrier].clone()
            moved[:, :, sender.index] = self._source[carrier][:, :, sender.index].to(moved)
        found[carrier] = moved
        if "mlp" in through:
            before = self._steps
            self._respond(sender, found)
            self.forwards += (self._steps - before) / self._model.n_layers
        return found

    @property
    def _steps(self) -> float:
        return sum(blocks.steps for blocks in self._blocks.values())

    def _respond(self, sender: Site, found: dict[Site, Tensor]) -> None:
        """Run the MLPs after a sender, one after the other, and put what they add into ``found``."""
        mlps = [r for r in self._graph.readers if r.kind == "mlp" and sender in self._graph.reaching(r)]
        later = [Site("mlp_out", reader.layer) for reader in mlps]
        found |= {site: self.own[site].clone() for site in later}
        most = TOKENS.get(self._model.device.type, TOKENS["cpu"])

        def run(rows: Sequence[int]) -> None:
            length = self._tokens.lengths[rows[0]]
            index = torch.tensor(rows)
            here, there = ({s: v[index, :length] for s, v in values.items()} for values in (self.own, found))
            shift = contribution(self._model, sender, there, here)
            for site in later:
                assert site.layer is not None
                out = self._mlp(length, site.layer, self._streams[site.layer][index, :length], shift)
                found[site][index, :length] = out.to(found[site])
                shift = shift + out - here[site]

        batches = [
            rows[at : at + max(1, most // length)]
            for length, rows in self._groups.items()
            for at in range(0, len(rows), max(1, most // length))
        ]
        with torch.no_grad(), evaluating(self._model.architecture.modules):
            in_batches(batches, run, progress=False)

    def _mlp(self, length: int, layer: int, stream: Tensor, shift: Tensor) -> Tensor:
        """Run an MLP on its own input and a shift; attention gets the prompt's own stream."""
        found = self._blocks[length].parts(layer, stream, ["attn_out"], [], lambda read: shift)
        return found[Site("mlp_out", layer)]


def _list(items: Sequence[Site | Reader]) -> str:
    """Write a few names, and how many more there are."""
    names = [str(one) for one in items]
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
