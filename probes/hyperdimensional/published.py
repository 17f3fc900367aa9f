"""The published encoder: two residual blocks on a wide latent space (Bronzini et al. 2025, section 3).

With ``compat="paper"`` also its losses, its target range and its choice of checkpoint, so that its numbers
can
be compared; otherwise it is trained as the linear encoder is, with a softmax over the concepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm.auto import tqdm

from probes.hyperdimensional.encoders import Encoder, Trained, validation_score
from probes.hyperdimensional.lesson import Lesson, Settings
from probes.hyperdimensional.softmax import cross_entropy, places_of
from probes.vsa.algebra import generator_for

__all__ = ["Block", "Network", "Neural", "train"]

DROPOUT = 0.5
SKIP = 0.1


@final
class Block(nn.Module):
    """Add a transformed copy to a learnt fraction of the input: ``dropout(norm(gelu(W h)) + s h)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.skip = nn.Parameter(torch.tensor(SKIP))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, h: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch hidden"]:
        """Give the block's output."""
        return self.dropout(self.norm(nn.functional.gelu(self.map(h))) + self.skip * h)


@final
class Network(nn.Module):
    """Map ``[batch dim]`` to ``[batch width]``, bounded by tanh."""

    def __init__(self, dim: int, hidden: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(dim, hidden), nn.LayerNorm(hidden), nn.GELU())
        self.blocks = nn.Sequential(Block(hidden), Block(hidden))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width), nn.Tanh())

    def forward(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch width"]:
        """Give the prediction."""
        return self.leave(self.blocks(self.enter(features)))


@final
@dataclass(frozen=True, eq=False)
class Neural(Encoder):
    """Hold a trained network."""

    form: ClassVar[str] = "neural"
    network: Network

    def __call__(self, features: Float[Tensor, "example dim"]) -> Float[Tensor, "example width"]:
        """Give the predictions."""
        self.network.eval()
        home = next(self.network.parameters()).device
        with torch.no_grad():
            return self.network(features.to(home, torch.float32)).to(features)

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the weights."""
        state = self.network.state_dict()
        return {name: np.ascontiguousarray(value.cpu().numpy()) for name, value in state.items()}

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> Neural:
        """Build the network that the weights fit, and fill it."""
        hidden, dim = arrays["enter.0.weight"].shape
        network = Network(dim, hidden, arrays["leave.1.weight"].shape[0])
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
        return cls(network)


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
