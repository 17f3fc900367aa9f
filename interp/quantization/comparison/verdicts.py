"""The verdict on one finding: does it survive in the other model?

A finding is what a number says beyond its control, so what is judged is the *excess*, value less control, and
not the value: where the control moves with the value, the finding has not moved. Excesses are turned so that
more of the finding is more: by the finding's own direction, or else so that the reference's is positive.

``delta``
    The smallest change that would matter: three noise floors, or 10% of the reference's excess if that is
    larger. The 10% are as uncertain as the excess they are taken of, and are taken item by item: "smaller by
    less than 10%" is tested as ``change + 10% of the reference's excess > 0``, with one interval for that sum
    (two one-sided tests of 2.5% each). With a delta held for exact, true losses of 1.1 delta would be called
    "survives" in up to a quarter of cases. A finding may say itself what matters, item by item
    (``Finding.matters``), where the control is so far away that a tenth of the excess would hide much: bits
    per byte have to beat the frequencies of bytes, and a twentieth of the bits themselves matters.
``survives``
    The change of the excess is within delta on both sides. What the reference does not show survives only
    where the interval of the change lies within one noise floor: else "survives" would say nothing.
``lost``
    The reference shows the finding, and the other model's excess is not above zero (its interval includes 0
    or lies below it) and is below delta.
``weakened``, ``strengthened``
    The excess is smaller by more than delta (and the finding is not lost), or larger by more than delta.
``inconclusive``
    Everything else, and whatever the reference itself does not show. That a difference is not significant
    never makes a finding survive.

In simulations (12, 24 and 60 groups, items of spread 0.5 and 1 times the excess; shares of 0.75 against
0.25; ``tests/simulations/test_verdicts.py``): "survives" is said in 0 to 4.5% at a true loss of delta and
in 0 to 2% at 1.1 delta, "weakened" or "lost" in 0 to 3% at a loss of delta. No loss at all "survives" in
100% where every item is the same, in 30 to 100% where items vary by a tenth of the excess; at three times
delta "weakened" or "lost" is said in 80 to 100% of cases, for shares of 60 answers in 57%: few right or
wrong answers cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from interp.errors import DataError, counted
from interp.models.quantized import Quantization
from interp.quantization.integrity import Integrity
from interp.results.findings import Finding
from interp.results.shapes import Figure, Number, Table
from probes.statistics import Interval, bootstrap, clopper_pearson, paired_difference

__all__ = ["SHARE", "VERDICTS", "Cell", "Excess", "Judged", "Judgement", "judge"]

VERDICTS: dict[str, str] = {
    "survives": "the change of its excess over the control is within delta, the smallest that would matter",
    "weakened": "its excess is smaller by more than delta, and not shown to be gone",
    "strengthened": "its excess is larger by more than delta",
    "lost": "the reference shows it, and its excess is not above zero any more",
    "inconclusive": "the data cannot tell, or the reference does not show it itself",
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
    """One finding in both models, and the verdict.

    Attributes:
        finding: its name.
        verdict: a key of ``VERDICTS``, on ``change``.
        reference: its value in the reference.
        value: its value in the other model.
        difference: value less reference, over the same items.
        low: lower end of its 95% interval over groups.
        high: upper end.
        reference_control: what the reference has to beat.
        control: what the other model has to beat; the same number where the control measures no model.
        reference_excess: of the reference over its control.
        excess: of the other model over its own control.
        excess_low: lower end of its 95% interval.
        excess_high: upper end.
        change: of the excess, other less reference: ``difference`` less what the control moved by.
        change_low: lower end of its 95% interval.
        change_high: upper end.
        noise: the larger noise floor: what another batch layout, or bf16, changes in the reference.
        delta: the smallest change of the excess that would matter, as estimated from the reference.
        shown: whether the reference itself shows the finding: the interval of its excess excludes 0, in the
            finding's direction, and the excess is above six noise floors, so that delta is at most half of
            it. A finding that is not shown survives or is inconclusive.
        unit: of all the numbers above.
        n: items.
        n_groups: independent groups of them.
        curve: findings of one curve share it.
        layer: where on the curve.
        method: of the interval of the change.
        about: one sentence about the finding.
        note: what a reader should know about this verdict, or "".
    """

    finding: str
    verdict: str
    reference: float
    value: float
    difference: float
    low: float
    high: float
    reference_control: float
    control: float
    reference_excess: float
    excess: float
    excess_low: float
    excess_high: float
    change: float
    change_low: float
    change_high: float
    noise: float
    delta: float
    shown: bool
    unit: str
    n: int
    n_groups: int
    curve: str = ""
    layer: int | None = None
    method: str = ""
    about: str = ""
    note: str = ""

    @property
    def moved(self) -> float:
        """The change in units of delta; less of the finding is negative."""
        return self.sign * self.change / self.delta if self.delta else 0.0

    @property
    def sign(self) -> float:
        """-1 where the finding lies below its control, so that less of it is an increase."""
        return -1.0 if self.reference_excess < 0 else 1.0


@dataclass(frozen=True, eq=False)
class Excess:
    """A finding's excess over its control.

    Attributes:
        interval: its 95% interval over groups.
        draws: ``[2, 1 + draw]``, value and control of a finding that is no mean, first for all items and then
            for each draw of groups; None for a mean.
    """

    interval: Interval
    draws: Float[np.ndarray, "2 draw"] | None = None

    @classmethod
    def of(cls, finding: Finding, seed: int = 0) -> Excess:
        """Measure a finding."""
        if finding.statistic is not None:
            draws = _draws(finding, seed)
            return cls(_interval(draws[0] - draws[1], finding.n_groups), draws)
        control = _controls(finding)
        if not _constant(control):
            return cls(paired_difference(finding.values, control, groups=finding.groups, seed=seed).interval)
        if finding.n_groups >= ENOUGH and not _answers(finding) and _constant(finding.values):
            return cls(Interval(finding.excess, finding.excess, LEVEL, "every item the same"))
        support = "share" if _bounded(finding) else "auto"
        found = bootstrap(finding.values, groups=finding.groups, seed=seed, support=support).interval
        return cls(_moved(found, -finding.floor))


@dataclass(frozen=True)
class _Evidence:
    """What the rule reads: 95% intervals, in the finding's unit.

    Attributes:
        difference: of the values, other less reference.
        change: of the excesses.
        other: of the other's excess.
        loss: of the change plus what matters, or else 10% of the reference's excess; below zero the loss is
            more than that.
        gain: of the change less the same; above zero the gain is more than that.
        rest: of the other's excess less 10% of the reference's; below zero less than 10% is left.
    """

    difference: Interval
    change: Interval
    other: Interval
    loss: Interval
    gain: Interval
    rest: Interval


def judge(
    reference: Finding,
    other: Finding,
    *,
    noise: float = 0.0,
    same: bool = False,
    seed: int = 0,
    before: Excess | None = None,
) -> Judgement:
    """Judge one finding.

    Args:
        reference: the finding in the full model.
        other: the finding of the same name in the other model, over the same items.
        noise: the noise floor, in the finding's unit.
        same: whether both are the same weights in the same arithmetic, so that equal values are proof.
        seed: of the draws of groups.
        before: what :meth:`Excess.of` gives for the reference, where it is known already.

    Raises:
        DataError: the items differ.
    """
    if reference.groups != other.groups:
        raise DataError(
            f"finding {reference.name!r}: the two models were measured on other items "
            f"({len(reference.groups)} and {len(other.groups)}, or other groups). An analysis has to draw "
            "its items from its seed alone, whatever the model says."
        )
    before = Excess.of(reference, seed) if before is None else before
    if reference.statistic is None and other.statistic is None:
        found = _of_means(reference, other, before, same, seed)
    else:
        found = _of_statistics(reference, other, before, seed)
    sign, least = _sign(reference), reference.matters
    shown = _times(before.interval, sign).low > 0.0 and abs(reference.excess) > 2 * FLOORS * noise
    verdict = _verdict(found, sign, noise, shown=shown)
    return Judgement(
        finding=reference.name,
        verdict=verdict,
        reference=reference.value,
        value=other.value,
        difference=other.value - reference.value,
        low=found.difference.low,
        high=found.difference.high,
        reference_control=reference.floor,
        control=other.floor,
        reference_excess=reference.excess,
        excess=other.excess,
        excess_low=found.other.low,
        excess_high=found.other.high,
        change=other.excess - reference.excess,
        change_low=found.change.low,
        change_high=found.change.high,
        noise=noise,
        delta=max(FLOORS * noise, SHARE * abs(reference.excess) if least is None else float(least.mean())),
        shown=shown,
        unit=reference.unit,
        n=len(reference.values),
        n_groups=reference.n_groups,
        curve=reference.curve,
        layer=reference.layer,
        method=found.change.method,
        about=reference.about,
        note=_alike(reference, other, noise) if shown and verdict == "inconclusive" else "",
    )


def _sign(finding: Finding) -> float:
    """1 where more of the finding is more, -1 where it lies below its control."""
    return float(finding.direction) or (-1.0 if finding.excess < 0 else 1.0)


def _verdict(found: _Evidence, sign: float, noise: float, *, shown: bool) -> str:
    change, other = _times(found.change, sign), _times(found.other, sign)
    if not shown:
        return "survives" if -noise <= change.low and change.high <= noise else "inconclusive"
    floor, loss, gain = FLOORS * noise, _times(found.loss, sign), _times(found.gain, sign)
    if (loss.low > 0.0 or change.low >= -floor) and (gain.high < 0.0 or change.high <= floor):
        return "survives"
    if other.low <= 0.0 and (_times(found.rest, sign).high < 0.0 or other.high < floor):
        return "lost"
    if loss.high < 0.0 and change.high < -floor:
        return "weakened"
    if gain.low > 0.0 and change.low > floor:
        return "strengthened"
    return "inconclusive"


def _of_means(reference: Finding, other: Finding, before: Excess, same: bool, seed: int) -> _Evidence:
    """Compare means of the same items."""
    ours, theirs = reference.values, other.values
    ours_over = ours - _controls(reference)
    moved = _controls(other) - _controls(reference)
    shares = _bounded(reference, other) or _answers(reference, other)
    known = same or not _answers(reference, other)

    def paired(values: Float[np.ndarray, " item"], *, shares: bool) -> Interval:
        change = values - ours
        change[np.abs(change) <= 1e-12 * (np.abs(theirs) + np.abs(ours))] = 0.0  # rounding of the controls
        if known and (not change.any() or (_constant(change) and reference.n_groups >= ENOUGH)):
            return Interval(float(change[0]), float(change[0]), LEVEL, "every item the same")
        support = "share" if shares else "real"
        return paired_difference(values, ours, groups=reference.groups, seed=seed, support=support).interval

    difference = paired(theirs, shares=shares)
    change = (
        _moved(difference, -float(moved[0])) if _constant(moved) else paired(theirs - moved, shares=False)
    )
    left, gone = Excess.of(other, seed).interval, theirs - moved - ours

    over, share, least = (before.interval, ours_over), SHARE, reference.matters
    matters = over
    if least is not None:
        ends = bootstrap(least, groups=reference.groups, seed=seed, support="real").interval
        share, matters = _sign(reference), (ends, least)
    return _Evidence(
        difference=difference,
        change=change,
        other=left,
        loss=_sum((change, gone), matters, share, reference.groups),
        gain=_sum((change, gone), matters, -share, reference.groups),
        rest=_sum((left, gone + ours_over), over, -SHARE, reference.groups),
    )


def _sum(
    first: tuple[Interval, Float[np.ndarray, " item"]],
    second: tuple[Interval, Float[np.ndarray, " item"]],
    weight: float,
    groups: tuple[str, ...],
) -> Interval:
    """The interval of one mean plus a multiple of another, taken item by item.

    From the intervals of both and their correlation over groups (Zou and Donner 2008, equation 3), so that
    what the interval of a share knows of answers that were not seen in so few groups is kept.
    """
    a, b = first[0], _times(second[0], weight)
    codes = np.unique(groups, return_inverse=True)[1]
    one, two = (np.bincount(codes, weights=part - part.mean()) for part in (first[1], weight * second[1]))
    scale = math.sqrt(float(one @ one) * float(two @ two))
    r = float(np.clip(one @ two / scale, -1.0, 1.0)) if scale > 0 else 0.0
    value, other = float(first[1].mean()), weight * float(second[1].mean())
    below = _length(value - a.low, other - b.low, r)
    above = _length(a.high - value, b.high - other, r)
    return Interval(value + other - below, value + other + above, LEVEL, "sum of two intervals")


def _length(first: float, second: float, r: float) -> float:
    if not math.isfinite(first + second):
        return math.inf
    return math.sqrt(max(first**2 + 2 * r * first * second + second**2, 0.0))


def _of_statistics(reference: Finding, other: Finding, before: Excess, seed: int) -> _Evidence:
    """Compare what is no mean, over the same draws of groups."""
    base = _draws(reference, seed) if before.draws is None else before.draws
    drawn, n = _draws(other, seed), reference.n_groups
    ours, theirs = base[0] - base[1], drawn[0] - drawn[1]
    return _Evidence(
        difference=_interval(drawn[0] - base[0], n),
        change=_interval(theirs - ours, n),
        other=_interval(theirs, n),
        loss=_interval(theirs - (1 - SHARE) * ours, n),
        gain=_interval(theirs - (1 + SHARE) * ours, n),
        rest=_interval(theirs - SHARE * ours, n),
    )


def _draws(finding: Finding, seed: int) -> Float[np.ndarray, "2 draw"]:
    """Value and control with every item once, then for draws of groups; no draws of too few groups."""
    names = {group: code for code, group in enumerate(dict.fromkeys(finding.groups))}
    codes, n = np.array([names[group] for group in finding.groups]), len(names)
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS if n >= ENOUGH else 0)
    weights = np.concatenate([np.ones((1, n)), times])[:, codes]
    totals, statistic = weights.sum(axis=1), finding.statistic
    if statistic is None:
        value = weights @ finding.values / totals
    else:
        value = np.array([float(statistic(one)) for one in weights])
    return np.stack([value, weights @ _controls(finding) / totals])


def _interval(drawn: Float[np.ndarray, " draw"], n_groups: int) -> Interval:
    """The interval of a number from its draws; the first is the number itself.

    It is the percentile interval, made wider for few groups (Hesterberg 2015, section 4.5) and moved so that
    its middle draw is the value itself: items drawn twice are alike, which moves many statistics one way. It
    does not pass the furthest draws, which stand for what the statistic cannot pass. Few groups tell nothing.
    """
    value, found = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
    if len(found) < DRAWS / 2:
        return Interval(-math.inf, math.inf, LEVEL, "undetermined")
    wide = math.sqrt(n_groups / (n_groups - 1)) * float(special.stdtrit(n_groups - 1, (1 + LEVEL) / 2))
    low, high = np.quantile(found, [float(special.ndtr(-wide)), float(special.ndtr(wide))]).tolist()
    shift = value - float(np.median(found))
    low, high = max(low + shift, min(found.min(), value)), min(high + shift, max(found.max(), value))
    return Interval(float(low), float(high), LEVEL, "centred percentile bootstrap")


def _alike(reference: Finding, other: Finding, noise: float) -> str:
    """How many groups would tell, where both models answer alike in all there are."""
    alike = bool(np.array_equal(reference.values, other.values) and _answers(reference))
    if not alike or reference.statistic is not None or reference.floor != other.floor:
        return ""
    for n in (int(10 * 1.05**at) for at in range(190)):
        missed = clopper_pearson(0, n).high
        lowest = clopper_pearson(reference.value * n, n).low - reference.value
        enough = SHARE * abs(reference.excess) > math.hypot(missed, SHARE * lowest)
        if enough or missed <= FLOORS * noise:
            return (
                f"both answer alike in all {counted(reference.n_groups, 'group')}, which does not exclude a "
                "change of "
                f"delta; about {counted(n, 'group')} would tell"
            )
    return ""


def _moved(interval: Interval, by: float) -> Interval:
    return Interval(interval.low + by, interval.high + by, interval.level, interval.method)


def _times(interval: Interval, factor: float) -> Interval:
    low, high = sorted((factor * interval.low, factor * interval.high))
    return Interval(low, high, interval.level, interval.method)


def _controls(finding: Finding) -> Float[np.ndarray, " item"]:
    return np.broadcast_to(np.asarray(finding.control, dtype=np.float64), len(finding.values))


def _constant(values: Float[np.ndarray, " item"]) -> bool:
    """Whether all values are the same up to the rounding of their sums."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _bounded(*findings: Finding) -> bool:
    """Whether values are shares by their unit: no item can be below 0 or above 1."""
    return all(one.unit in SHARES and one.values.min() >= 0 and one.values.max() <= 1 for one in findings)


