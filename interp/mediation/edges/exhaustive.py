"""Exact effects of edges: each on its own, by the circuit run."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.mediation.edges.engine import CutRow, EdgeEngine
from interp.mediation.edges.job import EdgeJob, Edges
from interp.mediation.effects import Effects
from interp.mediation.metrics import Targets
from interp.mediation.noise import rounding_error
from interp.mediation.searches.gradients import SIGNS
from interp.models.loading import ModelLike
from interp.pairs import PairSet

__all__ = ["billed", "edge_effects"]


def edge_effects(
    model: ModelLike,
    pairs: PairSet,
    edges: Edges = "edge.*",
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Let each edge on its own carry the other prompt's value, exactly; all that reads it responds.

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        edges: names and globs such as ``edge.*->logits`` or ``head.3.1->q.5.2``, or edges.
        metric: a key of ``METRICS``.
        replacement: a key of ``REPLACEMENTS``, of what the writer adds.
        directions: ``both``, ``denoising`` or ``noising``; see ``DIRECTIONS``.
        seed: of resampling and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown metric, replacement or direction.
        SiteError: an edge that does not exist, or a model that does not offer edges.
        ModelError: the model's edges do not add up to its own runs.
    """
    job = EdgeJob.of(model, pairs, edges, metric, replacement, directions, seed)
    targets, clean, corrupt = job.job.unpatched()
    values: dict[str, np.ndarray] = {}
    cost: dict[str, Any] = {}
    for direction in job.job.directions:
        values[direction], cost[direction] = _sweep(job, direction, targets, progress)
    noise = rounding_error(
        job, values, lambda part, way: _sweep(part, way, part.job.unpatched()[0], False)[0]
    )
    return job.effects(values, clean, corrupt, search="exhaustive", noise=noise, cost=cost)


def _sweep(
    job: EdgeJob, direction: str, targets: Targets, progress: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """Cut every edge in every pair in one direction; give effects and the bill."""
    engine = EdgeEngine(job.job.model, job.job.base(direction)[0], job.graph)
    n, places = len(job.job.pairs), job.graph.indices(job.edges)
    plain = [CutRow(at, places[:0]) for at in range(n)]
    rows = [CutRow(at, place) for place in places[:, None].unbind() for at in range(n)]
    measured = job.measure(engine, [*plain, *rows], job.sources(direction), targets, progress)
    change = measured[n:].reshape(len(job.edges), n) - measured[:n]
    return SIGNS[direction] * change, billed(engine)


def billed(engine: EdgeEngine) -> dict[str, Any]:
    """Give the bill of an engine as plain data."""
    return {
        "forwards": round(engine.bill.forwards, 2),
        "rows": engine.bill.rows,
        "skipped": engine.bill.skipped,
        "checked": engine.bill.checked,
        "fallback": engine.bill.fallback,
    }
