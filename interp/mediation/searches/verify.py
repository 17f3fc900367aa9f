"""Hold estimates to exact effects: the largest, and a random sample of all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from interp.errors import ConfigError
from interp.mediation.effects import Effects, Verified, VerifiedEffect
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
    order = np.random.default_rng(job.seed).permutation(len(found.mediators))[:SAMPLE]
    sample = [found.mediators[at] for at in order]
    asked = tuple(dict.fromkeys([*top, *sample]))
    directions = "both" if len(job.directions) > 1 else next(iter(job.directions))
    kept: Any = {"metric": job.metric.name, "replacement": job.replacement.name, "seed": job.seed}
    exact = exhaustive(job.model, job.pairs, asked, directions=directions, progress=progress, **kept)
    truth = dict(zip(map(str, exact.mediators), exact.mean(), strict=True))
    guess = dict(zip(map(str, found.mediators), found.mean(), strict=True))
    names = [str(m) for m in sample]
    rank = None
    if len(names) > 2 and len({truth[name] for name in names}) > 1:
        found_rank: Any = stats.spearmanr([truth[n] for n in names], [guess[n] for n in names])
        rank = float(found_rank.statistic) if np.isfinite(found_rank.statistic) else None
    low, high = (None, None) if rank is None else _interval(rank, len(names))
    checked = tuple(_beside(exact, guess[str(one)], one) for one in top)
    return replace(
        found,
        cost={**found.cost, "verified": dict(exact.cost)},
        noise=exact.noise,
        verified=Verified(checked, rank, low, high, len(names)),
    )


def _beside(exact: Effects, estimate: float, mediator: Any) -> VerifiedEffect:
    """The exact effect of a mediator, with its interval, beside the estimate."""
    truth = exact.mean()[exact.place(mediator)]
    ends = exact.estimate(mediator).interval
    return VerifiedEffect(str(mediator), float(estimate), float(truth), ends.low, ends.high)


def _interval(rank: float, n: int) -> tuple[float, float]:
    """Give the 95% interval of a rank correlation over n mediators (Bonett and Wright 2000)."""
    if not n > 3 or not abs(rank) < 1:
        return (rank, rank) if abs(rank) == 1 else (-1.0, 1.0)
    half = 1.96 * np.sqrt((1 + rank**2 / 2) / (n - 3))
    return float(np.tanh(np.arctanh(rank) - half)), float(np.tanh(np.arctanh(rank) + half))
