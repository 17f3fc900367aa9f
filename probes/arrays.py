"""The one converter: tensors, arrays and sparse counts in, the caller's kind of array out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

__all__ = ["Inputs", "Matrix", "as_labels", "as_matrix"]

Inputs = torch.Tensor | np.ndarray | sparse.spmatrix | sparse.sparray
"""What a probe reads: ``[example dim]``, floating point or whole numbers, on any device."""


@dataclass(frozen=True)
class Matrix:
    """Hold the numbers a probe computes with, and how to give results back in the caller's terms.

    Attributes:
        values: ``[example dim]``, float64 on the CPU, dense or compressed by row.
        device: the caller's device, ``None`` where the input was no tensor.
        dtype: the caller's floating-point type; float64 where the input held whole numbers.
    """

    values: np.ndarray | sparse.csr_array
    device: torch.device | None
    dtype: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Give the number of examples and of columns."""
        shape: Any = self.values.shape
        return tuple(shape)

    def back(self, result: np.ndarray) -> torch.Tensor | np.ndarray:
        """Give a result on the device, in the type and in the kind of array that came in."""
        if self.device is None:
            return result.astype(self.dtype)
        return torch.from_numpy(np.ascontiguousarray(result)).to(self.device, self.dtype)


def as_matrix(X: Inputs, *, width: int | None = None, name: str = "X") -> Matrix:
    """Convert a tensor or array to float64 on the CPU; the input is never changed.

    Args:
        X: ``[example dim]``.
        width: the number of columns it must have.
        name: what errors call it.

    Raises:
        TypeError: not a tensor, array or sparse matrix of numbers.
        ValueError: not two-dimensional, empty, of another width, or not finite (the message names the row).
    """
    matrix = _converted(X, name)
    shape = matrix.shape
    if len(shape) != 2:
        raise ValueError(f"{name} has shape {shape}; a probe reads [example, dim]: one row per example.")
    if 0 in shape:
        raise ValueError(f"{name} has shape {shape}; a probe needs at least one example and one column.")
    if width is not None and shape[1] != width:
        raise ValueError(
            f"{name} has {shape[1]} columns, but this probe was fitted on {width}; "
            "give it activations of the model and site it was trained on."
        )
    _check_finite(matrix, name)
    return matrix


def _converted(X: Inputs, name: str) -> Matrix:
    if isinstance(X, torch.Tensor):
        dtype = X.dtype if X.is_floating_point() else torch.float64
        return Matrix(X.detach().to("cpu", torch.float64, copy=True).numpy(), X.device, dtype)
    if isinstance(X, sparse.spmatrix | sparse.sparray):
        rows: Any = sparse.csr_array(X)
        return Matrix(rows.astype(np.float64), None, _floating(rows.dtype))
    if isinstance(X, np.ndarray) and X.dtype.kind in "fiub":
        return Matrix(X.astype(np.float64), None, _floating(X.dtype))
    found = f"an array of {X.dtype}" if isinstance(X, np.ndarray) else f"a {type(X).__name__}"
    raise TypeError(f"{name} is {found}; give a torch tensor, a NumPy array or a sparse matrix of numbers.")


def _floating(dtype: Any) -> Any:
    return dtype if np.dtype(dtype).kind == "f" else np.dtype(np.float64)


def _check_finite(matrix: Matrix, name: str) -> None:
    values = matrix.values
    sparse_data = isinstance(values, sparse.csr_array)
    finite = np.isfinite(values.data if sparse_data else values)
    if finite.all():
        return
    rows = values.tocoo().row[~finite] if sparse_data else np.flatnonzero(~finite.all(axis=1))
    raise ValueError(
        f"{name} holds {int((~finite).sum())} numbers that are not finite, first in row {int(rows[0])}; "
        "drop those examples, or capture them in float32."
    )


def as_labels(y: Collection[Any], n: int, *, name: str = "y") -> np.ndarray:
    """Convert labels to a one-dimensional array of text, whole numbers or truth values.

    Raises:
        ValueError: not one label per example, missing labels, or continuous values.
    """
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu().numpy()
    labels = np.asarray(y if isinstance(y, np.ndarray) else list(y))
    if labels.shape != (n,):
        raise ValueError(f"{name} has shape {labels.shape} for {n} examples; give one label per example.")
    if labels.dtype.kind == "O":
        return _uniform(labels, name)
    if labels.dtype.kind == "f":
        if not np.array_equal(labels, np.round(labels)):
            raise ValueError(f"{name} holds values such as {labels[0]}; labels are text or whole numbers.")
        return labels.astype(np.int64)
    return labels


def _uniform(labels: np.ndarray, name: str) -> np.ndarray:
    kinds = {type(label).__name__ for label in labels}
    if len(kinds) > 1 or kinds <= {"NoneType"}:
        found = " and ".join(sorted(kinds))
        raise ValueError(f"{name} holds {found}; labels are all text or all whole numbers, none missing.")
    return np.asarray(labels.tolist())
