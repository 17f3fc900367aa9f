"""Attribution patching: every effect from one gradient per run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.mediation.edges.asked import are_edges, at_all_positions
from interp.mediation.effects import Effects
from interp.mediation.metrics import Targets
from interp.mediation.searches.estimating import Measured, estimated
from interp.mediation.searches.gradients import SIGNS, chunks, first_order, slopes
from interp.mediation.searches.job import Job, Mediators
from interp.models.accept import ModelLike
from interp.pairs import PairSet

__all__ = ["attribution"]


def attribution(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    verify: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimate every effect from one gradient per run (attribution patching; Syed et al. 2023, 2310.10348).

    The estimate is ``sum (replacement - current) * dY/d(current)``, with gradients of activations only. The
    largest ``verify`` are replaced exactly, with a random sample of all; ``cost["exact"]`` holds those
    effects and the rank correlation on the sample.

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: as for :func:`exhaustive`; likewise the others.
        metric: a key of ``METRICS`` that has a gradient.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``.
        positions: as for ``mediators_of``.
        verify: how many of the largest to verify; 0 for none.
        seed: of resampling, of the sample and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: as for :func:`exhaustive`, or a metric without a gradient.
    """
    if are_edges(mediators):
        from interp.mediation.edges.attribution import edge_attribution

        at_all_positions(positions)
        return edge_attribution(
            model,
            pairs,
            mediators,
            metric=metric,
            replacement=replacement,
            directions=directions,
            verify=verify,
            seed=seed,
            progress=progress,
        )
    job = Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    return estimated(job, _estimates, search="attribution", verify=verify, progress=progress)


def _estimates(
    job: Job, direction: str, targets: Targets, measured: Measured
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Give ``[mediator pair]`` first-order effects in one direction."""
    sources = job.sources(job.base(direction)[1], job.mediators)
    found = np.zeros((len(job.mediators), len(job.pairs)))
    for rows in chunks(job):
        nodes, gradients = slopes(job, direction, rows, targets, sorted(sources))
        estimates = first_order(job, rows, job.mediators, nodes, gradients, sources)
        found[:, rows] = SIGNS[direction] * estimates.numpy()
    return found, {"forwards": 3}
