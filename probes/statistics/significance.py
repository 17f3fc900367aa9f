"""Exact tests, permutation p values and corrections for many looks."""

# pyright: reportMissingTypeStubs=false
from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.statistics.groups import FloatArray, Groups, Moments, codes_of, counted, finite, same_length

__all__ = [
    "BestOf",
    "MeanTests",
    "benjamini_hochberg",
    "best_of",
    "holm",
    "mcnemar_exact",
    "mean_tests",
    "permutation_p",
]

ENUMERATED = 2**14
"""Sign patterns that are gone through one by one; with more groups they are drawn."""
FLIPS, MORE_FLIPS, NEAR, REFINED = 999, 49_999, 5, 2000
"""Drawn patterns for every row, and for those of at most 2,000 rows that at most four of them equal."""
CELLS = 4_000_000
"""Numbers held at once while flipping."""
OVERTURNED, FEW_ROWS = 0.01, 3
"""A row is overturned by one group where it would have p below this without it, and p above 0.05 with it."""


def mcnemar_exact(first: Collection[Any], second: Collection[Any]) -> float:
    """Test whether two classifiers are right equally often on the same examples (exact, two-sided).

    Under the null every example on which they disagree is a fair coin (McNemar 1947). Examples are taken as
    independent: with several examples in a group, use :func:`paired_difference`.

    Args:
        first: right (1, true) or wrong (0, false) per example.
        second: the same for the other classifier.

    Returns:
        The p value; 1 where they never disagree.

    Raises:
        ValueError: lengths differ, or no examples.
    """
    a, b = finite(first, "first"), finite(second, "second")
    same_length(a, b)
    only_first, only_second = int(np.sum(a > b)), int(np.sum(b > a))
    trials = only_first + only_second
    if trials == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(only_first, only_second), trials, 0.5)))


def permutation_p(
    observed: float | int, null: Collection[Any], *, alternative: Literal["greater", "less"] = "greater"
) -> float:
    """The p value of an observed score among scores under the null: (1 + as extreme) / (1 + all).

    The observed score counts as one of the permutations, so p is never 0 (Phipson and Smyth 2010).
    """
    scores = finite(null, "null")
    extreme = scores >= observed if alternative == "greater" else scores <= observed
    return float((1 + np.sum(extreme)) / (1 + len(scores)))


@dataclass(frozen=True, eq=False)
class MeanTests:
    """Tests of many means against zero.

    Attributes:
        p: ``[row]``, two-sided; 1 where ``refused``.
        smallest: the least p that so many groups can give; above 0.05 nothing can be told from chance.
        exact: whether every sign pattern was gone through.
        refused: ``[row]``, rows that one unseen group could overturn, as seen groups overturn other rows.
        notice: what a reader has to know, or "".
    """

    p: FloatArray
    smallest: float
    exact: bool
    refused: npt.NDArray[np.bool_]
    notice: str


def mean_tests(
    values: npt.NDArray[Any], *, groups: Collection[Any] | None = None, seed: int = 0
) -> MeanTests:
    """Test for each row whether its mean is zero, by groups.

    The p value of a row is the largest of three. *Sign flips* of whole groups: exact without any assumption
    on the scale where effects are symmetric around zero, and never below what the number of groups allows
    (2 / 2**groups). *Student's t* with the jackknife error and the degrees of freedom that groups of unequal
    size leave. *Hall's t* (1992), corrected for skewness: sign flips and t test symmetry, and call skewed
    effects of mean zero significant; this one has the mean as its null.

    A large effect in few groups that happen not to be among those drawn leaves no trace in its row. In a
    table of many rows it does: in other rows such a group was drawn. Where so many rows would be significant
    but for one group that overturns them that a tenth of the significant rows may owe it to luck, those
    small enough to be overturned in the same way are refused (p = 1) and the notice says so.

    Args:
        values: ``[row example]``, for example the effect of each mediator on each pair; or one row.
        groups: the group of each example; by default every example is its own group.
        seed: of the drawn sign patterns, used with more than 15 groups.

    Returns:
        The tests, in the order of the rows.

    Raises:
        ValueError: values that are not finite, or not one group per example.
    """
    rows = np.atleast_2d(finite(values, "values"))
    known = Groups(codes_of(groups, rows.shape[1]))
    moments = Moments.of(rows, known)
    p = np.maximum(_flip_p(moments.sums, seed), moment_p(moments))
    smallest = min(1.0, 2.0 ** (1 - known.count))
    refused, overturned = _overturnable(moments, p)
    notice = ""
    if smallest > 0.05:
        notice = f"too few groups to tell: with {known.count} no p is below {smallest:.2g}"
    elif refused.any():
        notice = (
            f"{int(refused.sum())} of {len(rows)} means are not told from zero although their groups agree: "
            f"one group overturns {overturned} others, and may be missing here by chance; take more groups"
        )
    return MeanTests(
        np.where(refused, 1.0, p), smallest, 2 ** (known.count - 1) <= ENUMERATED, refused, notice
    )


