"""The verdict in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from interp.analyses.concepts.controls import CONTROLS
from interp.analyses.probing.scores import Score
from interp.tasks.protocols import Protocol
from probes.statistics import Estimate

__all__ = ["verdict"]


def verdict(found: Estimate, layer: int, chance: float, scores: Sequence[Score], protocol: Protocol) -> str:
    """Say whether the concepts can be read, what reads them as well, and what that would not show.

    Args:
        found: the probe's top-1 on test.
        layer: where.
        chance: what guessing scores.
        scores: controls and baselines with their paired differences (probe less control).
        protocol: what was asked.
    """
    refuting = [score for score in scores if score.difference and not CONTROLS[score.name].baseline]
    unbeaten = [score for score in refuting if score.difference and score.difference.interval.low <= 0]
    place = f"at layer {layer} (top-1 {found})"
    if any(CONTROLS[score.name].floor for score in unbeaten) or found.interval.low <= chance:
        return f"not shown to be readable {place}: {_joined(unbeaten) or f'chance is {chance:.3f}'}"
    if unbeaten:
        return f"readable {place}, but {_joined(unbeaten)}"
    if protocol.upper_bound:
        return f"an upper bound, not evidence: {place[3:]}; {protocol.knower}"
    if not refuting:
        return f"above chance {place}, but nothing was controlled for"
    best = max(refuting, key=lambda score: score.value)
    return (
        f"readable {place}, above every control (the best is {CONTROLS[best.name].words}, {best.value:.2f})"
    )


def _joined(scores: Sequence[Score]) -> str:
    named = [f"{CONTROLS[s.name].words} ({s.value:.2f})" for s in scores]
    if len(named) < 2:
        return "".join(f"{name} reads as much" for name in named)
    return f"{', '.join(named[:-1])} and {named[-1]} read as much"
