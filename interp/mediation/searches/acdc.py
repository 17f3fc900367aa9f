"""ACDC: take edges out one after the other, from the logits to the embedding, where little changes by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast

import numpy as np

from interp.errors import ConfigError
from interp.mediation.edges.edge import Edge
from interp.mediation.edges.engine import CutRow
from interp.mediation.edges.experiment import EdgeExperiment, billed
from interp.mediation.edges.graph import Graph, fed_by
from interp.mediation.experiment import Estimates, Experiment, Forecast
from interp.mediation.searches.search import Search
from interp.models.forward import progress_bar

__all__ = ["ACDC"]

AHEAD = 8
"""Edges that are tried at once, each with those before it gone; those after a kept one are tried again."""
AGAIN = 2
"""Copies per edge: the more is kept, the more. Measured: 1.0 to 1.5 in models with a planted circuit; with
random weights 1.3 to 1.6 with a threshold of 0.1, 2.0 to 2.3 with 0.02, 2.5 to 2.8 with 0.005."""
NOTE = (
    "acdc: an edge's effect is what taking it out of the circuit of that moment changed; 0 is an edge that "
    "was taken out, and the circuit is what has an effect"
)


@dataclass(frozen=True, kw_only=True)
class ACDC(Search):
    """Take out every edge without which the run stays near the intact one (Conmy et al. 2023, 2304.14997).

    Readers go from the logits to the first block, and of each the edges from the last writer to the first. An
    edge goes where the mean distance of the metric from the intact run grows by less than the threshold; of
    metric ``kl`` that is the rule of the paper. What feeds a part that nothing reads any more goes unasked.

    By noising the clean prompt is run and an edge that is taken out carries the corrupt value; by denoising
    the corrupt prompt is run, with the clean values of the edges that are left.

    Attributes:
        threshold: as a share of the mean total effect; times that it is the paper's tau.

    Raises:
        ConfigError: a threshold that is not above 0.
    """

    threshold: float = 0.02

    name = "acdc"
    description = "take edges out one by one from the logits on, where that changes less than a threshold"
    over = ("edges",)

    def __post_init__(self) -> None:
        """Refuse a threshold of nothing."""
        if not self.threshold > 0:
            raise ConfigError(f"threshold={self.threshold} asked; it is a share of the effect, above 0.")

    def forecast(self, experiment: Experiment) -> Forecast:
        """Some copies per edge and direction: how often edges are tried again depends on what is kept."""
        each = experiment.forecast()
        return replace(each, search=self.name, forwards=AGAIN * each.forwards, exact=False)

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Prune in every direction."""
        clean, corrupt = experiment.clean, experiment.corrupt
        allowed = self.threshold * abs(float(experiment.per_pair(clean - corrupt).mean()))
        values: dict[str, np.ndarray] = {}
        cost: dict[str, Any] = {}
        for direction in experiment.directions:
            pruning = _Pruning(cast("EdgeExperiment", experiment), direction, allowed)
            values[direction], cost[direction] = pruning.run(progress)
        return Estimates(values, clean, corrupt, cost, experiment.floor(), (NOTE,))


class _Pruning:
    """The state of one direction: which edges are left, and what the metric of each pair is with these."""

    def __init__(self, experiment: EdgeExperiment, direction: str, allowed: float) -> None:
        self.experiment, self.direction, self.allowed = experiment, direction, allowed
        self.engine, self.carried = experiment.engine(direction), experiment.sources(direction)
        self.kept: set[Edge] = set(experiment.mediators)
        self.values = np.zeros((len(self.kept), len(experiment.pairs)))
        [self.current] = self._measured([self.kept])
        self.intact = experiment.per_pair(self.current)

    def run(self, progress: bool) -> tuple[np.ndarray, Mapping[str, Any]]:
        """Go through all readers; give effects ``[edge pair]`` and the bill."""
        mediators = self.experiment.mediators
        order = sorted(range(len(mediators)), key=lambda at: mediators[at], reverse=True)
        feeds, out = fed_by(self.experiment.graph), _read_from(self.experiment.graph)
        with progress_bar(len(order), progress, "pruning", "edge") as advance:
            for reader, group in groupby(order, key=lambda at: mediators[at].reader):
                numbers = list(group)
                onward = [edge for writer in feeds[reader] for edge in out[writer]]
                if feeds[reader] and not any(self._alive(edge) for edge in onward):
                    self.kept -= {mediators[at] for at in numbers}
                else:
                    self._reader(numbers)
                advance(len(numbers))
        distance = self._distance(self.current) / max(self.allowed, 1e-30)
        facts = {"kept": len(self.kept), "thresholds_away": round(distance, 3)}
        return self.values, billed(self.engine) | facts

    def _reader(self, numbers: Sequence[int]) -> None:
        """Try the edges of a reader, some ahead."""
        mediators, waiting = self.experiment.mediators, list(numbers)
        while waiting:
            ahead = waiting[:AHEAD]
            gone = [{mediators[at] for at in ahead[: n + 1]} for n in range(len(ahead))]
            for at, found in zip(ahead, self._measured([self.kept - some for some in gone]), strict=True):
                waiting.remove(at)
                if self._distance(found) - self._distance(self.current) >= self.allowed:
                    self.values[at] = self.current - found
                    break
                self.kept.remove(mediators[at])
                self.current = found

    def _distance(self, found: np.ndarray) -> float:
        return float(np.abs(self.experiment.per_pair(found) - self.intact).mean())

    def _alive(self, edge: Edge) -> bool:
        """Whether an edge carries what its writer makes of its inputs in this very run."""
        mine = edge in self.experiment.known
        return not mine or (edge in self.kept) == (self.direction == "noising")

    def _measured(self, sets: Sequence[set[Edge]]) -> np.ndarray:
        """The metric ``[set pair]`` with sets of edges left."""
        every, noising = self.experiment.mediators, self.direction == "noising"
        n = len(self.experiment.pairs)
        cuts = [
            self.experiment.graph.indices([one for one in every if (one in kept) != noising]) for kept in sets
        ]
        rows = [CutRow(at, cut) for cut in cuts for at in range(n)]
        return self.experiment.measure(self.engine, rows, self.carried).reshape(-1, n)


def _read_from(graph: Graph) -> Mapping[Any, list[Edge]]:
    """The edges out of every writer."""
    found: dict[Any, list[Edge]] = {writer: [] for writer in graph.writers}
    for edge in graph.edges:
        found[edge.writer].append(edge)
    return found
