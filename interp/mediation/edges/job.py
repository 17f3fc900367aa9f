"""What every search over edges shares: the checked arguments, the graph, and the wrapping of effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.edges.asked import Edges
from interp.mediation.edges.engine import CutRow, EdgeEngine
from interp.mediation.edges.graph import Edge, Graph
from interp.mediation.edges.run import carriers_of
from interp.mediation.edits import interchange
from interp.mediation.effects import Effects
from interp.mediation.metrics import Targets
from interp.mediation.replacements import REPLACEMENTS, Replacement
from interp.mediation.searches.job import Job
from interp.models.loading import ModelLike
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["EdgeJob", "Edges"]


@dataclass(frozen=True, eq=False)
class EdgeJob:
    """Hold what every search over edges shares.

    Attributes:
        job: model, pairs, metric, replacement, directions and seed.
        graph: the model's writers and readers.
        edges: those asked for, in order of execution.
    """

    job: Job
    graph: Graph
    edges: tuple[Edge, ...]

    @classmethod
    def of(
        cls,
        model: ModelLike,
        pairs: PairSet,
        edges: Edges,
        metric: str,
        replacement: str,
        directions: str,
        seed: int,
    ) -> EdgeJob:
        """Check the arguments of a search.

        Raises:
            ConfigError: an unknown metric, replacement or direction.
            SiteError: an edge that does not exist, or a model that does not offer edges.
        """
        job = Job.of(model, pairs, [], metric, replacement, directions, "auto", seed)
        if job.replacement.rule is not interchange:
            fit = [row.name for row in REPLACEMENTS.values() if row.rule is interchange]
            raise ConfigError(
                f"replacement {replacement!r} asked, but an edge carries a value of its own; "
                f"for edges there are: {', '.join(fit)}."
            )
        graph = Graph.of(job.model)
        return cls(job, graph, graph.select(edges))

    def part(self, rows: Sequence[int], columns: Sequence[int]) -> EdgeJob:
        """The same search over some edges and some pairs."""
        return EdgeJob(self.job.part([], columns), self.graph, tuple(self.edges[at] for at in rows))

    @property
    def model(self) -> Model:
        """What is patched."""
        return self.job.model

    @property
    def replacement(self) -> Replacement:
        """What a mediator's value becomes."""
        return self.job.replacement

    @property
    def seed(self) -> int:
        """Of draws."""
        return self.job.seed

    def sources(self, direction: str) -> dict[Site, Tensor]:
        """Give what cut edges carry: carrier -> ``[pair pos ...]``, of every writer."""
        tokens = self.job.base(direction)[1]
        return self.job.values_of(tokens, carriers_of(self.graph.writers))

    def measure(
        self,
        engine: EdgeEngine,
        rows: Sequence[CutRow],
        other: dict[Site, Tensor],
        targets: Targets,
        progress: bool,
    ) -> np.ndarray:
        """Run rows and give the metric of each."""
        found = np.zeros(len(rows))

        def keep(numbers: Sequence[int], logits: Tensor) -> None:
            index = torch.tensor([rows[at].example for at in numbers], device=targets.answers.device)
            found[list(numbers)] = self.job.values(logits.to(index.device), targets.rows(index))

        engine.each(rows, other, keep, progress)
        return found

    def effects(
        self, values: dict[str, np.ndarray], clean: np.ndarray, corrupt: np.ndarray, **facts: Any
    ) -> Effects:
        """Wrap the numbers of a search."""
        found = self.job.effects(values, clean, corrupt, **facts)
        notes = (*found.warnings, self.graph.note) if self.graph.note else found.warnings
        return replace(found, mediators=self.edges, warnings=notes)
