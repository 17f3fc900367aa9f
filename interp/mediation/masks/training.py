"""The one trainer of masks: keep what the run says, for as few mediators as that takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.experiment import Experiment
from interp.mediation.masks.gates import Gate
from interp.mediation.masks.passes import masked_pass
from interp.mediation.rankings import jaccard
from interp.models.forward import gradients

__all__ = ["Learned", "MaskTraining", "agreement", "hard", "learned", "schedule"]

MOST = 4096
"""Tokens of a step, at most."""
FIRST, STEEP = 0.01, 0.1
"""The price that a search for one begins at, and by how much it moves in a step, in its logarithm."""


@dataclass(frozen=True)
class MaskTraining:
    """How a mask is trained.

    The loss is ``KL(clean || masked)`` after the last token, in nats, plus ``price`` for every mediator that
    is kept (a bottleneck: for every nat per feature that passes). With a ``density`` the price is found: the
    multiplier of a Lagrangian, which rises while more is kept and falls while less is. The target falls from
    everything to the density by half-time (as in edge pruning; Bhaskar et al. 2024, 2406.16778).

    Attributes:
        steps: of Adam.
        batch: copies of prompts per step, at most.
        rate: of Adam at the first step; it falls to zero in a straight line.
        price: nats that a kept mediator costs.
        density: the share of mediators to keep; None to keep what is worth its price.
    """

    steps: int = 150
    batch: int = 32
    rate: float = 0.2
    price: float = 0.05
    density: float | None = None

    def check(self, gate: Gate) -> None:
        """Refuse what cannot be trained.

        Raises:
            ConfigError: says which number.
        """
        if min(self.steps, self.batch) < 1 or not (self.rate > 0 and self.price >= 0):
            raise ConfigError(
                f"steps={self.steps}, batch={self.batch}, rate={self.rate} and price={self.price} asked; a "
                "mask needs at least 1 step and 1 copy, a rate above 0 and a price of 0 or more."
            )
        if self.density is None:
            return
        if not 0 < self.density < 1 or gate.noisy:
            raise ConfigError(
                f"density={self.density} asked of gate {gate.name!r}; it is a share above 0 and below 1, of "
                "gates that are open or shut. Leave it out and set price."
            )


@dataclass(frozen=True, eq=False)
class Learned:
    """A mask after training.

    Attributes:
        gates: of each mediator, 0 to 1, without noise.
        rows: copies of prompts that were run with a gradient.
        curve: loss and expected number kept, a few times on the way.
    """

    gates: Float[np.ndarray, " mediator"]
    rows: int
    curve: tuple[Mapping[str, int | float], ...]


def hard(gates: Float[np.ndarray, " mediator"], training: MaskTraining) -> list[int]:
    """The numbers of the mediators of the hard mask: gates above 1/2, or the share that was asked.

    Args:
        gates: of each mediator, 0 to 1.
        training: with its density, if any.
    """
    if training.density is None:
        return np.flatnonzero(gates > 0.5).tolist()
    return np.argsort(-gates, kind="stable")[: round(training.density * len(gates))].tolist()


def schedule(experiment: Experiment, training: MaskTraining) -> list[list[int]]:
    """The pairs of every step, of one length each; a step of few pairs has several copies of them."""
    rng = np.random.default_rng(experiment.seed)
    lengths = experiment.pairs.lengths
    found: list[list[int]] = []
    while len(found) < training.steps:
        parts: list[list[int]] = []
        for length in sorted(set(lengths)):
            most = max(1, min(training.batch, MOST // length))
            rows = rng.permutation([at for at, n in enumerate(lengths) if n == length]).tolist()
            parts += [rows[at : at + most] for at in range(0, len(rows), most)]
        found += [parts[at] for at in rng.permutation(len(parts))]
    return found[: training.steps]


@gradients()
def learned(experiment: Experiment, direction: str, gate: Gate, training: MaskTraining, seed: int) -> Learned:
    """Train one mask over all pairs.

    By noising, kept mediators keep their own value in the clean prompt and the rest are replaced; by
    denoising kept mediators are put into the corrupt prompt, and the rest are left alone. Both are to give
    what the clean prompt gives. Gates that put noise in keep what the prompts of the direction give.

    Args:
        experiment: whose mediators are masked.
        direction: whose prompts are run.
        gate: a row of ``GATES``.
        training: how.
        seed: of the noise.
    """
    run = masked_pass(experiment, direction, noisy=gate.noisy)
    wanted = experiment.targets.reference
    assert wanted is not None
    if gate.noisy and direction == "denoising":
        wanted = experiment.model.logits(experiment.pairs.corrupt)
    wanted = torch.log_softmax(wanted.detach().float(), dim=1)
    generator = torch.Generator().manual_seed(seed)
    mask = gate.start(len(experiment.mediators)).to(wanted.device).requires_grad_()
    optimiser = torch.optim.Adam([mask], lr=training.rate)
    size = _Size(gate, training, training.price if training.density is None else FIRST)
    curve: list[Mapping[str, int | float]] = []
    steps = schedule(experiment, training)
    for step, rows in enumerate(steps):
        left = 1 - step / len(steps)
        for group in optimiser.param_groups:
            group["lr"] = training.rate * left
        found = run.logits(rows, gate.draw(mask, len(rows), generator), generator)
        loss = _divergence(wanted[rows], found)
        charged = size.charge(mask, step)
        (mask.grad,) = torch.autograd.grad(loss + charged, [mask])
        optimiser.step()
        if step % max(1, len(steps) // 10) == 0 or step == len(steps) - 1:
            kept = float(gate.kept(mask).detach().sum())
            curve.append({"step": step, "nats": float(loss.detach()), "kept": kept})
    return Learned(gate.settled(mask.detach()).double().cpu().numpy(), run.rows, tuple(curve))


def _divergence(wanted: Tensor, logits: Tensor) -> Tensor:
    """The mean divergence of the masked run from what is wanted, in nats."""
    found = torch.log_softmax(logits, dim=1)
    return (wanted.exp() * (wanted - found)).sum(dim=1).mean()


@dataclass(eq=False)
class _Size:
    """What a kept mediator costs: the price asked, or one that is moved until few enough are kept."""

    gate: Gate
    training: MaskTraining
    price: float

    def charge(self, mask: Tensor, step: int) -> Tensor:
        """The charge of the present mask."""
        kept = self.gate.kept(mask)
        density = self.training.density
        if density is not None:
            warm = min(1.0, 2 * step / self.training.steps)  # the target falls to what was asked by half-time
            over = float(kept.detach().mean()) / (1 - warm * (1 - density)) - 1
            self.price *= math.exp(STEEP * max(-1.0, min(1.0, over)))
        return self.price * kept.sum()


def agreement(masks: Sequence[Sequence[int]]) -> float:
    """The mean share of mediators that two hard masks both keep, of those that either keeps."""
    sets = [set(one) for one in masks]
    pairs = [(a, b) for at, a in enumerate(sets) for b in sets[:at]]
    return float(np.mean([jaccard(a, b) if a | b else 1.0 for a, b in pairs]))
