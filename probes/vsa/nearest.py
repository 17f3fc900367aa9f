"""The nearest concepts of each query: rankings with ties in a fixed order, and counting of differing bits."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["Ranking", "Words", "agreement", "best", "packed"]

BLOCK = 8192  # items at a time, so that what is written in between stays in a core's own cache
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The nearest concepts of each query, best first.

    Attributes:
        names: one tuple of concepts per query.
        similarities: ``[query rank]``, from -1 to 1.
        index: ``[query rank]``, rows of the codebook.
    """

    names: list[tuple[str, ...]]
    similarities: Float[Tensor, "query rank"]
    index: Int64[Tensor, "query rank"]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        similarities: Float[Tensor, "query rank"],
        index: Int64[Tensor, "query rank"],
    ) -> Ranking:
        """Look the names up."""
        rows: list[list[int]] = index.tolist()
        return cls([tuple(names[i] for i in row) for row in rows], similarities, index)

    def __len__(self) -> int:
        """Count the queries."""
        return len(self.names)


def best(
    scores: Float[Tensor, "query concept"], k: int
) -> tuple[Float[Tensor, "query rank"], Int64[Tensor, "query rank"]]:
    """Find the k highest scores of each row and where they are; of equal ones the smallest index first."""
    values, index = torch.topk(scores, k, dim=1)
    crowded = (scores >= values[:, -1:]).sum(dim=1) > k
    if bool(crowded.any()):
        order = torch.sort(scores[crowded], dim=1, descending=True, stable=True)
        values[crowded], index[crowded] = order.values[:, :k], order.indices[:, :k]
    by_index = torch.argsort(index, dim=1)
    values, index = values.gather(1, by_index), index.gather(1, by_index)
    order = torch.sort(values, dim=1, descending=True, stable=True)
    return order.values, index.gather(1, order.indices)


def packed(vectors: Float[Tensor, "vector width"]) -> Words:
    """Pack signs into 64-bit words (a set bit: not negative), ``[vector word]``; the last word is padded."""
    bits = np.packbits((vectors >= 0).cpu().numpy(), axis=1)
    if padding := -bits.shape[1] % 8:
        bits = np.pad(bits, ((0, 0), (0, padding)))
    return np.ascontiguousarray(bits).view(np.uint64)


def agreement(query: Words, items: Words, width: int) -> npt.NDArray[np.float32]:
    """Compute the cosine of one packed bipolar vector with each of many, ``1 - 2 * differing / width``.

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
