"""The table of kinds that can be swept: how all layers and targets of one split are solved together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["KINDS", "Sample", "SweepKind", "logistic", "mean_difference", "ridge"]

Solution = tuple[Tensor, Tensor]
"""``[layer target dim]`` and ``[layer target]``."""
MAX_ITERATIONS = 1000
STEEP = 1e-4
"""A logistic probe whose objective has a larger slope than this has not converged."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sample:
    """What one split is fitted on.

    Attributes:
        values: ``[layer example dim]`` of every example, float64, less their mean over all examples.
        rows: the training examples.
        wanted: ``[train target]``.
    """

    values: Tensor
    rows: Tensor
    wanted: Tensor

    def centred(self) -> tuple[Tensor, Tensor]:
        """``[layer train dim]`` of mean 0, and the ``[layer dim]`` mean.

        The mean leaves before anything is squared: a feature that is constant in training but not elsewhere
        would otherwise get its spread from rounding, and an arbitrary coefficient from that.
        """
        fit = self.values[:, self.rows]
        mean = fit.mean(dim=1)
        return fit.sub_(mean[:, None]), mean

    def standardised(self) -> tuple[Tensor, Tensor, Tensor]:
        """``[layer train dim]`` of mean 0 and variance 1, and the ``[layer dim]`` mean and spread."""
        fit, mean = self.centred()
        scale = _spread(fit.square().mean(dim=1))
        return fit / scale[:, None], mean, scale


def _spread(variance: Tensor) -> Tensor:
    """The spread of each feature; 1 for constant ones, as in :mod:`probes.fitting`."""
    spread = variance.clamp(min=0).sqrt()
    floor = 1e-10 * spread.amax(dim=1, keepdim=True).clamp(min=1e-290)
    return torch.where(spread <= floor, 1.0, spread)


def _unscaled(coef: Tensor, offset: Tensor, mean: Tensor, scale: Tensor) -> Solution:
    """The same function of the values as the coefficients are of the standardised ones."""
    raw = coef / scale[:, None]
    return raw, offset - torch.einsum("ltd,ld->lt", raw, mean)


def ridge(sample: Sample, strengths: Sequence[float], method: str) -> Iterator[Solution]:
    """Solve all layers and targets from one decomposition of each layer's smaller Gram matrix."""
    n, width = len(sample.rows), sample.values.shape[2]
    centre = sample.wanted.mean(dim=0)
    right = sample.wanted - centre
    wide = width > n
    if wide:
        fit, mean, scale = sample.standardised()
        gram, side = fit @ fit.mT, right.expand(len(fit), -1, -1)
    else:
        fit, mean = sample.centred()
        gram = fit.mT @ fit
        scale = _spread(gram.diagonal(dim1=1, dim2=2) / n)
        gram = gram / (scale[:, :, None] * scale[:, None])
        side = (fit.mT @ right) / scale[:, :, None]
    offset = centre.expand(len(fit), -1)
    for found in _inverses(gram, side, [strength * n for strength in strengths]):
        yield _unscaled((fit.mT @ found if wide else found).mT, offset, mean, scale)


def _inverses(gram: Tensor, side: Tensor, shifts: Sequence[float]) -> Iterator[Tensor]:
    """``(gram + shift)^-1 side`` for each shift: one factor for one, one decomposition for several."""
    if len(shifts) == 1:
        eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        yield torch.cholesky_solve(side, torch.linalg.cholesky(gram + shifts[0] * eye))
        return
    sizes, vectors = torch.linalg.eigh(gram)
    projected = vectors.mT @ side
    for shift in shifts:
        yield vectors @ (projected / (sizes.clamp(min=0) + shift)[..., None])


def mean_difference(sample: Sample, strengths: Sequence[float], method: str) -> Iterator[Solution]:
    """Subtract class means, the threshold halfway; nothing is scaled or tuned."""
    wanted = sample.wanted
    ones = wanted.sum(dim=0)
    weights = sample.values.new_zeros(sample.values.shape[1], 2 * wanted.shape[1])
    weights[sample.rows] = torch.cat([wanted / ones, (1 - wanted) / (len(wanted) - ones)], dim=1)
    high, low = (weights.mT @ sample.values).chunk(2, dim=1)
    coef = high - low
    yield coef, -(coef * (high + low)).sum(dim=2) / 2


