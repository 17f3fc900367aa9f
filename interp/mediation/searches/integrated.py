"""Integrated gradients: slopes averaged on the way from one value to the other, so that bends count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.effects import Effects
from interp.mediation.metrics import Targets
from interp.mediation.searches.estimating import Measured, estimated
from interp.mediation.searches.gradients import SIGNS, chunks, first_order, slopes
from interp.mediation.searches.job import Job, Mediators
from interp.mediation.searches.verify import TOP
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["integrated_gradients"]

PATHS = ("inputs", "activations")
EMBED = Site("embed")
STEPS = 8


def integrated_gradients(
    model: Model,
    pairs: PairSet,
    mediators: Mediators,
    *,
    path: str = "inputs",
    steps: int = STEPS,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    verify: int = TOP,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimate every effect from slopes averaged over a straight path (Sundararajan et al. 2017, 1703.01365).

    The estimate is ``sum (replacement - current) * mean over a of dY/d(current at a)`` with ``steps`` points
    ``a = (j + 1/2) / steps`` (midpoint rule: the error falls with the square of ``steps``).

    ``path="inputs"`` moves the embeddings from the prompt to the pair's other prompt, and reads every
    mediator in the same passes (as in Hanna et al. 2024, 2403.17806). At ``embed`` the effects add up to the
    total effect; how far they miss it is in ``cost[direction]["completeness_error"]`` (units of the metric,
    largest over pairs).

    ``path="activations"`` moves one carrying site at a time (all heads of a layer together), the rest of the
    model responding. For a mediator that is a whole site, such as ``mlp_out.3`` at all positions, this tends
    to the exact effect; for parts of a site it shares the joint effect out among them.

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: as for :func:`exhaustive`; likewise the others.
        path: ``inputs`` (``steps`` passes) or ``activations`` (``steps`` passes per carrying site).
        steps: how many points of the path.
        metric: a key of ``METRICS`` that has a gradient.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``.
        positions: as for ``mediators_of``.
        verify: how many of the largest to verify exactly, as for :func:`attribution`; 0 for none.
        seed: of resampling, of the sample and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: as for :func:`attribution`, an unknown path, or no steps.
    """
    if path not in PATHS:
        raise ConfigError(f"path {path!r} asked; use {' or '.join(PATHS)}.")
    if steps < 1:
        raise ConfigError(f"{steps} steps asked; a path needs at least 1.")
    job = Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    estimate = partial({"inputs": _by_inputs, "activations": _by_activations}[path], steps)
    return estimated(job, estimate, search=f"ig-{path}", verify=verify, progress=progress)


def _by_inputs(
    steps: int, job: Job, direction: str, targets: Targets, measured: Measured
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Move the embeddings; read every mediator in the same passes."""
    base, source = job.base(direction)
    sources = job.sources(source, job.mediators)
    sites = sorted({EMBED, *sources})
    starts = job.model.capture(base, [str(site) for site in sites], "all")
    ends = job.model.capture(source, "embed", "all")["embed"]
    found = np.zeros((len(job.mediators), len(job.pairs)))
    reached = np.zeros(len(job.pairs))
    for rows in chunks(job, steps):
        width = max(job.pairs.lengths[at] for at in rows)
        nodes = {site: starts[str(site)][rows, :width] for site in sites}
        change = ends[rows, :width] - nodes[EMBED]
        edits = [_moved(EMBED, nodes[EMBED], change, steps)]
        mean = _mean_slopes(job, direction, rows, targets, sites, steps, edits)
        found[:, rows] = first_order(job, rows, job.mediators, nodes, mean, sources).numpy()
        reached[rows] = (mean[EMBED] * change).double().sum(dim=(1, 2)).cpu().numpy()
    total = SIGNS[direction] * (measured["clean"] - measured["corrupt"])
    error = float(np.abs(reached - total).max())
    return SIGNS[direction] * found, {"forwards": 3 + 2 * steps, "completeness_error": error}


def _by_activations(
    steps: int, job: Job, direction: str, targets: Targets, measured: Measured
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Move one carrying site at a time, towards its replacement."""
    base, source = job.base(direction)
    sources = job.sources(source, job.mediators)
    starts = job.model.capture(base, [str(site) for site in sources], "all")
    found = np.zeros((len(job.mediators), len(job.pairs)))
    for rows in chunks(job, steps):
        width = max(job.pairs.lengths[at] for at in rows)
        nodes = {site: starts[str(site)][rows, :width] for site in sources}
        mean: dict[Site, Tensor] = {}
        for site, node in nodes.items():
            change = job.replacement.rule(node, sources[site][rows, :width].to(node)) - node
            edits = [_moved(site, node, change, steps)]
            mean |= _mean_slopes(job, direction, rows, targets, [site], steps, edits)
        found[:, rows] = first_order(job, rows, job.mediators, nodes, mean, sources).numpy()
    return SIGNS[direction] * found, {"forwards": 2 + 2 * steps * len(sources)}


def _moved(site: Site, start: Tensor, change: Tensor, steps: int) -> Intervention:
    """Put every point of the path into its copy of the rows, copies one after the other."""
    points = (torch.arange(steps, device=start.device) + 0.5) / steps
    on_the_way = [start + point.to(start.dtype) * change for point in points]
    return Intervention(site, torch.cat(on_the_way))


def _mean_slopes(
    job: Job,
    direction: str,
    rows: Sequence[int],
    targets: Targets,
    sites: Sequence[Site],
    steps: int,
    edits: Sequence[Intervention],
) -> dict[Site, Tensor]:
    """Average the slopes over the copies of each row: ``[row pos ...]``."""
    _, slope = slopes(job, direction, [*rows] * steps, targets, sites, edits)
    return {site: one.unflatten(0, (steps, len(rows))).mean(dim=0) for site, one in slope.items()}
