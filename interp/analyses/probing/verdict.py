"""The verdict in plain words: what the numbers allow one to say, and nothing more."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from interp.analyses.guessing import Guessing
from interp.analyses.probing.controls import CONTROLS
from probes.statistics import Estimate

if TYPE_CHECKING:
    from interp.analyses.probing.scores import Score

__all__ = ["named", "not_beaten", "tested", "verdict"]


def verdict(found: Estimate, layer: int, guessing: Guessing, controls: Sequence[Score]) -> str:
    """Say whether the label is decodable, and which comparisons the probe does not beat, the worst first.

    Args:
        found: the probe's accuracy on test.
        layer: where.
        guessing: the test against guessing: the only one that decides whether the label is decodable.
        controls: the controls' scores with their paired differences (probe less control).
    """
    rivals = {score.name: CONTROLS[score.name].words for score in controls if not CONTROLS[score.name].null}
    unbeaten = not_beaten(named(controls, rivals, guessing), rivals)
    place = f"at layer {layer} ({found}; {tested(guessing)})"
    if not guessing.beaten:
        more = f"; {unbeaten}" if unbeaten else ""
        luck = f"that is not told from guessing, {guessing.expected:.2f}"
        return f"not shown to be decodable {place}: {luck}{more}"
    if unbeaten:
        return f"decodable {place}, but {unbeaten}"
    if not controls:
        return f"above guessing {place}, but nothing was controlled for"
    known = ", ".join(f"{CONTROLS[score.name].words} {score.value:.2f}" for score in controls)
    return f"decodable {place}, above every control: {known}"


def named(controls: Sequence[Score], rivals: Collection[str], guessing: Guessing) -> list[Score]:
    """Choose what a verdict compares with; of a probe not told from guessing, only what scores more."""
    kept = [score for score in controls if score.name in rivals and score.difference is not None]
    return kept if guessing.beaten else [s for s in kept if s.difference and s.difference.value < 0]


def tested(guessing: Guessing) -> str:
    """Give the p value in words."""
    return "p < 0.001" if guessing.p_value < 0.001 else f"p = {guessing.p_value:.2g}"


def not_beaten(scores: Sequence[Score], words: dict[str, str]) -> str:
    """Name the comparisons that the probe does not clearly beat, the worst first; "" where it beats all.

    Args:
        scores: comparisons with the probe's difference to each.
        words: of each, by name.
    """
    kept = [(score.difference, score) for score in scores if score.difference is not None]
    lost = [(less, score) for less, score in kept if less.interval.low <= 0]
    lost.sort(key=lambda pair: (pair[0].interval.high >= 0, pair[0].value))
    return " and ".join(
        f"{words[score.name]} {'does better' if less.interval.high < 0 else 'is not clearly beaten'} "
        f"({score.value:.2f}; difference {less.value:+.2f} {less.interval})"
        for less, score in lost
    )