def logistic(sample: Sample, strengths: Sequence[float], method: str) -> Iterator[Solution]:
    """Minimise the mean cross-entropy (nats) plus half the penalty times the squared norm."""
    one = _logistic_torch if method == "torch" else _logistic_sklearn
    fit, mean, scale = sample.standardised()
    start: Solution | None = None
    for strength in strengths:
        start = one(fit, sample.wanted, strength, start)
        yield _unscaled(*start, mean, scale)


def _logistic_torch(fit: Tensor, wanted: Tensor, strength: float, start: Solution | None) -> Solution:
    """Solve all problems as one: their sum is least where each is (L-BFGS, strong Wolfe search)."""
    layers, _, width = fit.shape
    zeros = fit.new_zeros(layers, wanted.shape[1], width), fit.new_zeros(layers, wanted.shape[1])
    weights, offset = (part.clone().requires_grad_() for part in start or zeros)
    signs = 1 - 2 * wanted.T
    solver = torch.optim.LBFGS(
        [weights, offset],
        max_iter=MAX_ITERATIONS,
        history_size=20,
        tolerance_grad=1e-7,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        scores = torch.einsum("lnd,ltd->ltn", fit, weights) + offset[..., None]
        found = torch.nn.functional.softplus(signs * scores).mean(dim=2).sum()
        found = found + strength / 2 * (weights**2).sum()
        found.backward()
        return found

    with torch.enable_grad():
        solver.step(loss)
        loss()
    slope = torch.maximum(_largest(weights.grad), _largest(offset.grad))
    _warn(int((slope > STEEP).sum()), slope.numel())
    return weights.detach(), offset.detach()


def _largest(gradient: Tensor | None) -> Tensor:
    """``[layer target]``, the largest slope of each problem."""
    assert gradient is not None
    return gradient.abs().amax(dim=2) if gradient.ndim == 3 else gradient.abs()


def _warn(failed: int, count: int) -> None:
    if failed:
        _log.warning(
            "%d of %d logistic probes stopped before they converged; raise regularisation", failed, count
        )


def _logistic_sklearn(fit: Tensor, wanted: Tensor, strength: float, start: Solution | None) -> Solution:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    solver: Any = LogisticRegression(C=1 / (strength * fit.shape[1]), max_iter=MAX_ITERATIONS, tol=1e-5)
    numbers, table = fit.cpu().numpy(), wanted.cpu().numpy()
    coef, offset = np.zeros((len(fit), table.shape[1], fit.shape[2])), np.zeros((len(fit), table.shape[1]))
    failed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for at, t in np.ndindex(*offset.shape):
            solver.fit(numbers[at], table[:, t])
            coef[at, t], offset[at, t] = solver.coef_[0], solver.intercept_[0]
            failed += int(solver.n_iter_.max()) >= MAX_ITERATIONS
    _warn(failed, offset.size)
    return torch.from_numpy(coef).to(fit.device), torch.from_numpy(offset).to(fit.device)


@dataclass(frozen=True)
class SweepKind:
    """A kind of probe that can be swept.

    Attributes:
        name: its key; the probe of that name in :data:`probes.PROBES` is the same probe fitted alone.
        solve: gives the solutions of all layers and targets, one penalty after the other.
        penalised: whether it has a penalty.
        numbers: whether targets may be other numbers than 0 and 1.
    """

    name: str
    solve: Callable[[Sample, Sequence[float], str], Iterator[Solution]]
    penalised: bool = True
    numbers: bool = False


_ROWS = (
    SweepKind("ridge", ridge, numbers=True),
    SweepKind("mean-difference", mean_difference, penalised=False),
    SweepKind("logistic", logistic),
)

KINDS: dict[str, SweepKind] = {row.name: row for row in _ROWS}
