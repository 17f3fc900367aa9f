"""The one converter: tensors, arrays and sparse counts in, the caller's kind of array out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from probes.statistics.groups import counted

__all__ = [
    "Inputs",
    "Labels",
    "Matrix",
    "as_array",
    "as_indicators",
    "as_labels",
    "as_matrix",
    "as_numbers",
    "training",
]

Inputs = Any
"""What a probe reads: ``[example dim]`` numbers: a tensor on any device, an array, lists, a sparse matrix."""

Labels = Any
"""What a probe learns: one label, number or collection of labels per example, as an array, tensor or list."""


@dataclass(frozen=True)
class Matrix:
    """The numbers a probe computes with, and how to give results back in the caller's terms.

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
        """The number of examples and of columns."""
        shape: Any = self.values.shape
        return tuple(shape)

    @property
    def dense(self) -> np.ndarray:
        """The values as a dense array."""
        return self.values.toarray() if isinstance(self.values, sparse.csr_array) else self.values

    def back(self, result: np.ndarray) -> torch.Tensor | np.ndarray:
        """A result on the device, in the type and in the kind of array that came in."""
        if self.device is None:
            return result.astype(self.dtype)
        return torch.from_numpy(np.ascontiguousarray(result)).to(self.device, self.dtype)


@contextmanager
def training() -> Iterator[None]:
    """Compute gradients inside the block, or function, whatever the user has switched off around it."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


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
        raise ValueError(
            f"{name} has shape {shape}; a probe reads [example, dim]: one row per example. Reshape your data "
            "(X[None] makes one example of a vector)."
        )
    if 0 in shape:
        raise ValueError(
            f"{name} has {shape[0]} sample(s) and {shape[1]} feature(s) (shape={shape}) while a minimum of "
            f"1 is "
            "required of each."
        )
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
    array = as_array(X, name=name)
    return Matrix(array.astype(np.float64), None, _floating(array.dtype))


def as_array(X: Any, *, name: str = "X") -> np.ndarray:
    """An array, nested lists or what calls itself an array as an array of real numbers.

    Raises:
        TypeError: it is none, or holds no numbers.
        ValueError: it holds complex numbers.
    """
    array = _array(X)
    if array is not None and array.dtype.kind in "fiub":
        return array
    if array is not None and array.dtype.kind == "c":
        raise ValueError(f"{name} holds complex numbers. Complex data not supported: give real ones.")
    found = f"a {type(X).__name__}" if array is None else f"an array of {array.dtype}"
    raise TypeError(f"{name} is {found}; give a torch tensor, a NumPy array or a sparse matrix of numbers.")


def _array(X: Any) -> np.ndarray | None:
    """Nested lists and what calls itself an array as one; numbers kept as objects become floats."""
    if not isinstance(X, np.ndarray | list | tuple) and not callable(getattr(X, "__array__", None)):
        return None
    try:
        array = np.asarray(X)
        return array.astype(np.float64) if array.dtype.kind == "O" else array
    except (TypeError, ValueError):
        return None


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
        f"{name} holds {int((~finite).sum())} numbers that are not finite (NaN or infinity), first in row "
        f"{int(rows[0])}; drop those examples, or capture them in float32."
    )


def as_labels(y: Labels, n: int, *, name: str = "y") -> np.ndarray:
    """Convert labels to a one-dimensional array of text, whole numbers or truth values.

    Raises:
        ValueError: not one label per example, missing labels, or continuous values.
    """
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu().numpy()
    if y is None:
        raise ValueError(f"a probe requires {name} to be passed, but the target {name} is None.")
    given = _array(y) if not isinstance(y, Collection) else None
    labels = np.asarray(y if given is not None or isinstance(y, np.ndarray) else list(y))
    if labels.shape != (n,):
        raise ValueError(
            f"{name} has shape {labels.shape} for {counted(n, 'example')}; give one label per example."
        )
    if labels.dtype.kind == "O":
        return _uniform(labels, name)
    if labels.dtype.kind == "f":
        if not np.array_equal(labels, np.round(labels)):
            raise ValueError(
                f"{name} holds values such as {labels[0]}; labels are text or whole numbers "
                "(Unknown label type: continuous). For numbers use RidgeRegressionProbe."
            )
        return labels.astype(np.int64)
    return labels


def _uniform(labels: np.ndarray, name: str) -> np.ndarray:
    kinds = {type(label).__name__ for label in labels}
    if len(kinds) > 1 or kinds <= {"NoneType"}:
        found = " and ".join(sorted(kinds))
        raise ValueError(f"{name} holds {found}; labels are all text or all whole numbers, none missing.")
    return np.asarray(labels.tolist())


def as_numbers(y: Labels, n: int, *, name: str = "y") -> np.ndarray:
    """Convert what a regression predicts to float64, ``[example]`` or ``[example target]``.

    Raises:
        ValueError: not one row per example, text, or numbers that are not finite.
    """
    if y is None:
        raise ValueError(f"a probe requires {name} to be passed, but the target {name} is None.")
    values = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y
    sized = isinstance(values, Collection) and not isinstance(values, np.ndarray)
    array = np.asarray(list(values) if sized else values)
    if array.dtype.kind not in "fiu":
        found = array.ravel()[0].item() if array.size else "nothing"
        raise ValueError(
            f"{name} holds {found!r}; a regression predicts numbers. Use LogisticProbe for labels."
        )
    if array.ndim not in (1, 2) or len(array) != n or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape} for {counted(n, 'example')}; give one number or row per example."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite; drop those examples.")
    return array.astype(np.float64)


def as_indicators(
    y: Labels, n: int, *, names: list[Any] | None = None, name: str = "y"
) -> tuple[np.ndarray, list[Any]]:
    """Convert several labels per example to ``[example label]`` of 0 and 1, and the labels' names.

    Args:
        y: a matrix of 0 and 1, or one collection of names per example.
        n: number of examples.
        names: the labels, where they are known; others are refused.
        name: what errors call it.

    Raises:
        ValueError: not one row per example, other values than 0 and 1, plain labels, or unknown labels.
    """
    values = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        if values.ndim != 2 or len(values) != n or not np.isin(values, (0, 1)).all():
            raise ValueError(
                f"{name} has shape {values.shape} for {counted(n, 'example')}; give [example label] of 0 "
                "and 1."
            )
        if names is not None and len(names) != values.shape[1]:
            raise ValueError(
                f"{name} has {values.shape[1]} columns for the {counted(len(names), 'label')} trained."
            )
        return values.astype(np.int64), list(range(values.shape[1])) if names is None else names
    rows = list(values)
    if len(rows) != n:
        raise ValueError(
            f"{name} has {counted(len(rows), 'row')} for {counted(n, 'example')}; "
            "give one collection of labels each."
        )
    if any(isinstance(row, str) or not isinstance(row, Collection) for row in rows):
        raise ValueError(
            f"{name} holds one label per example; several labels are given as collections of names."
        )
    known = sorted({label for row in rows for label in row}) if names is None else names
    column = {label: at for at, label in enumerate(known)}
    table = np.zeros((n, len(known)), dtype=np.int64)
    for at, row in enumerate(rows):
        for label in row:
            if label not in column:
                raise ValueError(f"{name} holds the label {label!r}, which was not trained: {known}.")
            table[at, column[label]] = 1
    return table, known
