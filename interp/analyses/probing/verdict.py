"""The verdict in plain words: what the numbers allow one to say, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.analyses.probing.controls import CONTROLS
from probes.statistics import Estimate

if TYPE_CHECKING:
    from interp.analyses.probing.scores import Score

__all__ = ["verdict"]


def verdict(found: Estimate, layer: int, chance: float, controls: Sequence[Score]) -> str:
    """Say whether the label is decodable, and what does as well.

    Args:
        found: the probe's accuracy on test.
        layer: where.
        chance: the accuracy of guessing uniformly.
        controls: the controls' scores with their paired differences (probe less control).
    """
    unbeaten = [score for score in controls if score.difference and score.difference.interval.low <= 0]
    floors = [score for score in unbeaten if CONTROLS[score.name].floor]
    place = f"at layer {layer} ({found})"
    if floors:
        return f"not shown to be decodable {place}: {_joined(floors)}"
    if found.interval.low <= chance:
        return f"not shown to be decodable {place}: chance is {chance:.2f}"
    if unbeaten:
        return f"decodable {place}, but {_joined(unbeaten)}"
    if not controls:
        return f"above chance {place}, but nothing was controlled for"
    known = ", ".join(f"{CONTROLS[score.name].words} {score.value:.2f}" for score in controls)
    return f"decodable {place}, above every control: {known}"


def _joined(scores: Sequence[Score]) -> str:
    return " and ".join(f"{CONTROLS[s.name].words} {_compared(s)} ({s.value:.2f})" for s in scores)


def _compared(score: Score) -> str:
    assert score.difference is not None
    if score.difference.interval.high < 0:
        return "does better"
    return "does as well" if score.difference.value <= 0 else "is not clearly beaten"
