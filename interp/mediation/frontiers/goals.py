"""What mediators are wanted for, and how that is measured: a literal table, one row for each goal.

The goals are those of the survey of Mueller et al. (2024, arXiv 2408.01416): to explain, to localise and
then edit, and to predict what an intervention does.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENOUGH", "GOALS", "WITHIN", "Goal"]

ENOUGH = 0.8
"""The share that a set of units has to reach."""
WITHIN = f"within {100 * (1 - ENOUGH):.0f} points of 100%"
"""The same in words: what overshoots by as much is as far off."""


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        name: what users type (``--goal``).
        direction: a key of ``DIRECTIONS``: whose prompts are changed.
        share: what the share of a set of units is, in words.
        short: the same in two words.
        cheap: the columns by which types are compared, the first first.
        side: whether side effects on other pairs are measured.
        foretold: whether the share is that of what single effects say, not of what is done.
    """

    name: str
    direction: str
    share: str
    short: str
    cheap: tuple[str, ...]
    side: bool = False
    foretold: bool = False


_ROWS = (
    Goal(
        "explain",
        "denoising",
        "share of the behaviour that the units' values of the clean prompt bring back, all else being "
        "computed from the corrupt one",
        "brought back",
        ("scalars", "units", "bits", "forwards"),
    ),
    Goal(
        "edit",
        "noising",
        "share of the way from the answer to the foil, the units' values being those of the corrupt prompt",
        "changed",
        ("side", "scalars", "units", "bits", "forwards"),
        side=True,
    ),
    Goal(
        "predict",
        "denoising",
        "1 less the distance of the sum of single effects, found on other pairs, from the effect of all "
        "together, in shares of the behaviour",
        "foretold",
        ("scalars", "units", "bits", "forwards"),
        foretold=True,
    ),
)
GOALS: dict[str, Goal] = {row.name: row for row in _ROWS}
