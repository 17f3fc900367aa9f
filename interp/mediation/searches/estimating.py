"""The frame of every search by gradients: checked arguments, one estimate per direction, exact checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from interp.mediation.effects import Effects
from interp.mediation.metrics import Targets
from interp.mediation.searches.gradients import need_gradient
from interp.mediation.searches.job import Job
from interp.mediation.searches.verify import verified

__all__ = ["Measured", "estimated"]

Measured = Mapping[str, np.ndarray]
"""Direction -> ``[pair]``, the metric before (``clean`` and ``corrupt``) anything is replaced."""
Estimate = Callable[[Job, str, Targets, Measured], tuple[np.ndarray, Mapping[str, Any]]]
"""From a job, a direction, its targets and the metric of plain runs to ``[mediator pair]`` and its bill."""


def estimated(
    job: Job, estimate: Estimate, *, search: str, verify: int, progress: bool, warnings: tuple[str, ...] = ()
) -> Effects:
    """Estimate every effect in every direction, and verify the largest exactly.

    Args:
        job: the checked arguments of the search.
        estimate: what tells one search from another.
        search: its name.
        verify: how many of the largest to verify; 0 for none.
        progress: show a progress bar while they are verified.
        warnings: what a reader should know about these estimates.

    Raises:
        ConfigError: a metric without a gradient, or a negative ``verify``.
    """
    need_gradient(job)
    targets, clean, corrupt = job.unpatched()
    values: dict[str, np.ndarray] = {}
    cost: dict[str, Any] = {"forwards": 2.0}
    for direction in job.directions:
        found, bill = estimate(job, direction, targets, {"clean": clean, "corrupt": corrupt})
        values[direction] = found
        cost["forwards"] += bill["forwards"]
        rest = {name: value for name, value in bill.items() if name != "forwards"}
        cost |= {direction: rest} if rest else {}
    effects = job.effects(values, clean, corrupt, search=search, exact=False, cost=cost, warnings=warnings)
    return verified(effects, job, verify, progress) if verify else effects
