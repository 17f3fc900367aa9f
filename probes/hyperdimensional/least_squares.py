"""The fast screen: ridge regression onto the hypervectors, all penalties from one decomposition."""

from __future__ import annotations

import torch

from probes.hyperdimensional.encoders import Linear, Trained
from probes.hyperdimensional.lesson import Lesson, Settings, reciprocal_ranks, slot_vectors

__all__ = ["train"]


def train(lesson: Lesson, settings: Settings) -> Trained:
    """Fit least squares in closed form for every penalty and keep the one with the best validation rank.

    Minimises the mean squared error plus ``regularisation`` times the squared norm of the weights, on
    features
    of mean 0 and variance 1, so that a penalty means the same whatever the number of examples and the layer.
    """
    features, targets = lesson.features.double(), lesson.vectors.double()
    mean = targets.mean(dim=0)
    values, axes = torch.linalg.eigh(features.T @ features / len(features))
    projected = axes.T @ (features.T @ (targets - mean)) / len(features)
    held = lesson.held.features.double() @ axes
    readouts = [
        (projected @ concepts.T, mean @ concepts.T, slot)
        for slot in lesson.held.slots
        for concepts in [slot_vectors(lesson.codebook, slot.role).double()]
    ]
    best: tuple[float, float] = (-2.0, 0.0)
    for penalty in sorted(settings.regularisation, reverse=True):
        shrunk = held / (values + penalty)
        if readouts:
            ranks = [reciprocal_ranks(shrunk @ m + offset, slot.codes).mean() for m, offset, slot in readouts]
            score = float(torch.stack(ranks).mean())
        else:
            predicted = shrunk @ projected + mean
            score = float(torch.cosine_similarity(predicted, lesson.held.vectors.double(), dim=1).mean())
        best = max(best, (score, penalty))
    weight = axes @ (projected / (values + best[1])[:, None])
    return Trained(Linear(weight.float(), mean.float()), best[0], {"regularisation": best[1]})
