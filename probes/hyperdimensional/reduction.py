"""From a stack of layers to one vector per example: the table of reductions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

__all__ = ["REDUCTIONS", "Reduction", "reduce"]

Stack = Float[Tensor, "example layer dim"]
Reduction = Callable[[Stack], Float[Tensor, "example width"]]

CLUSTERS, ROUNDS = 5, 100


def reduce(X: Float[Tensor, ...], reduction: str) -> Float[Tensor, "example width"]:
    """One vector per example.

    Args:
        X: ``[example dim]``, or ``[example layer dim]`` for all but ``none``.
        reduction: a key of :data:`REDUCTIONS`, or ``none`` for one layer as it is.

    Raises:
        ValueError: an unknown reduction, or a shape that it does not take.
    """
    if reduction == "none":
        if X.ndim == 2:
            return X
        if X.ndim == 3 and X.shape[1] == 1:
            return X[:, 0]
        raise ValueError(
            f"X has shape {tuple(X.shape)} and reduction='none' reads one layer, [example, dim]; give one "
            f"layer, "
            f"or choose among {', '.join(REDUCTIONS)}."
        )
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r} asked; the reductions are: none, {', '.join(REDUCTIONS)}.")
    if X.ndim != 3:
        raise ValueError(
            f"X has shape {tuple(X.shape)} and reduction={reduction!r} joins layers: give [example, layer, "
            f"dim], "
            "or use reduction='none'."
        )
    return REDUCTIONS[reduction](X)


def _unit_scale(X: Stack) -> Stack:
    """Scale every layer of every example to a root mean square of 1."""
    size = X.pow(2).mean(dim=-1, keepdim=True).sqrt()
    return X / size.clamp_min(torch.finfo(X.dtype).tiny)


def _concatenate(X: Stack) -> Float[Tensor, "example width"]:
    return rearrange(_unit_scale(X), "example layer dim -> example (layer dim)")


def _mean(X: Stack) -> Float[Tensor, "example dim"]:
    return X.mean(dim=1)


def _scaled_mean(X: Stack) -> Float[Tensor, "example dim"]:
    return _unit_scale(X).mean(dim=1)


def _cluster_sum(X: Stack) -> Float[Tensor, "example dim"]:
    """Cluster each example's layers with k-means and add the centroids up (Bronzini et al. 2025, section 3).

    Lloyd's algorithm, all examples at once, from centroids spread evenly over the layers, so that there is no
    random start. A cluster that loses all its layers keeps its centroid and is left out of the sum.
    """
    n_layers = X.shape[1]
    k = min(CLUSTERS, n_layers)
    start = torch.linspace(0, n_layers - 1, k, device=X.device).round().long()
    centroids = X[:, start].clone()
    nearest = torch.full(X.shape[:2], -1, device=X.device)
    for _ in range(ROUNDS):
        found = torch.cdist(X, centroids).argmin(dim=2)
        if torch.equal(found, nearest):
            break
        nearest = found
        member = torch.nn.functional.one_hot(nearest, k).to(X)
        counts = member.sum(dim=1)
        means = torch.einsum("elk,eld->ekd", member, X) / counts.clamp_min(1)[..., None]
        centroids = torch.where(counts[..., None] > 0, means, centroids)
    filled = torch.nn.functional.one_hot(nearest, k).sum(dim=1) > 0
    return (centroids * filled[..., None]).sum(dim=1)


REDUCTIONS: dict[str, Reduction] = {
    "concatenate": _concatenate,
    "mean": _mean,
    "rms-mean": _scaled_mean,
    "kmeans-sum": _cluster_sum,
}
"""What ``reduction=`` takes besides ``none``. ``concatenate`` and ``rms-mean`` scale every layer first."""