def moment_p(moments: Moments) -> FloatArray:
    """P of each mean against zero: the larger of Student's t and Hall's skewness-corrected t.

    A mean whose interval (:mod:`probes.statistics.intervals`) excludes zero at 95% has p below 0.05 here.
    """
    flat = moments.error <= 0
    t = np.where(flat, 0.0, moments.mean / np.where(flat, 1.0, moments.error))
    a = moments.asymmetry
    hall = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    smaller = np.minimum(np.abs(t), np.where(np.sign(hall) == np.sign(t), np.abs(hall), 0.0))
    p = 2 * special.stdtr(moments.groups.freedom, -smaller)
    return np.asarray(np.where(flat, np.where(moments.mean == 0, 1.0, 0.0), p))


def _flip_p(sums: FloatArray, seed: int) -> FloatArray:
    count = sums.shape[1]
    if 2 ** (count - 1) <= ENUMERATED:
        patterns = 2 ** (count - 1)  # a pattern and its opposite give the same size: the first sign is fixed
        return _as_extreme(sums, _all_signs(count)) / patterns
    rng = np.random.default_rng(seed)
    found = (1 + _as_extreme(sums, _drawn_signs(count, FLIPS, rng))) / (1 + FLIPS)
    near = np.flatnonzero(found <= NEAR / (1 + FLIPS))
    near = near[np.argsort(-np.abs(sums[near].sum(axis=1)), kind="stable")[:REFINED]]
    if len(near):
        larger = _as_extreme(sums[near], _drawn_signs(count, MORE_FLIPS, rng))
        found[near] = (1 + larger) / (1 + MORE_FLIPS)
    return np.maximum(found, 2.0 ** (1 - count))


def _all_signs(count: int) -> Iterator[FloatArray]:
    numbers: npt.NDArray[np.int64] = np.arange(2 ** (count - 1), dtype=np.int64)
    places: npt.NDArray[np.int64] = np.arange(count, dtype=np.int64)
    for start in range(0, len(numbers), 1024):
        bits: npt.NDArray[np.int64] = numbers[start : start + 1024, None] >> places
        yield np.where(bits & 1, -1.0, 1.0)


