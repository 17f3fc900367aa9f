"""Whether the parts of one value fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.errors import DataError

__all__ = ["check", "identical", "is_single"]


def is_single(positions: Sequence[Any]) -> bool:
    """Say whether there is one position per example rather than a row of them."""
    return bool(positions) and isinstance(positions[0], int)


def check(
    tensors: Mapping[str, Tensor],
    token_ids: Sequence[Sequence[int]],
    positions: Sequence[Any],
    texts: Sequence[str],
) -> None:
    """Refuse parts that do not fit together.

    Raises:
        DataError: saying which part has which size.
    """
    count = len(token_ids)
    if not tensors:
        raise DataError("activations need at least one site; none was given.")
    if not count:
        raise DataError("activations need at least one example; none was given or selected.")
    if not count == len(positions) == len(texts):
        sizes = f"{count} lists of token ids, {len(positions)} positions and {len(texts)} texts"
        raise DataError(f"{sizes} do not fit together: give one of each per example.")
    _check_positions(positions, token_ids)
    lead = (count,) if is_single(positions) else (count, max(len(row) for row in positions))
    for name, tensor in tensors.items():
        if tensor.ndim <= len(lead) or tuple(tensor.shape[: len(lead)]) != lead:
            needed = ", ".join(map(str, lead))
            found = f"{name} has shape {list(tensor.shape)}"
            raise DataError(f"{found}, but these examples and positions need [{needed}, ...].")


def _check_positions(positions: Sequence[Any], token_ids: Sequence[Sequence[int]]) -> None:
    single = is_single(positions)
    for number, (row, ids) in enumerate(zip(positions, token_ids, strict=True)):
        if isinstance(row, int) != single:
            raise DataError(
                "positions mix numbers with lists. Give one number per example, or one list each."
            )
        outside = [p for p in ([row] if isinstance(row, int) else row) if not 0 <= p < len(ids)]
        if outside:
            found = f"example {number} has position {outside[0]}, but its tokens are 0..{len(ids) - 1}"
            raise DataError(f"{found}. Count positions from the example's first token.")


def identical(a: Tensor, b: Tensor) -> bool:
    """Compare two tensors bit for bit, except that NaN equals NaN; devices may differ."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = a.detach(), b.detach().to(a.device)
    return bool(torch.equal(a, b) or ((a == b) | (a.isnan() & b.isnan())).all())
