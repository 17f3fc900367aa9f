"""Nearest bipolar vectors by counting differing bits: 64 coordinates at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

__all__ = ["agreement", "packed"]

BLOCK = 8192  # items at a time, so that what is written in between stays in a core's own cache
Words = npt.NDArray[np.uint64]


def packed(vectors: Float[Tensor, "vector width"]) -> Words:
    """Pack signs into 64-bit words (a set bit: not negative), ``[vector word]``; the last word is padded."""
    bits = np.packbits((vectors >= 0).cpu().numpy(), axis=1)
    if padding := -bits.shape[1] % 8:
        bits = np.pad(bits, ((0, 0), (0, padding)))
    return np.ascontiguousarray(bits).view(np.uint64)


def agreement(query: Words, items: Words, width: int) -> npt.NDArray[np.float32]:
    """Give the cosine of one packed bipolar vector with each of many, exactly: ``1 - 2 * differing / width``.

    Args:
        query: ``[word]``.
        items: ``[word item]``: words first, so that the sum over words runs along the memory.
        width: how many coordinates were packed.
    """
    size = np.uint16 if width < 2**16 else np.uint32
    differing = np.zeros(items.shape[1], dtype=size)
    for start in range(0, items.shape[1], BLOCK):
        block, total = items[:, start : start + BLOCK], differing[start : start + BLOCK]
        words, counts = np.empty(len(total), dtype=np.uint64), np.empty(len(total), dtype=np.uint8)
        for row, word in zip(block, query, strict=True):
            np.bitwise_count(np.bitwise_xor(row, word, out=words), out=counts)
            np.add(total, counts, out=total)
    return 1 - differing.astype(np.float32) * np.float32(2 / width)
