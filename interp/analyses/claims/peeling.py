"""A state as a set of concepts: one map to their sum, read by peeling until nothing is left but noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from jaxtyping import Float

from probes.arrays import Inputs
from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.encoders import Linear
from probes.vsa import Codebook, structures

__all__ = ["MOST", "SetReader", "Sets", "nearest", "overlap"]

LEVELS = (0.25, 0.5, 0.75, 0.9, 0.95)
MOST = 6
"""Concepts that are peeled off one state, at most."""
Sets = list[tuple[str, ...]]
"""The concepts of each example, best first where they were read."""


@dataclass(frozen=True, eq=False)
class SetReader:
    """A probe of sets, and the similarity at which it stops.

    Attributes:
        probe: trained on bundles of the concepts of each example.
        stop: a similarity that a share of validation states stays below once their true concepts are taken
            out of them; which of the shares ``LEVELS``, is chosen by the F1 of the sets on validation.
    """

    probe: HyperdimensionalProbe
    stop: float

    @classmethod
    def fitted(
        cls,
        codebook: Codebook,
        X: Inputs,
        members: Sequence[Sequence[str]],
        rows: Mapping[str, list[int]],
        *,
        seed: int,
        regularisation: float | None = None,
    ) -> SetReader:
        """Learn the sets of the training rows, and choose and calibrate on the validation rows.

        Args:
            codebook: made from embeddings.
            X: one row per example.
            members: the concepts of each example.
            rows: those of ``train`` and ``validation``.
            seed: of the fit.
            regularisation: the pull of the embedding encoder; chosen where left out.
        """
        known, later = (
            (X[rows[part]], structures.sets(codebook, [members[row] for row in rows[part]], seed=seed))
            for part in ("train", "validation")
        )
        probe = HyperdimensionalProbe(
            codebook, encoder="embedding", seed=seed, regularisation=regularisation
        ).fit(*known, validation=later)
        held = [members[row] for row in rows["validation"]]
        return cls(probe, _stop(codebook, probe.encode(X[rows["validation"]]), held))

    @property
    def pull(self) -> float:
        """The regularisation that was chosen, which controls share."""
        return float(self.probe.fitted_.notes["regularisation"])

    def read(self, X: Inputs, codebook: Codebook | None = None) -> Sets:
        """Peel the concepts off each state; none where even the nearest is no nearer than chance.

        Args:
            X: one row per example.
            codebook: other names for the same vectors.
        """
        book = codebook or self.probe.codebook_
        return [
            tuple(name for name, _ in structures.peel(book, vector, most=MOST, threshold=self.stop))
            for vector in self.probe.encode(X)
        ]

    def plainly(self, X: Float[torch.Tensor, "example dim"], counts: Sequence[int]) -> Sets:
        """The nearest embeddings of the same map before it is projected: so many for each example."""
        encoder, fitted, rows = (
            self.probe.fitted_.encoder,
            self.probe.fitted_,
            self.probe.codebook_.embeddings,
        )
        assert isinstance(encoder, Linear) and rows is not None
        inner = (X - fitted.mean) / fitted.scale @ encoder.weight + encoder.offset
        return nearest(inner @ rows.T, self.probe.codebook_.names, counts)


def _stop(
    codebook: Codebook, vectors: Float[torch.Tensor, "example width"], members: Sequence[Sequence[str]]
) -> float:
    """The level of what is left of states without their own concepts at which sets are read best."""
    levels = np.quantile(_left(codebook, vectors, members), LEVELS).tolist()
    peeled = [structures.peel(codebook, vector, most=MOST, threshold=levels[0]) for vector in vectors]

    def mean_f1(stop: float) -> float:
        kept = [tuple(takewhile(lambda one: one[1] >= stop, found)) for found in peeled]
        precision, recall = overlap([tuple(name for name, _ in found) for found in kept], members)
        return float(np.mean(2 * precision * recall / np.maximum(precision + recall, 1e-12)))

    return max(levels, key=mean_f1)


def _left(
    codebook: Codebook, vectors: Float[torch.Tensor, "example width"], members: Sequence[Sequence[str]]
) -> list[float]:
    """How near the nearest concept is to what is left of each vector without its own concepts."""
    found: list[float] = []
    for vector, known in zip(vectors.float(), members, strict=True):
        own = codebook.matrix[codebook.index(list(known))].T.to(vector)
        rest = vector - own @ torch.linalg.lstsq(own, vector[:, None]).solution[:, 0]
        found.append(float(codebook.similarities(rest[None]).max()))
    return found


def nearest(
    scores: Float[torch.Tensor, "example concept"], names: tuple[str, ...], counts: Sequence[int]
) -> Sets:
    """The concepts of the highest scores: so many for each example."""
    order = scores.argsort(dim=1, descending=True)[:, : max(counts, default=0)].tolist()
    return [tuple(names[at] for at in row[:n]) for row, n in zip(order, counts, strict=True)]


def overlap(
    read: Sets, true: Sequence[Sequence[str]]
) -> tuple[Float[np.ndarray, " example"], Float[np.ndarray, " example"]]:
    """Precision and recall of the concepts read, example by example; both 0 where nothing is read."""
    both = [len(set(one) & set(other)) for one, other in zip(read, true, strict=True)]
    precision = [n / max(1, len(set(one))) for n, one in zip(both, read, strict=True)]
    recall = [n / len(set(other)) for n, other in zip(both, true, strict=True)]
    return np.array(precision), np.array(recall)
