"""Hold estimates to exact effects: the largest, and a random sample of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from interp.errors import ConfigError
from interp.mediation.effects import Effects
from interp.mediation.searches.exhaustive import exhaustive
from interp.mediation.searches.job import Job

__all__ = ["SAMPLE", "TOP", "verified"]

TOP, SAMPLE = 10, 24
"""Mediators that are replaced exactly: the largest, unless asked otherwise, and a random sample."""


def verified(found: Effects, job: Job, k: int, progress: bool) -> Effects:
    """Replace the largest exactly, and a random sample of all, and say how well the estimates rank them.

    Raises:
        ConfigError: a negative count.
    """
    if k < 0:
        raise ConfigError(f"verify={k} asked; it is how many of the largest to verify, 0 for none.")
    top = list(found.top(k))
    rest = [m for m in found.mediators if m not in top]
    order = np.random.default_rng(job.seed).permutation(len(found.mediators))[:SAMPLE]
    sample = [found.mediators[at] for at in order]
    asked = tuple(dict.fromkeys([*top, *sample]))
    directions = "both" if len(job.directions) > 1 else next(iter(job.directions))
    kept: Any = {"metric": job.metric.name, "replacement": job.replacement.name, "seed": job.seed}
    exact = exhaustive(job.model, job.pairs, asked, directions=directions, progress=progress, **kept)
    truth = dict(zip(map(str, exact.mediators), exact.mean(), strict=True))
    guess = dict(zip(map(str, found.mediators), found.mean(), strict=True))
    names = [str(m) for m in sample]
    rank = float("nan")
    if len(names) > 2 and len({truth[name] for name in names}) > 1:
        found_rank: Any = stats.spearmanr([truth[n] for n in names], [guess[n] for n in names])
        rank = float(found_rank.statistic)
    checked = {
        "top": [
            {"mediator": str(m), "exact": truth[str(m)], "estimate": guess[str(m)], **_ends(exact, m)}
            for m in top
        ],
        "rank_correlation": rank,
        "rank_correlation_interval": _interval(rank, len(names)),
        "sample": len(names),
        "not_looked_at": len(rest),
    }
    cost: Mapping[str, Any] = {**found.cost, "exact": checked, "exact_cost": dict(exact.cost)}
    return replace(found, cost=cost, noise=exact.noise)


def _ends(exact: Effects, mediator: Any) -> dict[str, float]:
    """The ends of the interval of an exact effect."""
    found = exact.estimate(mediator).interval
    return {"low": found.low, "high": found.high}


def _interval(rank: float, n: int) -> tuple[float, float]:
    """Give the 95% interval of a rank correlation over n mediators (Bonett and Wright 2000)."""
    if not n > 3 or not abs(rank) < 1:
        return (rank, rank) if abs(rank) == 1 else (-1.0, 1.0)
    half = 1.96 * np.sqrt((1 + rank**2 / 2) / (n - 3))
    return float(np.tanh(np.arctanh(rank) - half)), float(np.tanh(np.arctanh(rank) + half))
