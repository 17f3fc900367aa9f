"""A threshold for claims whose share of wrong ones is bounded, as stated, on examples of the same kind."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import beta

__all__ = ["Claims", "claim_threshold", "wrong_at_most"]


@dataclass(frozen=True)
class Claims:
    """What is claimed, and how sure it is.

    Attributes:
        threshold: the similarity from which on a reading is claimed; infinite where nothing may be.
        risk: the largest share of wrong claims that was allowed.
        confidence: chance, over the examples it was set on, that the risk is kept on new ones.
        claimed: how many of those examples were claimed.
        wrong: how many of them were wrong.
    """

    threshold: float
    risk: float
    confidence: float
    claimed: int
    wrong: int


def wrong_at_most(wrong: int, n: int, confidence: float) -> float:
    """The share of wrong ones that is not exceeded with this confidence (Clopper and Pearson 1934)."""
    return 1.0 if wrong >= n else float(beta.ppf(confidence, wrong + 1, n - wrong))


def claim_threshold(
    similarities: Float[np.ndarray, " example"],
    right: Int[np.ndarray, " example"],
    *,
    risk: float = 0.1,
    confidence: float = 0.9,
    steps: int = 40,
) -> Claims:
    """Find the lowest threshold of similarity at which at most a share of the claims is wrong.

    Thresholds are tried from the strictest on, and the search ends at the first at which the bound on the
    share of wrong claims exceeds the risk: a fixed sequence of tests, so that no correction for their number
    is needed, and what holds at the last that passed holds with the stated confidence (Angelopoulos et al.
    2021, "Learn then test"; Bauer 1991). The examples must be independent of each other and of the training,
    and new ones must be drawn alike: give one example of each group.

    Args:
        similarities: of the best concept of each example.
        right: 1 where it is the right one.
        risk: the largest share of wrong claims.
        confidence: chance that the risk is kept.
        steps: thresholds to try, at equal shares of the examples.

    Raises:
        ValueError: no examples, or a risk or confidence that is no share.
    """
    if not len(right):
        raise ValueError("no examples to set a threshold on; give validation examples.")
    if not (0 < risk < 1 and 0 < confidence < 1):
        raise ValueError(f"risk={risk}, confidence={confidence}; give shares between 0 and 1.")
    order = np.argsort(-similarities, kind="stable")
    errors = np.cumsum(1 - right[order])
    least = 2 * math.ceil(math.log(1 - confidence) / math.log(1 - risk))  # half as many, all right, prove it
    found = Claims(math.inf, risk, confidence, 0, 0)
    counts = np.unique(np.linspace(min(least, len(right)), len(right), steps).astype(int))
    for count in counts.tolist():
        threshold = float(similarities[order[count - 1]])
        n = int((similarities >= threshold).sum())  # what is as similar is claimed too
        wrong = int(errors[n - 1])
        if wrong_at_most(wrong, n, confidence) > risk:
            break
        found = Claims(threshold, risk, confidence, n, wrong)
    return found
