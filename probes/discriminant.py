"""Discriminants that account for how features vary together: whitened mean difference and LDA."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from probes.fitting import Fit, Lesson, class_means
from probes.linear import LinearProbe

__all__ = ["LDAProbe", "WhitenedMeanDifferenceProbe"]


def _within(lesson: Lesson) -> tuple[np.ndarray, np.ndarray]:
    """Give the class means and the pooled covariance within classes, shrunk (Ledoit and Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    dense = lesson.dense
    means = class_means(lesson, dense)
    scale = dense.std(axis=0)
    scale = np.where(scale <= 1e-10 * max(float(scale.max()), 1e-290), 1.0, scale)
    covariance, _ = ledoit_wolf((dense - means[lesson.codes]) / scale, assume_centered=True)
    return means, covariance * np.outer(scale, scale)


@final
class WhitenedMeanDifferenceProbe(LinearProbe):
    """Project onto ``covariance^-1 (mean_1 - mean_0)``, with the threshold halfway (two classes only).

    The direction that tells the means apart best in units of how the activations vary within the classes
    (Fisher 1936; as a probe: Marks and Tegmark 2023, arXiv 2310.06824, section 5). The covariance is pooled
    over
    classes and shrunk (Ledoit and Wolf 2004), so that it can be inverted with fewer examples than dimensions.
    """

    kind: ClassVar[str] = "whitened-mean-difference"
    most_classes: ClassVar[int | None] = 2

    def _solve(self, lesson: Lesson) -> Fit:
        means, covariance = _within(lesson)
        half = np.linalg.solve(covariance, means[1] - means[0]) / 2
        offset = float(half @ (means[0] + means[1])) / 2
        return (np.stack([-half, half]), np.array([offset, -offset])), {}


@final
class LDAProbe(LinearProbe):
    """Give the likeliest class of Gaussians that share one covariance (linear discriminant analysis).

    Scores are log posteriors up to a constant: ``x S^-1 m_k - m_k S^-1 m_k / 2 + log share_k``, with the
    pooled
    covariance ``S`` shrunk (Ledoit and Wolf 2004) on features of variance 1.
    """

    kind: ClassVar[str] = "lda"

    def _solve(self, lesson: Lesson) -> Fit:
        means, covariance = _within(lesson)
        rows = np.linalg.solve(covariance, means.T).T
        shares = np.bincount(lesson.codes, minlength=lesson.n_classes) / len(lesson.codes)
        return (rows, np.log(shares) - (rows * means).sum(axis=1) / 2), {}
