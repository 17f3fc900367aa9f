"""Probes trained on shuffled labels: how far luck carries the same probe, over many shuffles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.base import Probe
from probes.statistics import Estimate, Interval

__all__ = ["SHUFFLES", "refitted_alike", "spread"]

SHUFFLES = 20
"""One shuffle is luck: where states are alike within a few kinds, a probe of shuffled labels is right by
accident on all of a kind, or wrong on all of it."""


def refitted_alike(probe: Probe) -> Probe:
    """Make an unfitted probe of the same kind and settings, with the penalty that was chosen for this one."""
    given: dict[str, Any] = probe.get_params()
    facts = probe.facts()
    chosen = {**facts, **facts.get("notes", {})}.get("regularisation")
    if "regularisation" in given and chosen is not None:
        given["regularisation"] = chosen
    return type(probe)(**given)


def spread(hits: np.ndarray, groups: Sequence[Any]) -> Estimate:
    """Summarise a control that was drawn many times: its mean, and where nine in ten of its draws lie.

    Args:
        hits: ``[draw example]``, 1 where a draw is right.
        groups: of the examples.
    """
    low, high = np.quantile(hits.mean(axis=1), [0.05, 0.95])
    interval = Interval(float(low), float(high), 0.9, f"5% to 95% of {len(hits)} shuffles")
    return Estimate(float(hits.mean()), interval, hits.shape[1], len(set(groups)))
