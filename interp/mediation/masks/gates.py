"""The table of gates: how a mask is drawn while it is learned, what it costs, and what it settles to.

One parameter per mediator, shared by all examples; the noise is drawn anew for every copy of a prompt.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["GATES", "Bottleneck", "Gate", "HardConcrete", "Uniform"]

Parameters = Float[Tensor, " mediator"]
Gates = Float[Tensor, "row mediator"]
EDGE = 1e-6


@dataclass(frozen=True)
class Gate(ABC):
    """How gates between 0 (replaced) and 1 (kept) are drawn from their parameters.

    Attributes:
        name: what users type.
        description: one line.
        noisy: whether what is shut out is replaced by noise of the site's own mean and standard deviation
            rather than by the replacement that was asked.
        over: what it masks.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    noisy: ClassVar[bool] = False
    over: ClassVar[tuple[str, ...]] = ("sites", "edges")

    @abstractmethod
    def start(self, n: int) -> Parameters:
        """The parameters before training, of n mediators."""

    @abstractmethod
    def draw(self, parameters: Parameters, rows: int, generator: torch.Generator) -> Gates:
        """Gates of some copies, with the graph back to the parameters."""

    @abstractmethod
    def kept(self, parameters: Parameters) -> Parameters:
        """The expected share of each mediator that is kept, with the graph: what a mask is charged for."""

    @abstractmethod
    def settled(self, parameters: Parameters) -> Parameters:
        """Each gate without noise, 0 to 1; the hard mask keeps those above 1/2."""


def _odds(share: float, n: int) -> Tensor:
    return torch.full((n,), math.log(share / (1 - share)), dtype=torch.float32)


@dataclass(frozen=True)
class HardConcrete(Gate):
    """Concrete gates, stretched and clipped: many are exactly 0 or 1 (Louizos et al. 2018, 1712.01312).

    With ``u`` uniform, ``s = sigmoid((ln u - ln(1 - u) + a) / beta)`` and the gate is
    ``clip(s (zeta - gamma) + gamma, 0, 1)``; it is above 0 with probability
    ``sigmoid(a - beta ln(-gamma / zeta))``.

    Attributes:
        beta: the temperature.
        gamma: where the stretched interval begins, below 0.
        zeta: where it ends, above 1.
        first: the probability that a gate is above 0 before training.
    """

    beta: float = 2 / 3
    gamma: float = -0.1
    zeta: float = 1.1
    first: float = 0.9

    name = "hard-concrete"
    description = "learn which parts are kept by gates that reach 0 and 1 (edge pruning, subnetwork probing)"

    @property
    def _shift(self) -> float:
        return self.beta * math.log(-self.gamma / self.zeta)

    def start(self, n: int) -> Parameters:
        """Gates that are open with probability ``first``."""
        return _odds(self.first, n) + self._shift

    def draw(self, parameters: Parameters, rows: int, generator: torch.Generator) -> Gates:
        """One draw per copy and mediator."""
        u = torch.rand(rows, len(parameters), generator=generator, dtype=torch.float32).clamp(EDGE, 1 - EDGE)
        noise = (u.log() - (1 - u).log()).to(parameters)
        return self._stretched(torch.sigmoid((noise + parameters) / self.beta))

    def kept(self, parameters: Parameters) -> Parameters:
        """The probability of a gate above 0 (the closed form of the expected L0 norm)."""
        return torch.sigmoid(parameters - self._shift)

    def settled(self, parameters: Parameters) -> Parameters:
        """The gate without noise."""
        return self._stretched(torch.sigmoid(parameters))

    def _stretched(self, s: Tensor) -> Tensor:
        return (s * (self.zeta - self.gamma) + self.gamma).clamp(0, 1)


@dataclass(frozen=True)
class Uniform(Gate):
    """Gates that are open with probability p, now and then anywhere between (uniform gradient sampling).

    A gate is uniform with probability ``p (1 - p)``, else 1 with probability p or 0. The slope of the loss at
    a uniform gate is, on average, the loss with the part less that without it, which is the slope in p of the
    expected loss; so it is the unbiased slope in the log odds of p (Li and Janson 2024, 2409.09951).
    """

    name = "uniform-gates"
    description = "learn the probability that each part is kept, by gates uniform between 0 and 1 (UGS)"

    def start(self, n: int) -> Parameters:
        """Gates that are mostly open, so that parts that need each other are seen together."""
        return _odds(0.9, n)

    def draw(self, parameters: Parameters, rows: int, generator: torch.Generator) -> Gates:
        """One draw per copy and mediator; gradients pass through uniform gates alone."""
        u, kind, at = torch.rand(3, rows, len(parameters), generator=generator, dtype=torch.float32).to(
            parameters.device
        )
        p = torch.sigmoid(parameters.detach())
        between = kind < p * (1 - p)
        value = torch.where(between, at, (u < p).to(at))
        through = (parameters - parameters.detach())[None].expand_as(value)
        return value.to(parameters) + torch.where(between, through, torch.zeros_like(through))

    def kept(self, parameters: Parameters) -> Parameters:
        """The probability that a gate is open."""
        return torch.sigmoid(parameters)

    def settled(self, parameters: Parameters) -> Parameters:
        """The same."""
        return torch.sigmoid(parameters)


@dataclass(frozen=True)
class Bottleneck(Gate):
    """Gates that let a share of a value through, the rest noise: ``s z + (1 - s) (mean + sd eps)``.

    What passes is charged in nats per feature, ``1/2 [(1 - s)^2 + (s (z - mean) / sd)^2 - 1 - ln (1 - s)^2]``
    averaged over the prompts, where the second square is ``s^2``: ``-ln(1 - s) - s (1 - s)``. One mask for
    all prompts: a mask per prompt would be an attribution, not a circuit (cf. IBCircuit, 2602.22581).
    """

    name = "bottleneck"
    description = "learn how much of each part has to pass, the rest being noise of its mean and spread"
    noisy = True
    over = ("sites",)

    def start(self, n: int) -> Parameters:
        """Nine tenths pass."""
        return _odds(0.9, n)

    def draw(self, parameters: Parameters, rows: int, generator: torch.Generator) -> Gates:
        """The same gates in every copy; the noise is in what is put in."""
        return torch.sigmoid(parameters)[None].expand(rows, -1)

    def kept(self, parameters: Parameters) -> Parameters:
        """Nats per feature that pass."""
        s = torch.sigmoid(parameters)
        return torch.nn.functional.softplus(parameters) - s * (1 - s)

    def settled(self, parameters: Parameters) -> Parameters:
        """The share that passes."""
        return torch.sigmoid(parameters)


_ROWS = (HardConcrete(), Uniform(), Bottleneck())

GATES: dict[str, Gate] = {row.name: row for row in _ROWS}
