"""The converter: what it takes, gives back and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from probes.arrays import as_labels, as_matrix


@pytest.mark.parametrize(
    "X",
    [
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.arange(6).reshape(3, 2),
        torch.arange(6).reshape(3, 2),
        torch.arange(6, dtype=torch.bfloat16).reshape(3, 2),
        torch.arange(6.0).reshape(3, 2).requires_grad_(),
        torch.arange(6.0).reshape(2, 3).T,
    ],
)
def test_every_kind_becomes_the_same_numbers(X: Any) -> None:
    values = as_matrix(X).values
    assert values.dtype == np.float64
    assert values.tolist() == X.tolist()


def test_a_converted_array_is_a_copy() -> None:
    X = np.ones((2, 2))
    as_matrix(X).values[0, 0] = 5
    tensor = torch.ones(2, 2, dtype=torch.float64)
    as_matrix(tensor).values[0, 0] = 5
    assert X[0, 0] == 1
    assert tensor[0, 0] == 1


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.ones(3), ValueError, r"X has shape \(3,\); a probe reads \[example, dim\]"),
        (np.ones((2, 3, 4)), ValueError, r"shape \(2, 3, 4\)"),
        (np.ones((0, 3)), ValueError, "a minimum of 1 is required"),
        (np.array([["a", "b"]]), TypeError, "an array of <U1"),
        (np.ones((2, 2), dtype=complex), ValueError, "complex numbers"),
        (
            np.array([[1.0, 2.0], [np.nan, np.inf]]),
            ValueError,
            r"2 numbers that are not finite \(NaN or infinity\), first in row 1",
        ),
        (torch.tensor([[1.0], [float("inf")]]), ValueError, "first in row 1"),
        (sparse.csr_matrix(np.array([[1.0], [0.0], [np.nan]])), ValueError, "first in row 2"),
    ],
)
def test_what_cannot_be_read_is_named(X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_matrix(X)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"], r"y has shape \(1,\) for 2 examples"),
        ([0.5, 1.0], "values such as 0.5; labels are text or whole numbers"),
        (["a", None], "y holds NoneType and str"),
        ([[1], [2]], r"shape \(2, 1\)"),
    ],
)
def test_labels_that_are_none_are_named(y: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_labels(y, 2)


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (("a", "b"), "U"),
        ([1, 2], "i"),
        ([1.0, 2.0], "i"),
        ([True, False], "b"),
        (np.array(["a", "b"], dtype=object), "U"),
        (torch.tensor([1, 2]), "i"),
    ],
)
def test_labels_keep_their_kind(y: Any, kind: str) -> None:
    assert as_labels(y, 2).dtype.kind == kind
