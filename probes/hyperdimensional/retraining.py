"""One probe trained again and again on other answers, as a control of shuffled answers needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from probes.arrays import Inputs
from probes.hyperdimensional.decoding import decode
from probes.hyperdimensional.encoders import ENCODERS, Encoder, Linear
from probes.hyperdimensional.fitted import lesson_of
from probes.hyperdimensional.inputs import Labels, as_targets
from probes.hyperdimensional.lesson import slot_vectors
from probes.hyperdimensional.probe import HyperdimensionalProbe
from probes.vsa.codebook import Codebook

__all__ = ["read_retrained"]

Rows = Sequence[int]


def read_retrained(
    probe: HyperdimensionalProbe, X: Inputs, answers: Iterable[Labels], parts: tuple[Rows, Rows, Rows]
) -> list[list[str]]:
    """Train the probe anew for each list of answers, and give what it reads in the test rows.

    These are the names that ``fit`` and ``predict`` would give, at a fraction of the price: no threshold of
    abstention is measured, and a linear prediction is compared with the concepts in the coordinates of its
    axes, of which there are few. The probe itself is not changed.

    Args:
        probe: its settings and its codebook.
        X: as for ``fit``; one row per example.
        answers: lists of one concept per example, or tables of final states for ``encoder="translator"``.
        parts: rows to train on, to choose on, and to read.

    Raises:
        ValueError: a probe without a codebook, or one with the published losses, which names no concept.
        CodebookError: concepts that the codebook does not have.
    """
    if probe.codebook is None or probe.compat is not None:
        raise ValueError("only a probe that was given a codebook, without compat, can be trained anew.")
    features = probe.features(X)
    codebook = probe.codebook.to(features.device)
    settings = probe.settings(codebook)
    train, held, test = ([*rows] for rows in parts)
    found: list[list[str]] = []
    read = _Reader()
    for taught in answers:
        targets = as_targets(codebook, taught, len(features))
        learned, later = ((features[rows], targets[rows]) for rows in (train, held))
        lesson, mean, scale = lesson_of(codebook, (learned, later))
        encoder = ENCODERS[probe.encoder].train(lesson, settings).encoder
        found.append(read(codebook, encoder, (features[test] - mean) / scale))
    return found


@final
class _Reader:
    """Name the best concept; one basis serves many encoders, and all concepts are put on its axes once."""

    basis: Tensor | None = None
    concepts: Tensor

    def __call__(
        self, codebook: Codebook, encoder: Encoder, features: Float[Tensor, "example dim"]
    ) -> list[str]:
        if not isinstance(encoder, Linear) or encoder.basis is None:
            return [names[0] for names in decode(codebook, encoder(features), k=1).names]
        if self.basis is not encoder.basis:
            self.basis, self.concepts = encoder.basis, slot_vectors(codebook, "") @ encoder.basis.T
        inner = torch.addmm(encoder.offset, features, encoder.weight)
        return [codebook.names[row] for row in (inner @ self.concepts.T).argmax(dim=1).tolist()]
