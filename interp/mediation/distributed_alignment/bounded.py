"""Alignments that learn how many directions they need: Boundless DAS, and a binary mask on a site's axes.

While they are learned, how much of each direction is interchanged is a number between 0 and 1 that a falling
temperature drives to the ends; what is kept afterwards is hard. Every direction costs ``price`` nats, so that
a direction stays where the loss needs it. Only the hard one is scored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.mediation.distributed_alignment.training import (
    CHECK_EVERY,
    LOSSES,
    Interchanges,
    TrainingConfig,
)
from interp.models.forward import gradients

__all__ = ["BOUNDED", "Bounded", "bounded"]

COLD = 0.05
"""The temperature at the end, in directions (a mask: in log odds)."""


class Bounded(ABC):
    """Directions with a share each.

    Attributes:
        description: one line.
    """

    description: ClassVar[str]

    def __init__(self, width: int, generator: torch.Generator, device: torch.device) -> None:
        """Start with parameters that keep half of the directions."""
        self.width = width
        self.parameters = [one.to(device).requires_grad_() for one in self.first(generator)]

    @abstractmethod
    def first(self, generator: torch.Generator) -> list[Tensor]:
        """The parameters before training."""

    @abstractmethod
    def shares(self, left: float) -> Float[Tensor, " dim"]:
        """How much of each direction is interchanged.

        Args:
            left: of the training, 1 to 0.
        """

    @property
    @abstractmethod
    def rows(self) -> Float[Tensor, "dim width"]:
        """The directions, orthonormal."""

    def largest(self, rank: int) -> Float[Tensor, "rank width"]:
        """The directions with the largest shares, so many."""
        return self.rows.detach()[self.shares(0.0).detach().topk(rank).indices.sort().values]

    @property
    def hard(self) -> Float[Tensor, "kept width"]:
        """The directions that are kept: at least one."""
        shares = self.shares(0.0).detach()
        kept = shares > 0.5
        kept[shares.argmax()] = True
        return self.rows.detach()[kept]


class Boundless(Bounded):
    """A rotation and a boundary: the directions before it are interchanged (Wu et al. 2023, 2305.08809)."""

    description = "a rotation, and how many of its first directions are interchanged (Boundless DAS)"

    def first(self, generator: torch.Generator) -> list[Tensor]:
        """A random rotation, and the boundary in the middle."""
        return [torch.randn(self.width, self.width, generator=generator, dtype=torch.float32), torch.zeros(1)]

    @property
    def rows(self) -> Float[Tensor, "dim width"]:
        """Orthonormal rows, a function of the weight."""
        orthonormal, triangle = torch.linalg.qr(self.parameters[0].T)
        return (orthonormal * triangle.diagonal().sign()).T

    def shares(self, left: float) -> Float[Tensor, " dim"]:
        """Near 1 before the boundary and near 0 behind it."""
        warm = self.width / 8
        temperature = warm * (COLD / warm) ** (1 - left)
        boundary = self.width * torch.sigmoid(self.parameters[1])
        at = torch.arange(self.width, device=boundary.device) + 0.5
        return torch.sigmoid((boundary - at) / temperature)


class BinaryMask(Bounded):
    """The site's own axes, each interchanged or not (differential binary masking; De Cao et al. 2020)."""

    description = "the site's own axes, each interchanged or not (differential binary masking)"

    def first(self, generator: torch.Generator) -> list[Tensor]:
        """Even odds."""
        return [torch.zeros(self.width)]

    @property
    def rows(self) -> Float[Tensor, "dim width"]:
        """The axes."""
        return torch.eye(self.width, device=self.parameters[0].device)

    def shares(self, left: float) -> Float[Tensor, " dim"]:
        """The odds, sharpened."""
        return torch.sigmoid(self.parameters[0] / COLD ** (1 - left))


BOUNDED: dict[str, type[Bounded]] = {"boundless": Boundless, "mask": BinaryMask}


@gradients()
def bounded(
    train: Sequence[Interchanges],
    held: Sequence[Interchanges],
    config: TrainingConfig,
    rank: int | None = None,
) -> tuple[list[Float[Tensor, "kept width"]], tuple[Mapping[str, int | float], ...]]:
    """Train directions and how many of them on some cases; all steps are taken.

    Args:
        train: cases to learn from, by length.
        held: cases on which the hard directions are watched, in the curve.
        config: how; its method is a key of ``BOUNDED``.
        rank: give so many, those with the largest shares; those above 1/2 where left out.

    Returns:
        One orthonormal block, and the losses by step (nats).
    """
    generator = torch.Generator().manual_seed(config.seed)
    found = BOUNDED[config.method](train[0].sources.shape[1], generator, train[0].sources.device)
    optimiser = torch.optim.Adam(found.parameters, lr=config.rate)
    order = np.random.default_rng(config.seed)
    curve: list[Mapping[str, int | float]] = []
    step = 0
    while step < config.steps:
        batches = [(one, part) for one in train for part in one.batches(config.batch, order)]
        for cases, rows in batches:
            if step == config.steps:
                break
            shares = found.shares(1 - step / config.steps)
            mean = _loss(cases, rows, found.rows, shares, config.among).mean()
            slopes = torch.autograd.grad(mean + config.price * shares.sum(), found.parameters)
            for parameter, slope in zip(found.parameters, slopes, strict=True):
                parameter.grad = slope
            optimiser.step()
            if step % CHECK_EVERY == 0:
                watched = _watched(held, found.hard, config)
                curve.append({"step": step, "train": float(mean.detach()), "validation": watched})
            step += 1
    curve.append({"step": step, "validation": _watched(held, found.hard, config)})
    kept = found.hard if rank is None else found.largest(rank)
    return [kept.cpu()], tuple(curve)


def _loss(cases: Interchanges, rows: Tensor, basis: Tensor, shares: Tensor, among: str) -> Tensor:
    """The loss of each case where a share of each direction is interchanged."""
    rows = rows.to(cases.blocks.device)
    source = cases.sources[rows]

    def change(current: Tensor) -> Tensor:
        shift = ((source - current.float()) @ basis.T) * shares
        return current + (shift @ basis).to(current.dtype)

    return LOSSES[among](cases.run(rows, change), cases.targets.rows(rows))


def _watched(held: Sequence[Interchanges], basis: Tensor, config: TrainingConfig) -> float:
    """The mean loss of the hard directions on held-out cases."""
    whole = torch.ones(len(basis), device=basis.device)
    with torch.no_grad():
        parts = [
            _loss(cases, rows, basis, whole, config.among)
            for cases in held
            for rows in torch.arange(len(cases)).split(4 * config.batch)
        ]
    return float(torch.cat(parts).mean())
