"""How alike two sets of vectors are that belong to the same items: NumPy only, items weighted where asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Alignment", "effective_rank", "neighbours", "overlap", "row_cosine"]


def row_cosine(
    first: Float[np.ndarray, "item dim"], second: Float[np.ndarray, "item dim"]
) -> Float[np.ndarray, " item"]:
    """Give the cosine between the rows of two matrices; 0 where a row is zero."""
    return np.sum(_unit(first) * _unit(second), axis=1)


def _unit(rows: Float[np.ndarray, "item dim"]) -> Float[np.ndarray, "item dim"]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Give the linear CKA of two sets of vectors for any weights of the items, in ``O(item^2)`` each.

    ``||Yc' W Xc||^2 / (||Xc' W Xc|| ||Yc' W Yc||)`` (Kornblith et al. 2019, equation 4), with W the weights
    on the diagonal and columns centred by their weighted means. It is 1 where one set is the other turned and
    scaled. It has a bias upwards for few items in many dimensions: compare it with the value for items
    exchanged at random, not with 0.

    Attributes:
        first: ``[item item]`` inner products of the first set.
        second: ``[item item]`` of the second.
    """

    first: Float[np.ndarray, "item item"]
    second: Float[np.ndarray, "item item"]

    @classmethod
    def of(cls, first: Float[np.ndarray, "item dim"], second: Float[np.ndarray, "item other"]) -> Alignment:
        """Take the vectors; means are removed first, for precision."""
        centred = [rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64) for rows in (first, second)]
        gram = [rows @ rows.T for rows in centred]
        return cls(gram[0], gram[1])

    def __call__(self, weights: Float[np.ndarray, " item"]) -> float:
        """Give the CKA; 0 where one set does not vary."""
        together = _shared(self.first, self.second, weights)
        alone = _shared(self.first, self.first, weights) * _shared(self.second, self.second, weights)
        return together / float(np.sqrt(alone)) if alone > 0 else 0.0


def _shared(
    first: Float[np.ndarray, "item item"],
    second: Float[np.ndarray, "item item"],
    weights: Float[np.ndarray, " item"],
) -> float:
    """Give the weighted sum over pairs of products of both centred inner products."""
    kept = np.flatnonzero(weights)
    w, k, m = weights[kept], first[np.ix_(kept, kept)], second[np.ix_(kept, kept)]
    total = w.sum()
    a, b = k @ w / total, m @ w / total
    return float(w @ (k * m) @ w - 2 * total * np.sum(w * a * b) + (w @ k @ w) * (w @ m @ w) / total**2)


def neighbours(rows: Float[np.ndarray, "item dim"], k: int) -> Int[np.ndarray, "item k"]:
    """Give the k other items with the highest cosine to each item, after centring."""
    unit = _unit(rows - rows.mean(axis=0))
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return np.argsort(-alike, axis=1, kind="stable")[:, :k]


def overlap(
    first: Int[np.ndarray, "item k"], second: Int[np.ndarray, "item k"]
) -> Float[np.ndarray, " item"]:
    """Give the share of each item's neighbours that are the same in both."""
    return (first[:, :, None] == second[:, None, :]).any(axis=2).mean(axis=1)


def effective_rank(rows: Float[np.ndarray, "item dim"], weights: Float[np.ndarray, " item"]) -> float:
    """Give the exponential of the entropy of the singular values, as shares of their sum.

    1 where all items lie on a line, the number of dimensions where they fill all alike. Source: Roy and
    Vetterli 2007.

    Args:
        rows: the vectors; they are centred by their weighted mean.
        weights: of the items.
    """
    kept = weights > 0
    w, values = weights[kept], rows[kept].astype(np.float64)
    values = (values - w @ values / w.sum()) * np.sqrt(w)[:, None]
    square = values @ values.T if len(values) < values.shape[1] else values.T @ values
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(square), 0, None))
    if not singular.sum():
        return 1.0
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))
