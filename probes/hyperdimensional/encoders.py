"""From activations to hypervectors: the table of encoders, and what all of them give back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.hyperdimensional.lesson import HeldOut, Lesson, Settings, reciprocal_ranks, slot_vectors

__all__ = [
    "ENCODERS",
    "FORMS",
    "Encoder",
    "EncoderRow",
    "Linear",
    "Network",
    "Neural",
    "Trained",
    "validation_score",
]

DROPOUT = 0.5
SKIP = 0.1
"""Of the published network."""


class Encoder(ABC):
    """Map standardised features to real-valued hypervectors."""

    form: ClassVar[str]

    @abstractmethod
    def __call__(self, features: Float[Tensor, "example dim"]) -> Float[Tensor, "example width"]:
        """The predictions."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything learned, by name."""

    @classmethod
    @abstractmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> Encoder:
        """Take back what :meth:`arrays` gave."""


@final
@dataclass(frozen=True, eq=False)
class Linear(Encoder):
    """Multiply by a matrix, in two factors where the prediction uses few axes.

    Attributes:
        weight: ``[dim axis]``.
        offset: ``[axis]``.
        basis: ``[axis width]``, what each axis is among the coordinates; None where the axes are the
            coordinates themselves.
    """

    form: ClassVar[str] = "linear"
    weight: Float[Tensor, "dim axis"]
    offset: Float[Tensor, " axis"]
    basis: Float[Tensor, "axis width"] | None = None

    def __call__(self, features: Float[Tensor, "example dim"]) -> Float[Tensor, "example width"]:
        """The predictions."""
        inner = features @ self.weight.to(features) + self.offset.to(features)
        return inner if self.basis is None else inner @ self.basis.to(features)

    def arrays(self) -> dict[str, np.ndarray]:
        """The factors."""
        known = {"weight": self.weight, "offset": self.offset}
        if self.basis is not None:
            known["basis"] = self.basis
        return {name: np.ascontiguousarray(value.cpu().numpy()) for name, value in known.items()}

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> Linear:
        """Take the factors back."""
        basis = arrays.get("basis")
        return cls(
            torch.from_numpy(arrays["weight"]),
            torch.from_numpy(arrays["offset"]),
            None if basis is None else torch.from_numpy(basis),
        )


@final
class Block(nn.Module):
    """Add a transformed copy to a learnt fraction of the input: ``dropout(norm(gelu(W h)) + s h)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.skip = nn.Parameter(torch.tensor(SKIP))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, h: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch hidden"]:
        """The block's output."""
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
        """The prediction."""
        return self.leave(self.blocks(self.enter(features)))


@final
@dataclass(frozen=True, eq=False)
class Neural(Encoder):
    """A trained network."""

    form: ClassVar[str] = "neural"
    network: Network

    def __call__(self, features: Float[Tensor, "example dim"]) -> Float[Tensor, "example width"]:
        """The predictions."""
        self.network.eval()
        home = next(self.network.parameters()).device
        with torch.no_grad():
            return self.network(features.to(home, torch.float32)).to(features)

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights."""
        state = self.network.state_dict()
        return {name: np.ascontiguousarray(value.cpu().numpy()) for name, value in state.items()}

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> Neural:
        """Build the network that the weights fit, and fill it."""
        hidden, dim = arrays["enter.0.weight"].shape
        network = Network(dim, hidden, arrays["leave.1.weight"].shape[0])
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
        return cls(network)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained encoder, its validation score, and facts about the training."""

    encoder: Encoder
    score: float
    notes: dict[str, Any]


@dataclass(frozen=True)
class EncoderRow:
    """An encoder, described without loading it.

    Attributes:
        description: one line.
        trainer: ``module:function`` that trains it.
        form: the class of what it gives, ``linear`` or ``neural``.
        regularisation: the penalties it chooses from where the user names none.
        learning_rate: where the user names none.
        temperature: factor on the similarities before a softmax, where the user names none.
    """

    description: str
    trainer: str
    form: str
    regularisation: tuple[float, ...]
    learning_rate: float
    temperature: float = 10.0

    def penalties(self, asked: Sequence[float] | float | None) -> tuple[float, ...]:
        """The penalties to choose from.

        Raises:
            ValueError: none, or one that is not positive.
        """
        found = self.regularisation if asked is None else tuple(np.atleast_1d(np.asarray(asked)).tolist())
        if not found or min(found) <= 0:
            raise ValueError(f"regularisation is {asked}; give a positive number, or several to choose from.")
        return found

    def train(self, lesson: Lesson, settings: Settings) -> Trained:
        """Import and call it."""
        module, _, name = self.trainer.partition(":")
        return getattr(import_module(module), name)(lesson, settings)


ENCODERS: dict[str, EncoderRow] = {
    "linear": EncoderRow(
        "a linear map trained with a softmax over the concepts",
        "probes.hyperdimensional.training:train_linear",
        "linear",
        (0.1, 1.0, 3.0),
        2e-2,
    ),
    "embedding": EncoderRow(
        "a linear map to the concepts' embeddings: ridge, then a softmax pulled towards it, then projected",
        "probes.hyperdimensional.embedding:train_embedding",
        "linear",
        (0.003, 0.03, 0.3),
        0.0,
        20.0,
    ),
    "ridge": EncoderRow(
        "least squares onto the hypervectors, in closed form",
        "probes.hyperdimensional.training:train_ridge",
        "linear",
        (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0),
        0.0,
    ),
    "mlp": EncoderRow(
        "two residual blocks, as published (Bronzini et al. 2025)",
        "probes.hyperdimensional.training:train_network",
        "neural",
        (1e-4,),
        1e-3,
    ),
    "translator": EncoderRow(
        "least squares to the model's own final states, without labels, then projected",
        "probes.hyperdimensional.translating:train_translator",
        "linear",
        tuple(10.0**power for power in range(-7, 2)),
        0.0,
    ),
}


def validation_score(held: HeldOut, lesson: Lesson, encoder: Encoder) -> float:
    """The mean reciprocal rank on held-out data over all slots, or the cosine without slots."""
    predicted = encoder(held.features)
    if not held.slots:
        return float(torch.nn.functional.cosine_similarity(predicted, held.vectors, dim=1).mean())
    ranks = [
        reciprocal_ranks(predicted @ slot_vectors(lesson.codebook, slot.role).T, slot.codes).mean()
        for slot in held.slots
    ]
    return float(torch.stack(ranks).mean())


FORMS: dict[str, type[Encoder]] = {"linear": Linear, "neural": Neural}
"""How a saved encoder is read back."""
