"""An encoder that needs no labels: states to the model's own final states, then into the algebra.

The targets are the final states themselves (after the norm: what the unembedding multiplies), so that any
text is training data and any concept of the codebook, trained or not, can be read. The random matrix of a
codebook made from embeddings carries the translation into the algebra; least squares commutes with it, so
nothing is lost by fitting before projecting.

The algebra itself loses something. Measured on SmolLM2 (layer 24, 300 prompts that the model answers right,
1,601 names by their first token, 4,096 signs): the translation times the unembedding's rows names the answer
in 0.85 of them, their cosine in 0.76, the hypervectors in 0.67 (in 0.53 where the mean final state is left in
the prediction); from the model's own final states 0.94, 0.84, 0.74 (0.64). Where the algebra is not needed,
``interp.lenses`` reads the translation itself.
"""

from __future__ import annotations

import torch

from probes.hyperdimensional.embedding import basis_of
from probes.hyperdimensional.encoders import Linear, Trained
from probes.hyperdimensional.lesson import Lesson, Settings
from probes.translation import Moments, fit_translator

__all__ = ["train_translator"]


def train_translator(lesson: Lesson, settings: Settings) -> Trained:
    """Fit ridge to the final states, the penalty chosen by the held-out squared error, and project it.

    The score is the explained part of the held-out final states' variance. Penalties are parts of the mean
    variance of the features, as in :func:`probes.translation.fit_translator`; ``rank`` limits the axes.

    Raises:
        ValueError: targets that are no final states, or a codebook without a random projection, or of
            embeddings of another width.
    """
    codebook, finals, held = lesson.codebook, lesson.targets.vectors, lesson.held.targets.vectors
    if lesson.targets.kind != "states":
        raise ValueError(
            "encoder='translator' learns the model's own final states and no labels: give y as their "
            "[example d_model] numbers (site final_norm), or use another encoder for concepts."
        )
    if codebook.projection is None or len(codebook.projection.centre) != finals.shape[1]:
        raise ValueError(
            f"final states of width {finals.shape[1]} cannot be carried into {codebook}; make the codebook "
            "with Codebook.from_embeddings, from rows of the same model's unembedding."
        )
    features = lesson.features
    train = Moments(features.shape[1], finals.shape[1]).add(features.cpu(), finals.cpu())
    after = Moments(features.shape[1], finals.shape[1]).add(lesson.held.features.cpu(), held.cpu())
    rank = settings.rank if settings.rank is not None and settings.rank < finals.shape[1] else None
    found = fit_translator(train, after, settings.regularisation, ranks=(rank,))
    basis = basis_of(codebook, ("",)).to(features)
    weight = found.weight.to(features).contiguous()
    encoder = Linear(weight, torch.zeros_like(weight[0]), basis)  # about the mean final state
    return Trained(encoder, found.score, {"regularisation": found.penalty, "axes": len(basis)})
