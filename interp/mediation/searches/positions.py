"""Position-aware edges as a search: attribution of edges with the positions kept apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from interp.mediation.edges.experiment import EdgeExperiment
from interp.mediation.edges.positions import attention_again, position_scores
from interp.mediation.effects import Effects
from interp.mediation.experiment import Estimates, Experiment
from interp.mediation.gradients import need_gradient
from interp.mediation.searches.search import Search

__all__ = ["PositionAttribution"]

NOTE = (
    "peap: parts of edges by position are first-order estimates, and are not repeated exactly; search whole "
    "edges, or mediators at one position (head.3.1 with positions=5), exhaustively"
)


UNREAD = "logits read the last token alone; ask for edges into q, k, v or mlp too"


@dataclass(frozen=True, kw_only=True)
class PositionAttribution(Search):
    """Estimate edges as attribution does, each part by position (PEAP; Haklay et al. 2025, 2502.04577).

    The mediators of what it gives are parts of the edges asked for: ``embed->mlp.1@3`` is read at token 3,
    ``head.0.1->v.1.0@1>3`` at token 1 by the query at token 3. An edge's parts add up to its score by
    ``attribution`` (EAP), where parts of opposite sign cancel.

    Attributes:
        spans: names and selectors of positions, such as ``(("end", "last"),)``: needed to average over pairs
            of different lengths. Without, every position is a part of its own.

    Raises:
        ConfigError: pairs of different lengths without spans, or too many parts.
    """

    spans: tuple[tuple[str, str], ...] = ()

    name = "peap"
    description = "as attribution, for edges, with the positions kept apart (PEAP)"
    exact = False
    over = ("edges",)

    def passes(self, experiment: Experiment) -> float | int:
        """One gradient per direction, and attention with its gradient once per query that is told apart."""
        edges = cast("EdgeExperiment", experiment)
        again = attention_again(edges, float(np.mean(experiment.pairs.lengths)))
        return edges.first_order_passes() + len(experiment.directions) * again

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Take one gradient per run."""
        return position_scores(cast("EdgeExperiment", experiment), self.spans)[1]

    def __call__(self, experiment: Experiment, *, progress: bool = False) -> Effects:
        """Estimate every part of every edge.

        Raises:
            ConfigError: a metric without a gradient.
        """
        need_gradient(experiment)
        parts, found = position_scores(cast("EdgeExperiment", experiment), self.spans)
        effects = parts.effects(found, search=self.name, exact=False)
        read = {name for edge in parts.mediators for name in edge.at.split(">")}
        unread = [f"'{name}'" for name, _ in self.spans if name not in read]
        empty = (f"peap: no part of these edges is at {', '.join(unread)}: {UNREAD}",) if unread else ()
        return replace(effects, warnings=(*effects.warnings, NOTE, *empty))
