"""Learn orthonormal directions whose interchange makes the model give the source's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.alignment.cases import Cases
from interp.mediation.metrics import Targets

__all__ = ["LOSSES", "Course", "learned"]

CHECK_EVERY = 10


def _among_answers(logits: Tensor, targets: Targets) -> Tensor:
    """Give minus the log of the wanted tokens' share among wanted and unwanted ones (nats)."""
    right = _total(logits, targets.answers, targets.answered)
    wrong = _total(logits, targets.foils, targets.foiled)
    return torch.nn.functional.softplus(wrong - right)


def _among_all(logits: Tensor, targets: Targets) -> Tensor:
    """Give minus the log of the wanted tokens' probability (nats)."""
    return torch.logsumexp(logits, dim=1) - _total(logits, targets.answers, targets.answered)


def _total(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return torch.logsumexp(logits.gather(1, ids).masked_fill(~mask, -torch.inf), dim=1)


LOSSES: dict[str, Callable[[Tensor, Targets], Tensor]] = {
    "answers": _among_answers,
    "vocabulary": _among_all,
}


@dataclass(frozen=True)
class Course:
    """Say how directions are trained.

    Attributes:
        dims: directions per block.
        steps: at most so many steps.
        batch: cases per step.
        rate: of Adam at the first step; it falls to zero in a straight line.
        patience: checks on the validation part (one every 10 steps) without a better one before stopping.
        among: a key of ``LOSSES``.
        seed: of the first directions and of the order of cases.
    """

    dims: tuple[int, ...]
    steps: int
    batch: int
    rate: float
    patience: int
    among: str
    seed: int

    def check(self, width: int) -> None:
        """Refuse a course that cannot be run.

        Raises:
            ConfigError: says which number.
        """
        if self.among not in LOSSES:
            raise ConfigError(f"among={self.among!r} asked; use {' or '.join(map(repr, LOSSES))}.")
        if min(self.dims) < 1 or sum(self.dims) > width:
            raise ConfigError(
                f"{sum(self.dims)} directions asked ({', '.join(map(str, self.dims))}), but the site has "
                f"width {width}; ask for 1 to {width} in all."
            )
        if min(self.steps, self.batch, self.patience) < 1 or not self.rate > 0:
            raise ConfigError("steps, batch and patience must be at least 1, and rate above 0.")


@dataclass(eq=False)
class _Pupil:
    """Hold the directions while they are learned: the rows of ``weight``, made orthonormal."""

    weight: Tensor
    masks: Tensor
    curve: list[dict[str, int | float]] = field(default_factory=list)

    @property
    def basis(self) -> Tensor:
        """Give orthonormal rows in fp32, a function of the weight."""
        orthonormal, triangle = torch.linalg.qr(self.weight.T)
        return (orthonormal * triangle.diagonal().sign()).T

    def losses(self, cases: Cases, rows: Tensor, among: str) -> Tensor:
        """Give the loss of each case."""
        basis, rows = self.basis, rows.to(cases.blocks.device)
        mask, source = self.masks[cases.blocks[rows]], cases.sources[rows]

        def change(current: Tensor) -> Tensor:
            shift = ((source - current.float()) @ basis.T) * mask
            return current + (shift @ basis).to(current.dtype)

        return LOSSES[among](cases.run(rows, change), cases.targets.rows(rows))

    def mean_loss(self, every: Sequence[Cases], among: str, batch: int) -> float:
        """Give the mean loss over all cases."""
        with torch.no_grad():
            parts = [
                self.losses(cases, rows, among).detach()
                for cases in every
                for rows in torch.arange(len(cases)).split(4 * batch)
            ]
        return float(torch.cat(parts).mean())


def learned(
    train: Sequence[Cases], held: Sequence[Cases], course: Course
) -> tuple[list[Float[Tensor, "_ width"]], tuple[Mapping[str, int | float], ...]]:
    """Train directions on some cases, and keep those with the least loss on others.

    The rotation of distributed alignment search (Geiger et al. 2024, arXiv 2303.02536, section 3), of which
    only the rows that are interchanged are kept. The model is not changed.

    Args:
        train: cases to learn from, by length.
        held: cases to stop by.
        course: how.

    Returns:
        One orthonormal block per variable, and the losses by step (nats).
    """
    device, width = train[0].sources.device, train[0].sources.shape[1]
    course.check(width)
    pupil = _Pupil(_first(course, width).to(device), _masks(course.dims).to(device))
    optimiser = torch.optim.Adam([pupil.weight], lr=course.rate)
    order = np.random.default_rng(course.seed)
    best, kept, waited, step = float("inf"), pupil.basis.detach(), 0, 0
    while step < course.steps and waited < course.patience:
        batches = [(cases, rows) for cases in train for rows in cases.batches(course.batch, order)]
        for at in order.permutation(len(batches)):
            if step % CHECK_EVERY == 0 or step == course.steps:
                loss = pupil.mean_loss(held, course.among, course.batch)
                pupil.curve.append({"step": step, "validation": loss})
                waited = 0 if loss < best else waited + 1
                if loss < best:
                    best, kept = loss, pupil.basis.detach()
                if step == course.steps or waited >= course.patience:
                    break
            cases, rows = batches[at]
            for group in optimiser.param_groups:
                group["lr"] = course.rate * (1 - step / course.steps)
            mean = pupil.losses(cases, rows, course.among).mean()
            (pupil.weight.grad,) = torch.autograd.grad(mean, [pupil.weight])
            optimiser.step()
            pupil.curve[-1].setdefault("train", float(mean.detach()))
            step += 1
    if pupil.mean_loss(held, course.among, course.batch) < best:
        kept = pupil.basis.detach()
    return [block.cpu() for block in kept.split(list(course.dims))], tuple(pupil.curve)


def _first(course: Course, width: int) -> Tensor:
    """Give random orthonormal rows to start from."""
    generator = torch.Generator().manual_seed(course.seed)
    rows = torch.linalg.qr(torch.randn(width, sum(course.dims), generator=generator))[0].T
    return rows.contiguous().requires_grad_()


def _masks(dims: Sequence[int]) -> Tensor:
    """Say which directions belong to which block: ``[block dim]``."""
    owners = torch.repeat_interleave(torch.arange(len(dims)), torch.tensor(dims))
    return (owners == torch.arange(len(dims))[:, None]).float()
