"""What counts as numbers to estimate from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "finite", "same_length"]

FloatArray = npt.NDArray[np.float64]


def finite(values: Collection[Any], name: str) -> FloatArray:
    """Give numbers as float64, or raise ValueError naming what is wrong with them."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError(f"{name} is empty; an estimate needs at least one example.")
    wrong = int((~np.isfinite(data)).sum())
    if wrong:
        raise ValueError(f"{name} holds {wrong} numbers that are not finite; drop or repair them.")
    return data


def same_length(a: FloatArray, b: FloatArray) -> None:
    """Raise ValueError unless two score lists can be of the same examples."""
    if a.shape != b.shape:
        raise ValueError(f"scores must be of the same examples: {len(a)} in first, {len(b)} in second.")
