"""The published encoder: two residual blocks on a wide latent space (Bronzini et al. 2025, section 3).

With ``compat="paper"`` also its losses, its target range and its choice of checkpoint, so that its numbers
can be compared; otherwise it is trained as the linear encoder is, with a softmax over the concepts.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm.auto import tqdm

from probes.hyperdimensional.encoders import Encoder, Network, Neural, Trained, validation_score
from probes.hyperdimensional.lesson import Lesson, Settings
from probes.hyperdimensional.softmax import cross_entropy, places_of
from probes.vsa.algebra import generator_for

__all__ = ["train"]


def train(lesson: Lesson, settings: Settings) -> Trained:
    """Train the network with AdamW; the checkpoint with the best validation score is kept."""
    device = lesson.features.device
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = Network(lesson.features.shape[1], settings.hidden, lesson.vectors.shape[1]).to(device)
        return _trained(network, lesson, settings)


def _trained(network: Network, lesson: Lesson, settings: Settings) -> Trained:
    penalty = settings.regularisation[0]
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=penalty)
    steps = settings.epochs * -(-len(lesson.features) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = generator_for(settings.seed, "order")
    objective = _Paper(lesson) if settings.published else _Softmax(lesson, settings.temperature)
    best, at, epoch = -2.0, 0, 0
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch in tqdm(range(settings.epochs), desc="network", disable=not settings.progress):
        network.train()
        for rows in torch.randperm(len(lesson.features), generator=generator).split(settings.batch_size):
            chosen = rows.to(lesson.features.device)
            with torch.autocast("cuda", torch.bfloat16, enabled=lesson.features.is_cuda):
                predicted = network(lesson.features[chosen])
            loss = objective(predicted.float(), chosen)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        score = objective.score(Neural(network))
        if score > best:
            best, at = score, epoch
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        elif epoch - at >= settings.patience:
            break
    network.load_state_dict(kept)
    return Trained(Neural(network), best, {"regularisation": penalty, "epochs": epoch + 1})


@final
class _Paper:
    """Score as published: cross-entropy of the bits, the bounded output as logit, + 0.1 squared error."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson

    def __call__(self, predicted: Float[Tensor, "batch width"], rows: Int64[Tensor, " batch"]) -> Tensor:
        wanted = self.lesson.vectors[rows]
        bits = nn.functional.binary_cross_entropy_with_logits(predicted, (wanted + 1) / 2)
        return bits + 0.1 * nn.functional.mse_loss(predicted, wanted)

    def score(self, encoder: Encoder) -> float:
        held = self.lesson.held
        return float(torch.cosine_similarity(encoder(held.features), held.vectors, dim=1).mean())


@final
class _Softmax:
    """Score by the cross-entropy of the right concepts among those met in training."""

    def __init__(self, lesson: Lesson, temperature: float) -> None:
        self.lesson, self.temperature = lesson, temperature
        self.places = places_of(lesson)

    def __call__(self, predicted: Float[Tensor, "batch width"], rows: Int64[Tensor, " batch"]) -> Tensor:
        if not self.places:
            wanted = self.lesson.vectors[rows]
            return nn.functional.mse_loss(predicted, wanted)
        return cross_entropy(predicted, self.places, rows, self.temperature)

    def score(self, encoder: Encoder) -> float:
        return validation_score(self.lesson.held, self.lesson, encoder)
