"""Exact tests, permutation p values and corrections for many looks."""

# pyright: reportMissingTypeStubs=false
from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.statistics.numbers import FloatArray, finite, same_length

__all__ = ["benjamini_hochberg", "holm", "mcnemar_exact", "permutation_p"]


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
    """Give the p value of an observed score among scores under the null: (1 + as extreme) / (1 + all).

    The observed score counts as one of the permutations, so p is never 0 (Phipson and Smyth 2010).
    """
    scores = finite(null, "null")
    extreme = scores >= observed if alternative == "greater" else scores <= observed
    return float((1 + np.sum(extreme)) / (1 + len(scores)))


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
