"""Activation patching: replace each mediator on its own, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.mediation.edges.asked import are_edges, at_all_positions
from interp.mediation.effects import Effects
from interp.mediation.engine import Engine
from interp.mediation.metrics import Targets
from interp.mediation.noise import rounding_error
from interp.mediation.searches.job import Job, Mediators
from interp.mediation.walk import Row
from interp.models.loading import ModelLike
from interp.pairs import PairSet

__all__ = ["exhaustive", "prepared"]


def exhaustive(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Replace each mediator on its own, exactly (activation patching; Vig et al. 2020, Meng et al. 2022).

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: names and globs such as ``head.*``, ``resid_post.*`` or ``edge.*->logits``, sites,
            mediators or edges.
        metric: a key of ``METRICS``.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``; see ``DIRECTIONS``.
        positions: as for ``mediators_of``.
        seed: of resampling, of the rows that are checked, and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown metric, replacement, direction or position.
        SiteError: a mediator that the model does not have.
        ModelError: the fast passes differ from whole forward passes.
    """
    if are_edges(mediators):
        from interp.mediation.edges.exhaustive import edge_effects

        at_all_positions(positions)
        return edge_effects(
            model,
            pairs,
            mediators,
            metric=metric,
            replacement=replacement,
            directions=directions,
            seed=seed,
            progress=progress,
        )
    job = Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    targets, clean, corrupt = job.unpatched()
    values: dict[str, np.ndarray] = {}
    cost: dict[str, Any] = {}
    for direction in job.directions:
        values[direction], cost[direction] = _sweep(job, direction, targets, progress)
    noise = rounding_error(job, values, lambda part, way: _sweep(part, way, part.unpatched()[0], False)[0])
    return job.effects(values, clean, corrupt, search="exhaustive", noise=noise, cost=cost)


def _sweep(job: Job, direction: str, targets: Targets, progress: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """Patch every mediator into every pair in one direction; give effects and the bill."""
    source, n = job.base(direction)[1], len(job.pairs)
    engine, rows, cells = prepared(job, direction)
    engine.bill.skipped = len(job.mediators) * n - len(cells)
    measured = np.zeros(len(rows))

    def measure(numbers: Sequence[int], logits: Tensor) -> None:
        index = torch.tensor([rows[at].example for at in numbers], device=targets.answers.device)
        measured[list(numbers)] = job.values(logits.to(index.device), targets.rows(index))

    engine.each(
        rows, job.sources(source, job.mediators), measure, rule=job.replacement.rule, progress=progress
    )
    plain = measured[:n]
    result = np.zeros((len(job.mediators), n))
    sign = 1.0 if direction == "denoising" else -1.0
    for (m, e), value in zip(cells, measured[n:], strict=True):
        result[m, e] = sign * (value - plain[e])
    bill = engine.bill
    facts = {
        "forwards": round(bill.forwards, 2),
        "setup": bill.setup,
        "rows": bill.rows,
        "skipped": bill.skipped,
        "checked": bill.checked,
        "fallback": bill.fallback,
    }
    return result, facts


def prepared(job: Job, direction: str) -> tuple[Engine, list[Row], list[tuple[int, int]]]:
    """Give the engine, a plain copy of each prompt and the patched ones, and the cells that those fill.

    Args:
        job: the checked arguments of the search.
        direction: whose base prompts are patched.

    Returns:
        The engine; the rows it is to run; and per patched row the numbers of its mediator and its pair.
    """
    n, paired = len(job.pairs), job.replacement.paired
    since = job.pairs.first_difference if paired else None
    engine = Engine(job.model, job.base(direction)[0], job.seed, since=since)
    cells = [(m, e) for m in range(len(job.mediators)) for e in range(n) if not _nothing(job, m, e)]
    rows = [*(Row(e) for e in range(n)), *(Row(e, (job.mediators[m],)) for m, e in cells)]
    return engine, rows, cells


def _nothing(job: Job, number: int, example: int) -> bool:
    """Say whether a replacement provably changes nothing: equal tokens so far, or nobody reads it."""
    mediator, length = job.mediators[number], job.pairs.lengths[example]
    at = mediator.position
    if at is None:
        return False
    at = at % length
    if job.replacement.paired and at < job.pairs.first_difference[example]:
        return True
    last = mediator.site.layer == job.model.n_layers - 1
    return last and at < length - 1 and mediator.site.kind not in ("embed", "resid_pre", "k", "v")
