"""Reductions against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from probes.hyperdimensional.reduction import reduce


def stack(n: int = 6, layers: int = 9, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, layers, dim, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def test_concatenation_and_means_follow_their_definitions() -> None:
    X = stack()
    scaled = X / X.pow(2).mean(-1, keepdim=True).sqrt()
    assert torch.allclose(reduce(X, "concatenate"), scaled.reshape(6, 36))
    assert torch.allclose(reduce(X, "rms-mean"), scaled.mean(1))
    assert torch.allclose(reduce(X, "mean"), X.mean(1))
    assert not torch.allclose(reduce(X, "mean"), reduce(X, "rms-mean"))
    assert torch.equal(reduce(X[:, :1], "none"), X[:, 0])


def test_the_cluster_sum_is_that_of_k_means() -> None:
    X = stack(n=3).double()
    start = np.linspace(0, 8, 5).round().astype(int)
    for row, found in zip(X.numpy(), reduce(X, "kmeans-sum").numpy(), strict=True):
        oracle = KMeans(5, init=row[start], n_init=1, algorithm="lloyd", tol=0).fit(row)
        assert np.allclose(found, oracle.cluster_centers_.sum(0))


def test_an_empty_cluster_neither_breaks_nor_counts() -> None:
    X = torch.ones(2, 7, 4)  # all layers alike: one cluster is filled, four are empty
    assert torch.equal(reduce(X, "kmeans-sum"), torch.ones(2, 4))
    assert torch.isfinite(reduce(torch.zeros(2, 7, 4), "concatenate")).all()


def test_fewer_layers_than_clusters_are_summed() -> None:
    X = stack(layers=3)
    assert torch.allclose(reduce(X, "kmeans-sum"), X.sum(1), atol=1e-5)
    with pytest.raises(ValueError, match="the reductions are"):
        reduce(X, "median")