def _answers(*findings: Finding) -> bool:
    """Whether items are only right or wrong: equal answers do not prove equal models."""
    return all(bool(np.isin(one.values, (0.0, 1.0)).all()) for one in findings)


@dataclass(frozen=True, eq=False, repr=False)
class Cell:
    """What one analysis of one model came to.

    Attributes:
        analysis: its name.
        scheme: at what precision, or the name of the other checkpoint; "" of the reference.
        judgements: one per finding; none of the reference.
        tables: of the analysis's result.
        quantization: what was done to the model; None for another checkpoint.
        integrity: whether it holds what it should.
        model: fingerprint of the reference.
        noise: of the reference's cell: finding -> kind -> noise floor.
        refused: why the analysis gave nothing, or "".
        missing: findings of the reference that the other model's result lacks.
        seconds: how long the analysis took.
        warnings: what a reader should know.
        judged: the analysis's own verdict on both models, where it lays them beside each other itself; its
            findings are not judged then.
        numbers: of such an analysis.
        figures: of such an analysis.
        asked: the question, in the reference's cell.
    """

    analysis: str
    scheme: str
    judgements: tuple[Judgement, ...] = ()
    tables: tuple[Table, ...] = ()
    quantization: Quantization | None = None
    integrity: Integrity | None = None
    model: str = ""
    noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refused: str = ""
    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    judged: str = ""
    numbers: tuple[Number, ...] = ()
    figures: tuple[Figure, ...] = ()
    asked: str = ""


class Judged(NamedTuple):
    """A verdict with where it stands."""

    analysis: str
    scheme: str
    one: Judgement
