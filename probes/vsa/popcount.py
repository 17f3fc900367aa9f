"""Nearest bipolar vectors by counting differing bits: 64 coordinates at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

__all__ = ["agreement", "packed"]

Words = npt.NDArray[np.uint64]


def packed(vectors: Float[Tensor, "vector width"]) -> Words:
    """Pack signs into 64-bit words (a set bit: not negative), ``[vector word]``; the last word is padded."""
    bits = np.packbits((vectors >= 0).cpu().numpy(), axis=1)
    padding = -bits.shape[1] % 8
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, padding)))).view(np.uint64)


def agreement(query: Words, items: Words, width: int) -> npt.NDArray[np.float32]:
    """Give the cosine of one packed bipolar vector with each of many, exactly: ``1 - 2 * differing / width``.

    Args:
        query: ``[word]``.
        items: ``[item word]``.
        width: how many coordinates were packed.
    """
    differing = np.bitwise_count(items ^ query).sum(axis=1, dtype=np.int64)
    return ((width - 2 * differing) / width).astype(np.float32)
