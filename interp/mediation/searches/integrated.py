"""Integrated gradients: gradients averaged on the way from one value to the other, so that bends count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.experiment import SIGNS, Estimates, Experiment
from interp.mediation.gradients import chunks, first_order, gradients_at
from interp.mediation.searches.search import GradientSearch, by_direction
from interp.models.interventions import Intervention
from interp.sites import Site

__all__ = ["IntegratedGradients", "mean_gradients"]

PATHS = {
    "inputs": "gradients averaged while the embeddings move from one prompt to the other",
    "activations": "gradients averaged while one site at a time moves to its replacement",
}
EMBED = Site("embed")


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(GradientSearch):
    """Average gradients over a straight path (Sundararajan et al. 2017, 1703.01365).

    The estimate is ``sum (replacement - current) * mean over a of dY/d(current at a)`` with ``steps`` points
    ``a = (j + 1/2) / steps`` (midpoint rule: the error falls with the square of ``steps``).

    ``path="inputs"`` moves the embeddings from the prompt to the pair's other prompt, and reads every
    mediator in the same passes (as in Hanna et al. 2024, 2403.17806). At ``embed`` the effects add up to the
    total effect; how far they miss it is in ``cost[direction]["completeness_error"]`` (units of the metric,
    largest over pairs).

    ``path="activations"`` moves one carrying site at a time (all heads of a layer together), the rest of the
    model responding. For a mediator that is a whole site, such as ``mlp_out.3`` at all positions, this tends
    to the exact effect; for parts of a site it shares the joint effect out among them.

    Attributes:
        path: ``inputs`` (``steps`` passes) or ``activations`` (``steps`` passes per carrying site).
        steps: how many points of the path.

    Raises:
        ConfigError: an unknown path, or no steps.
    """

    path: str = "inputs"
    steps: int = 8

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.path not in PATHS:
            raise ConfigError(f"path {self.path!r} asked; use {' or '.join(PATHS)}.")
        if self.steps < 1:
            raise ConfigError(f"{self.steps} steps asked; a path needs at least 1.")

    @property
    def name(self) -> str:
        """``ig-`` and the path."""
        return f"ig-{self.path}"

    @property
    def description(self) -> str:
        """One line."""
        return PATHS[self.path]

    def passes(self, experiment: Experiment) -> float | int:
        """Both sides plain; what is moved and what is put in read; a gradient per step."""
        if self.path == "inputs":
            return 2 + len(experiment.directions) * (3 + 2 * self.steps)
        return 2 + len(experiment.directions) * (2 + 2 * self.steps * len(experiment.carriers))

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Average the gradients along the path."""
        estimate = _by_inputs if self.path == "inputs" else _by_activations
        return by_direction(experiment, partial(estimate, self.steps))


def _by_inputs(steps: int, experiment: Experiment, direction: str) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Move the embeddings; read every mediator in the same passes."""
    base, source = experiment.base(direction)
    sources = experiment.sources(direction)
    sites = sorted({EMBED, *sources})
    starts = experiment.model.capture(base, [str(site) for site in sites], "all")
    ends = experiment.model.capture(source, "embed", "all")["embed"]
    found = np.zeros((len(experiment.mediators), len(experiment.pairs)))
    reached = np.zeros(len(experiment.pairs))
    for rows in chunks(experiment, steps):
        width = max(experiment.pairs.lengths[at] for at in rows)
        nodes = {site: starts[str(site)][rows, :width] for site in sites}
        change = ends[rows, :width] - nodes[EMBED]
        edits = [_moved(EMBED, nodes[EMBED], change, steps)]
        mean = _mean_gradients(experiment, direction, rows, sites, steps, edits)
        found[:, rows] = first_order(experiment, rows, nodes, mean, sources).numpy()
        reached[rows] = (mean[EMBED] * change).double().sum(dim=(1, 2)).cpu().numpy()
    total = SIGNS[direction] * (experiment.clean - experiment.corrupt)
    error = float(np.abs(reached - total).max())
    return SIGNS[direction] * found, {"forwards": 3 + 2 * steps, "completeness_error": error}


def _by_activations(
    steps: int, experiment: Experiment, direction: str
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Move one carrying site at a time, towards its replacement."""
    sources = experiment.sources(direction)
    starts = experiment.model.capture(experiment.base(direction)[0], [str(site) for site in sources], "all")
    found = np.zeros((len(experiment.mediators), len(experiment.pairs)))
    for rows in chunks(experiment, steps):
        width = max(experiment.pairs.lengths[at] for at in rows)
        nodes = {site: starts[str(site)][rows, :width] for site in sources}
        mean: dict[Site, Tensor] = {}
        for site, node in nodes.items():
            change = experiment.replacement.rule(node, sources[site][rows, :width].to(node)) - node
            mean |= mean_gradients(experiment, direction, rows, site, node, change, steps)
        found[:, rows] = first_order(experiment, rows, nodes, mean, sources).numpy()
    return SIGNS[direction] * found, {"forwards": 2 + 2 * steps * len(sources)}


def mean_gradients(
    experiment: Experiment,
    direction: str,
    rows: Sequence[int],
    site: Site,
    start: Tensor,
    change: Tensor,
    steps: int,
) -> dict[Site, Tensor]:
    """The metric's gradient at a site, averaged while that site alone moves: ``[row pos ...]``.

    Args:
        experiment: the model, the pairs and the metric.
        direction: whose base prompts are run.
        rows: which pairs.
        site: what moves.
        start: its values ``[row pos ...]``.
        change: by how much it moves in all.
        steps: points of the path.
    """
    return _mean_gradients(experiment, direction, rows, [site], steps, [_moved(site, start, change, steps)])


def _moved(site: Site, start: Tensor, change: Tensor, steps: int) -> Intervention:
    """Put every point of the path into its copy of the rows, copies one after the other."""
    points = (torch.arange(steps, device=start.device) + 0.5) / steps
    on_the_way = [start + point.to(start.dtype) * change for point in points]
    return Intervention(site, torch.cat(on_the_way))


def _mean_gradients(
    experiment: Experiment,
    direction: str,
    rows: Sequence[int],
    sites: Sequence[Site],
    steps: int,
    edits: Sequence[Intervention],
) -> dict[Site, Tensor]:
    """Average the gradients over the copies of each row: ``[row pos ...]``."""
    found = gradients_at(experiment, direction, [*rows] * steps, experiment.targets, sites, edits).gradients
    return {site: one.unflatten(0, (steps, len(rows))).mean(dim=0) for site, one in found.items()}