def _drawn_signs(count: int, flips: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    for start in range(0, flips, 1024):
        yield rng.choice((-1.0, 1.0), size=(min(1024, flips - start), count))


def _as_extreme(sums: FloatArray, patterns: Iterator[FloatArray]) -> FloatArray:
    """Count for each row the patterns of signs that make its sum at least as large as it is."""
    size = np.abs(sums).sum(axis=1, keepdims=True)
    scaled = (sums / np.where(size > 0, size, 1.0)).astype(np.float32)
    margin = np.abs(scaled.sum(axis=1, keepdims=True)) - np.float32(1e-6)  # rounding must not hide a tie
    larger, step = np.zeros(len(sums)), max(1, CELLS // 1024)
    for signs in patterns:
        flips = signs.astype(np.float32).T
        for start in range(0, len(sums), step):
            part = slice(start, start + step)
            flipped = scaled[part] @ flips
            larger[part] += np.count_nonzero(np.abs(flipped, out=flipped) >= margin[part], axis=1)
    return larger


def _overturnable(moments: Moments, p: FloatArray) -> tuple[npt.NDArray[np.bool_], int]:
    """Rows to refuse, and how many other rows one group overturns.

    Good (1953): what is seen once is the best guess at how much was not seen.
    """
    sums, count, none = moments.sums, moments.groups.count, np.zeros(len(p), dtype=bool)
    if count < 6:
        return none, 0
    most = np.abs(moments.pulls).argmax(axis=1)
    one = np.take_along_axis(sums, most[:, None], axis=1)[:, 0]
    rest = np.ones_like(sums, dtype=bool)
    np.put_along_axis(rest, most[:, None], False, axis=1)
    others = sums[rest].reshape(len(sums), count - 1)
    without = moment_p(Moments.of(others, Groups(np.arange(count - 1))))
    overturned = (p > 0.05) & (without <= OVERTURNED) & (one * others.sum(axis=1) < 0)
    if not overturned.any():
        return none, 0
    # A share of 3 / groups can be missing at 95%: three groups of this size leave no t of 2 where
    # |sum| - 3 size < 2 sqrt(3) size.
    small = (p <= 0.05) & (np.abs(sums.sum(axis=1)) <= 6.5 * np.abs(one[overturned]).max())
    found = int(overturned.sum())
    return (small, found) if found >= max(FEW_ROWS, 0.1 * int(small.sum())) else (none, found)


def benjamini_hochberg(p_values: Collection[Any]) -> FloatArray:
    """Adjust p values so that rejecting those below q keeps the false discovery rate at q.

    Source: Benjamini and Hochberg 1995.
    """
    p, order = _p_values(p_values)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _unsorted(np.minimum.accumulate(scaled[::-1])[::-1], order)


def holm(p_values: Collection[Any]) -> FloatArray:
    """Adjust p values so that rejecting those below q keeps the chance of any false rejection at q.

    Source: Holm 1979.
    """
    p, order = _p_values(p_values)
    return _unsorted(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), order)


def _p_values(p_values: Collection[Any]) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    p = finite(p_values, "p_values")
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"p values must lie in [0, 1]; found {p.min():g} to {p.max():g}.")
    return p, np.argsort(p, kind="stable")


def _unsorted(adjusted: FloatArray, order: npt.NDArray[np.intp]) -> FloatArray:
    result = np.empty_like(adjusted)
    result[order] = np.minimum(adjusted, 1.0)
    return result


@dataclass(frozen=True)
class BestOf:
    """The best of several scores on the same examples, corrected for their number.

    Attributes:
        index: which look is best.
        difference: its mean over the reference.
        p_value: chance of so large a best difference if no look differed from its reference.
        p_uncorrected: the same if it had been the only look.
    """

    index: int
    difference: float
    p_value: float
    p_uncorrected: float


def best_of(
    scores: npt.NDArray[np.float64],
    references: npt.NDArray[np.float64],
    *,
    groups: Collection[Any] | None = None,
    n_permutations: int = 2000,
    seed: int = 0,
) -> BestOf:
    """Test the best of several looks by the largest studentised difference (max-T; Westfall and Young 1993).

    Under the null a group's scores and its references may be exchanged, so the signs of whole groups'
    differences
    are flipped, for all looks together: what the looks have in common stays in place.

    Args:
        scores: ``[look example]``, for example right (1) or wrong (0) at each layer.
        references: ``[look example]``, the control's scores of the same examples, or one row for all.
        groups: the group of each example; by default every example is its own group.
        n_permutations: sign flips.
        seed: of the flips.

    Raises:
        ValueError: shapes that do not match, or not one group per example.
    """
    change = np.asarray(scores, dtype=np.float64) - np.asarray(references, dtype=np.float64)
    if change.ndim != 2 or change.shape != np.shape(scores):
        raise ValueError(
            f"scores of shape {np.shape(scores)}, references of {np.shape(references)}; give [look example]."
        )
    labels: list[Any] = list(range(change.shape[1])) if groups is None else list(groups)
    order = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    names = np.array([order[label] for label in labels], dtype=np.int64)
    if len(names) != change.shape[1]:
        raise ValueError(
            f"{counted(len(names), 'group')} for {change.shape[1]} examples; give one group per example."
        )
    sums = np.stack([np.bincount(names, row) for row in change])
    spread = np.sqrt((sums**2).sum(axis=1))
    spread = np.where(spread > 0, spread, 1.0)
    observed = sums.sum(axis=1) / spread
    index = int(observed.argmax())
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(n_permutations, sums.shape[1]))
    null = signs @ (sums / spread[:, None]).T
    margin = observed[index] - 1e-12
    corrected = (1 + int((null.max(axis=1) >= margin).sum())) / (1 + n_permutations)
    single = (1 + int((null[:, index] >= margin).sum())) / (1 + n_permutations)
    return BestOf(index, float(change[index].mean()), corrected, single)
