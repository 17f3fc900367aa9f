"""What turns pre-activations into features: which are kept, and by how much."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Activation", "BatchTopK", "Gated", "JumpReLU", "ReLU", "TopK"]

Values = Float[Tensor, "*batch feature"]


@dataclass(frozen=True, eq=False)
class Activation(ABC):
    """A function from pre-activations to features."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, pre: Values) -> Values:
        """The features."""

    @abstractmethod
    def scaled(self, factor: Float[Tensor, " feature"]) -> Activation:
        """The activation that gives ``factor * f`` for pre-activations that are ``factor`` times as large."""

    def tensors(self) -> dict[str, Tensor]:
        """Its parameters by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> Activation:
        """The same on a device."""
        return replace(self, **{name: value.to(device) for name, value in self.tensors().items()})

    def picked(self, rows: Tensor) -> Activation:
        """The same for its features in another order, or for some of them.

        Args:
            rows: which features.
        """
        return replace(self, **{name: value[rows] for name, value in self.tensors().items()})


@final
@dataclass(frozen=True, eq=False)
class ReLU(Activation):
    """``max(pre, 0)`` (Bricken et al. 2023)."""

    name: ClassVar[str] = "relu"

    def __call__(self, pre: Values) -> Values:
        """The features."""
        return pre.relu()

    def scaled(self, factor: Float[Tensor, " feature"]) -> ReLU:
        """The same."""
        return self


@final
@dataclass(frozen=True, eq=False)
class JumpReLU(Activation):
    """``pre`` where it is above its threshold, else 0 (Rajamanoharan et al. 2024, arXiv 2407.14435).

    Attributes:
        threshold: of every feature.
        signed: whether negative pre-activations above a negative threshold pass, as in circuit-tracer; they
            are 0 elsewhere.
    """

    name: ClassVar[str] = "jumprelu"

    threshold: Float[Tensor, " feature"]
    signed: bool = False

    def __call__(self, pre: Values) -> Values:
        """The features."""
        kept = pre if self.signed else pre.relu()
        return kept * (pre > self.threshold)

    def scaled(self, factor: Float[Tensor, " feature"]) -> JumpReLU:
        """Move the thresholds."""
        return replace(self, threshold=self.threshold * factor)


@final
@dataclass(frozen=True, eq=False)
class TopK(Activation):
    """The ``k`` largest pre-activations (Gao et al. 2024, arXiv 2406.04093).

    Attributes:
        k: how many.
        signed: whether negative ones among them pass; they are 0 elsewhere.
        by_size: whether the largest are those of the largest absolute value.
        weight: what the largest are chosen by, times the pre-activation; None for 1.
    """

    name: ClassVar[str] = "topk"

    k: int
    signed: bool = False
    by_size: bool = False
    weight: Float[Tensor, " feature"] | None = None

    def __call__(self, pre: Values) -> Values:
        """The features."""
        chosen = pre if self.weight is None else pre * self.weight
        chosen = chosen.abs() if self.by_size else chosen
        index = chosen.topk(self.k, dim=-1, sorted=False).indices
        kept = pre.gather(-1, index)
        return torch.zeros_like(pre).scatter(-1, index, kept if self.signed else kept.relu())

    def scaled(self, factor: Float[Tensor, " feature"]) -> TopK:
        """Choose as before."""
        weight = 1 / factor if self.weight is None else self.weight / factor
        return replace(self, weight=weight)


@final
@dataclass(frozen=True, eq=False)
class BatchTopK(Activation):
    """Trained with k features on average per batch; used with one threshold (Bussmann et al. 2024).

    Attributes:
        threshold: the smallest feature that is kept, learned in training; one for all features until they are
            rescaled.
    """

    name: ClassVar[str] = "batch-topk"

    threshold: Float[Tensor, " feature"]

    def __call__(self, pre: Values) -> Values:
        """The features."""
        positive = pre.relu()
        return positive * (positive > self.threshold)

    def scaled(self, factor: Float[Tensor, " feature"]) -> BatchTopK:
        """Move the thresholds."""
        return replace(self, threshold=self.threshold * factor)


@final
@dataclass(frozen=True, eq=False)
class Gated(Activation):
    """A gate decides, a magnitude says how much (Rajamanoharan et al. 2024, arXiv 2404.16014).

    ``f = (pre + gate_bias > 0) * max(pre * scale + magnitude_bias, 0)``

    Attributes:
        gate_bias: of every feature.
        scale: ``exp(r_mag)`` of every feature.
        magnitude_bias: of every feature.
    """

    name: ClassVar[str] = "gated"

    gate_bias: Float[Tensor, " feature"]
    scale: Float[Tensor, " feature"]
    magnitude_bias: Float[Tensor, " feature"]

    def __call__(self, pre: Values) -> Values:
        """The features."""
        return (pre + self.gate_bias > 0) * (pre * self.scale + self.magnitude_bias).relu()

    def scaled(self, factor: Float[Tensor, " feature"]) -> Gated:
        """Scale both biases."""
        return replace(self, gate_bias=self.gate_bias * factor, magnitude_bias=self.magnitude_bias * factor)
