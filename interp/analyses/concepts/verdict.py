"""The verdict in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from interp.analyses.concepts.controls import CONTROLS
from interp.analyses.guessing import Guessing
from interp.analyses.probing.scores import Score, named, not_beaten, tested
from interp.tasks.protocols import Protocol
from probes.statistics import Estimate

__all__ = ["verdict"]


def verdict(
    found: Estimate, layer: int, guessing: Guessing, scores: Sequence[Score], protocol: Protocol
) -> str:
    """Say whether the concepts can be read, what reads them as well, and what that would not show.

    Args:
        found: the probe's top-1 on test.
        layer: where.
        guessing: the test against guessing: the only one that decides whether concepts are readable.
        scores: controls and baselines with their paired differences (probe less control).
        protocol: what was asked.
    """
    words = {score.name: CONTROLS[score.name].words for score in scores}
    controls = [score for score in scores if not CONTROLS[score.name].baseline]
    rivals = [score.name for score in controls if not CONTROLS[score.name].null]
    unbeaten = not_beaten(named(controls, rivals, guessing), words)
    ahead = _ahead([score for score in scores if CONTROLS[score.name].baseline], words)
    place = f"at layer {layer} (top-1 {found}; {tested(guessing)})"
    if not guessing.beaten:
        more = f"; {unbeaten}" if unbeaten else ""
        luck = f"that is not told from guessing, {guessing.expected:.3f}"
        return f"not shown to be readable {place}: {luck}{more}"
    if unbeaten:
        return f"readable {place}, but {unbeaten}{ahead}"
    if protocol.upper_bound:
        return f"an upper bound, not evidence: {place[3:]}; {protocol.knower}{ahead}"
    if not controls:
        return f"above guessing {place}, but nothing was controlled for{ahead}"
    best = max(controls, key=lambda score: score.value)
    most = f"the best is {CONTROLS[best.name].words}, {best.value:.2f}"
    return f"readable {place}, above every control ({most}){ahead}"


def _ahead(baselines: Sequence[Score], words: dict[str, str]) -> str:
    """Name the baselines that clearly read more than the probe; "" where none does."""
    better = not_beaten([s for s in baselines if s.difference and s.difference.interval.high < 0], words)
    return f"; among other readers of the same states, {better}" if better else ""
