"""The verdict on one finding: does it survive in the other model?

The rule, in terms of the *excess* of a finding over its control, turned so that more of the finding is more:
by the finding's own direction, or else so that the reference's is positive.

``delta``
    The larger of three noise floors and 10% of the reference's excess.
``survives``
    The interval of the paired difference lies within ``[-delta, delta]``. What the reference does not show
    clearly survives only where the interval lies within the noise floor itself: else "survives" would say
    nothing.
``lost``
    The reference is clear of its control, the other's excess is not above zero (its interval includes 0 or
    lies below it), and the upper end of its interval is under ``delta``.
``weakened``, ``strengthened``
    The interval of the difference lies wholly below ``-delta`` (and the finding is not lost), or wholly
    above ``delta``.
``inconclusive``
    Everything else, and whatever the reference itself does not show clearly. That a difference is not
    significant never makes a finding survive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import special

from interp.errors import DataError
from interp.results.findings import Finding
from probes.statistics import Interval, bootstrap, paired_difference

__all__ = ["FLOORS", "SHARE", "VERDICTS", "Judgement", "excess", "judge"]

VERDICTS: dict[str, str] = {
    "survives": "the difference is within delta, the smallest change that would matter",
    "weakened": "it is smaller by more than delta, and not shown to be gone",
    "strengthened": "it is larger by more than delta",
    "lost": "it was clear of its control, and is not above it any more",
    "inconclusive": "the data cannot tell, or the reference does not show it clearly itself",
}
FLOORS = 3.0
SHARE = 0.1
LEVEL = 0.95
ENOUGH = 6
"""Groups that there must be before a number that is the same in all of them is taken as known, or drawn."""
SHARES = ("share", "Jaccard")
"""Units of values that lie between 0 and 1."""
DRAWS = 1000
"""Draws of groups for a finding that is no mean, whose statistic is computed for each."""


@dataclass(frozen=True)
class Judgement:
    """Hold one finding in both models and the verdict.

    Attributes:
        finding: its name.
        verdict: a key of ``VERDICTS``.
        reference: its value in the reference.
        value: its value in the other model.
        control: what the reference has to beat.
        difference: of the excesses, over the same items: value less reference, and where the control is
            measured in each model, less what that changes.
        low: lower end of its 95% interval over groups.
        high: upper end.
        noise: the larger noise floor: what another batch layout, or bf16, changes in the reference.
        delta: the smallest change that would matter.
        excess: of the other model over its own control.
        excess_low: lower end of its 95% interval.
        excess_high: upper end.
        clear: whether the reference is told from its control, in the finding's direction: its interval
            excludes it, and the excess is above six noise floors, so that delta is at most half of it. A
            finding that is not clear survives or is inconclusive.
        unit: of value, reference, control and difference.
        n: items.
        n_groups: independent groups of them.
        curve: findings of one curve share it.
        layer: where on the curve.
        method: of the interval of the difference.
        about: one sentence about the finding.
    """

    finding: str
    verdict: str
    reference: float
    value: float
    control: float
    difference: float
    low: float
    high: float
    noise: float
    delta: float
    excess: float
    excess_low: float
    excess_high: float
    clear: bool
    unit: str
    n: int
    n_groups: int
    curve: str = ""
    layer: int | None = None
    method: str = ""
    about: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as a dictionary."""
        return asdict(self)


def judge(
    reference: Finding,
    other: Finding,
    *,
    noise: float = 0.0,
    same: bool = False,
    seed: int = 0,
    before: Interval | None = None,
) -> Judgement:
    """Give the verdict on one finding.

    Args:
        reference: the finding in the full model.
        other: the finding of the same name in the other model, over the same items.
        noise: the noise floor, in the finding's unit.
        same: whether both are the same weights in the same arithmetic, so that equal values are proof.
        seed: of the draws of groups.
        before: what :func:`excess` gives for the reference, where it is known already.

    Raises:
        DataError: the items differ.
    """
    if reference.groups != other.groups:
        raise DataError(
            f"finding {reference.name!r}: the two models were measured on other items "
            f"({len(reference.groups)} and {len(other.groups)}, or other groups). An analysis has to draw "
            "its items from its seed alone, whatever the model says."
        )
    sign = float(reference.direction) or (-1.0 if reference.excess < 0 else 1.0)
    delta = max(FLOORS * noise, SHARE * abs(reference.excess))
    change = _difference(other, reference, same, seed)
    own, before = excess(other, seed), excess(reference, seed) if before is None else before
    clear = _turned(before, sign).low > 0.0 and abs(reference.excess) > 2 * FLOORS * noise
    verdict = _verdict(
        _turned(change, sign), _turned(own, sign), delta, delta if clear else noise, clear=clear
    )
    return Judgement(
        finding=reference.name,
        verdict=verdict,
        reference=reference.value,
        value=other.value,
        control=reference.floor,
        difference=other.excess - reference.excess,
        low=change.low,
        high=change.high,
        noise=noise,
        delta=delta,
        excess=other.excess,
        excess_low=own.low,
        excess_high=own.high,
        clear=clear,
        unit=reference.unit,
        n=len(reference.values),
        n_groups=reference.n_groups,
        curve=reference.curve,
        layer=reference.layer,
        method=change.method,
        about=reference.about,
    )


