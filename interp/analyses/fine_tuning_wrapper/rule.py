"""Wrapped, deleted or inconclusive: the verdict needs every part, in every seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.analyses.fine_tuning_wrapper.hidden import Hidden
from interp.analyses.fine_tuning_wrapper.pruning import Pruned
from interp.analyses.fine_tuning_wrapper.revival import Curve

__all__ = ["PARTS", "RULE", "Part", "back", "hidden", "quick", "verdict"]

KEPT, GONE = 0.7, 0.3
"""Accuracy of the reader over that in the base: still there, and not there."""
READS = 0.1
"""What it must name in the base, beyond twice what exchanged answers give."""
BACK, NOT_BACK, BEYOND, HARM = 0.5, 0.2, 0.25, 0.8
"""R(k): brought back, and not; how far beyond random units; and how much else must still be answered."""
QUICK, SLOW, APART = 0.2, 0.5, 0.1
"""Steps to 90% over those from the re-drawn copy; and mean accuracies over the steps that are alike."""
LEARNED, WHOLE = 0.25, 0.9
"""Of the facts that were trained on: a start that answers fewer at the end learned nothing; and where no
unseen fact came back, so many must be learned before that says anything."""
PARTS = {
    "hidden": "is it still there?",
    "back": "do few units bring it back?",
    "quick": "does it return quicker than it is learned?",
}
RULE = (
    f"Still there: unseen answers are read inside at {KEPT:.0%} or more of the base's accuracy (not there: "
    f"{GONE:.0%} or less), at the layer that reads the seen ones best, beyond exchanged answers. Brought "
    f"back: R(k) of {BACK:g} or more on unseen facts, {BEYOND:g} beyond random units of like size, for the k "
    f"up to 16 that is best on seen facts and leaves {HARM:.0%} of the other answers (not back: "
    f"{NOT_BACK:g} or less). "
    f"Quicker: {QUICK:g} or less of the steps to 90% that the re-drawn copy takes (not quicker: {SLOW:g} or "
    f"more, and a mean accuracy over the steps at most {APART:g} above that copy's; not told where no start "
    f"answers {LEARNED:.0%} of what it was trained on, or neither gets there before {WHOLE:.0%} of that is "
    "learned). Wrapped: all three in every seed. Deleted: none of the three in every seed."
)


@dataclass(frozen=True)
class Part:
    """What one part says.

    Attributes:
        name: a key of ``PARTS``.
        values: one number for each seed.
        says: "yes", "no" or "unclear": in every seed, or not.
        words: what was found.
    """

    name: str
    values: tuple[float, ...]
    says: str
    words: str


def _says(name: str, values: Sequence[float], yes: Sequence[bool], no: Sequence[bool], words: str) -> Part:
    answer = "yes" if all(yes) else "no" if all(no) else "unclear"
    return Part(name, tuple(values), answer, words)


def _ends(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


def works(base: Sequence[Hidden]) -> bool:
    """Whether a reader reads the base itself, in every seed."""
    return all(one.best.accuracy > 2 * one.best.shuffled + READS for one in base)


def hidden(base: Sequence[Hidden], tuned: Sequence[Hidden], reader: str = "linear reader") -> Part:
    """Whether the answers are read inside the tuned model as they are in the base, seed by seed."""
    own, before = ([one.best.accuracy for one in part] for part in (tuned, base))
    luck = [one.best.shuffled for one in tuned]
    share = [a / b if b else 0.0 for a, b in zip(own, before, strict=True)]
    told = [a > c for a, c in zip(own, luck, strict=True)]
    yes = [value >= KEPT and ok for value, ok in zip(share, told, strict=True)]
    no = [value <= GONE for value in share]
    words = f"read inside by a {reader} {_ends(own)} of unseen answers, in the base {_ends(before)}"
    if not works(base):  # a reader that fails in the base says nothing
        return Part("hidden", tuple(share), "unclear", f"{words}: the reader does not work in the base")
    return _says("hidden", share, yes, no, words)


def chosen(rows: Sequence[Pruned], most: int = 16) -> Pruned:
    """The number of units that is best on seen facts and leaves the other answers; the fewest of equals."""
    few = [one for one in rows if one.count <= most]
    fine = [one for one in few if one.kept >= HARM] or few
    return max(fine, key=lambda one: (one.fitted, -one.count))


def back(rows: Sequence[Sequence[Pruned]]) -> Part:
    """Whether removing few units brings the answers back, seed by seed."""
    best = [chosen(one) for one in rows]
    values = [one.share for one in best]
    yes = [one.share >= BACK and one.share - one.random >= BEYOND and one.kept >= HARM for one in best]
    no = [max(one.share for one in part if one.count <= 16) <= NOT_BACK for part in rows]
    counts = sorted({one.count for one in best})
    few = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    units = "unit" if few == "1" else "units"
    luck = _ends([one.random for one in best])
    words = f"removing {few} {units} brings {_ends(values)} back, random ones {luck}"
    if any(math.isnan(one.kept) for one in best):
        words += "; there are no other answers that show what else it takes away"
    return _says("back", values, yes, no, words)


def quick(curves: Mapping[str, Sequence[Curve]]) -> Part:
    """Whether the answers return quicker than from the re-drawn copy, seed by seed.

    A start that does not get there within the steps took more than them: the ratio is then at most that over
    the steps. Where both do not, it did not return quicker within these steps, which says something only
    once what was trained on is learned. Where in some seed no start answers even the facts that it was
    trained on, the training was too short, or cannot learn such facts: nothing is told.
    """
    ratios, alike, words = [], [], []
    for own, other in zip(curves["tuned"], curves["re-drawn"], strict=True):
        last = own.steps[-1]
        alike.append(own.area - other.area <= APART)
        if own.t90 is None:
            ratios.append(1.0)
        else:
            ratios.append(own.t90 / (last if other.t90 is None else max(other.t90, 1)))
        words.append(f"{own.t90 if own.t90 is not None else f'over {last}'}")
    others = [f"{one.t90 if one.t90 is not None else f'over {one.steps[-1]}'}" for one in curves["re-drawn"]]
    yes = [value <= QUICK for value in ratios]
    no = [value >= SLOW and ok for value, ok in zip(ratios, alike, strict=True)]
    said = f"back to 90% in {', '.join(words)} steps, from the re-drawn copy in {', '.join(others)}"
    best: dict[int, float] = {}
    for one in (one for part in curves.values() for one in part):
        best[one.seed] = max(best.get(one.seed, 0.0), one.learned, *one.accuracy)
    if min(best.values()) < LEARNED:
        n = curves["tuned"][0].steps[-1]
        return Part(
            "quick", tuple(ratios), "unclear", f"nothing was learned within {n} steps, from any start"
        )
    if all(one.t90 is None for name in ("tuned", "re-drawn") for one in curves[name]):
        known = min(one.learned for one in curves["tuned"])
        if known < WHOLE:
            why = (
                f"neither got there, and of what was trained on {known:.0%} was learned: more steps may tell"
            )
            return Part("quick", tuple(ratios), "unclear", f"{said}; {why}")
        said += "; neither got there, though what was trained on was learned"
    return _says("quick", ratios, yes, no, said)


def verdict(parts: Sequence[Part]) -> str:
    """The word for all parts together."""
    says = {one.says for one in parts}
    word = {"yes": "wrapped", "no": "deleted"}[says.pop()] if says in ({"yes"}, {"no"}) else "inconclusive"
    return f"{word}: " + "; ".join(f"{PARTS[one.name]} {one.says} ({one.words})" for one in parts)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, least and most over seeds."""
    return float(np.mean(values)), min(values), max(values)
