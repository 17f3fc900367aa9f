"""The nearest concepts of each query, with ties in a fixed order."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["Ranking", "best"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Hold the nearest concepts of each query, best first.

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
        """Give the number of queries."""
        return len(self.names)


def best(
    scores: Float[Tensor, "query concept"], k: int
) -> tuple[Float[Tensor, "query rank"], Int64[Tensor, "query rank"]]:
    """Give the k highest scores of each row and where they are; of equal ones the smallest index first."""
    values, index = torch.topk(scores, k, dim=1)
    crowded = (scores >= values[:, -1:]).sum(dim=1) > k
    if bool(crowded.any()):
        order = torch.sort(scores[crowded], dim=1, descending=True, stable=True)
        values[crowded], index[crowded] = order.values[:, :k], order.indices[:, :k]
    by_index = torch.argsort(index, dim=1)
    values, index = values.gather(1, by_index), index.gather(1, by_index)
    order = torch.sort(values, dim=1, descending=True, stable=True)
    return order.values, index.gather(1, order.indices)