def _verdict(change: Interval, left: Interval, delta: float, bound: float, *, clear: bool) -> str:
    if -bound <= change.low and change.high <= bound:
        return "survives"
    if not clear:
        return "inconclusive"
    if left.low <= 0.0 and left.high < delta:
        return "lost"
    if change.high < -delta:
        return "weakened"
    if change.low > delta:
        return "strengthened"
    return "inconclusive"


def _turned(interval: Interval, sign: float) -> Interval:
    """Turn an interval around zero, so that the reference's excess is positive."""
    if sign > 0:
        return interval
    return Interval(-interval.high, -interval.low, interval.level, interval.method)


def _difference(other: Finding, reference: Finding, same: bool, seed: int) -> Interval:
    """Give the interval of the paired difference of the excesses, other less reference."""
    if reference.statistic is not None or other.statistic is not None:
        return _drawn(lambda weights: _over(other, weights) - _over(reference, weights), reference, seed)
    theirs, ours = other.values, reference.values
    moved, shift = _controls(other) - _controls(reference), 0.0
    if _constant(moved):
        shift = float(moved[0])
    else:
        theirs = theirs - moved
    change = theirs - ours
    change[np.abs(change) <= 1e-12 * (np.abs(other.values) + np.abs(ours))] = 0.0  # rounding of the controls
    known = not change.any() or (_constant(change) and reference.n_groups >= ENOUGH)
    if known and (same or not _shares(other, reference)):
        value = float(change[0]) - shift
        return Interval(value, value, LEVEL, "every item the same")
    support = "share" if theirs is other.values and _bounded(other, reference) else "auto"
    found = paired_difference(theirs, ours, groups=reference.groups, seed=seed, support=support).interval
    return Interval(found.low - shift, found.high - shift, found.level, found.method)


def _constant(values: np.ndarray) -> bool:
    """Tell whether all values are the same up to the rounding of their sums."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _bounded(*findings: Finding) -> bool:
    """Tell whether values are shares by their unit: no item can be below 0 or above 1."""
    return all(one.unit in SHARES and one.values.min() >= 0 and one.values.max() <= 1 for one in findings)


def _controls(finding: Finding) -> Float[np.ndarray, " item"]:
    return np.broadcast_to(np.asarray(finding.control, dtype=np.float64), len(finding.values))


def _shares(*findings: Finding) -> bool:
    """Tell whether items are only right or wrong: equal answers do not prove equal models."""
    return all(bool(np.isin(one.values, (0.0, 1.0)).all()) for one in findings)


def excess(finding: Finding, seed: int = 0) -> Interval:
    """Give the 95% interval, over groups, of a finding's excess over its control."""
    if finding.statistic is not None:
        return _drawn(lambda weights: _over(finding, weights), finding, seed)
    if np.ndim(finding.control) == 1:
        control = np.asarray(finding.control, dtype=np.float64)
        return paired_difference(finding.values, control, groups=finding.groups, seed=seed).interval
    if finding.n_groups >= ENOUGH and not _shares(finding) and _constant(finding.values):
        return Interval(finding.excess, finding.excess, LEVEL, "every item the same")
    support = "share" if _bounded(finding) else "auto"
    found = bootstrap(finding.values, groups=finding.groups, seed=seed, support=support).interval
    return Interval(found.low - finding.floor, found.high - finding.floor, found.level, found.method)


def _over(finding: Finding, weights: Float[np.ndarray, " item"]) -> float:
    """Give a finding's excess over its control where items have weights."""
    control = float(np.average(_controls(finding), weights=weights))
    if finding.statistic is None:
        return float(np.average(finding.values, weights=weights)) - control
    return float(finding.statistic(weights)) - control


def _drawn(statistic: Callable[[Float[np.ndarray, " item"]], float], finding: Finding, seed: int) -> Interval:
    """Give the interval of a function of the items' weights, over draws of groups.

    It is the percentile interval, made wider for few groups (Hesterberg 2015, section 4.5) and moved so that
    its middle draw is the value itself: items drawn twice are alike, which moves many statistics one way. It
    does not pass the furthest draws, which stand for what the statistic cannot pass. Few groups tell nothing.
    """
    names = {group: code for code, group in enumerate(dict.fromkeys(finding.groups))}
    if len(names) < ENOUGH:
        return Interval(-math.inf, math.inf, LEVEL, "undetermined")
    codes = np.array([names[group] for group in finding.groups])
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS).astype(np.float64)
    found = np.array([statistic(row[codes]) for row in times])
    found = found[np.isfinite(found)]
    if len(found) < DRAWS / 2:
        return Interval(-math.inf, math.inf, LEVEL, "undetermined")
    wide = math.sqrt(len(names) / (len(names) - 1)) * float(special.stdtrit(len(names) - 1, (1 + LEVEL) / 2))
    low, high = np.quantile(found, [float(special.ndtr(-wide)), float(special.ndtr(wide))]).tolist()
    value = statistic(np.ones(len(codes)))
    shift = value - float(np.median(found))
    low, high = max(low + shift, min(found.min(), value)), min(high + shift, max(found.max(), value))
    return Interval(float(low), float(high), LEVEL, "centred percentile bootstrap")
