"""Reading concepts out of predicted hypervectors. Nothing here ever sees the right answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from probes.statistics.groups import counted
from probes.vsa.codebook import Candidates, Codebook

__all__ = ["Decodings", "decode", "null_threshold"]

Reading = list[tuple[str, float]]


@dataclass(frozen=True, eq=False, repr=False)
class Decodings:
    """The concepts read out of each example, best first.

    Attributes:
        names: one tuple of concepts per example.
        similarities: ``[example rank]``, from -1 to 1.
        index: ``[example rank]``, rows of the codebook.
        threshold: below this similarity nothing is claimed; minus infinity where none was calibrated.
        vectors: ``[example width]``, what was compared with the concepts.
        codebook: the concepts.
        candidates: what the ranking was restricted to.
        unfamiliar: ``[example]``, whether its state is unlike all that the probe was trained on; None where
            that was not looked at.
    """

    names: list[tuple[str, ...]]
    similarities: Float[Tensor, "example rank"]
    index: Int64[Tensor, "example rank"]
    threshold: float
    vectors: Float[Tensor, "example width"]
    codebook: Codebook
    candidates: Candidates | None = None
    unfamiliar: Bool[Tensor, " example"] | None = None

    @property
    def abstained(self) -> Bool[Tensor, " example"]:
        """Whether nothing is claimed: the best concept is below the threshold, or the state is unfamiliar."""
        below = self.similarities[:, 0] < self.threshold
        return below if self.unfamiliar is None else below | self.unfamiliar.to(below.device)

    def top(self, k: int) -> list[Reading]:
        """The k best concepts of each example with their similarities."""
        rows = zip(self.names, self.similarities.tolist(), strict=True)
        return [list(zip(names[:k], values[:k], strict=True)) for names, values in rows]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.names)

    @overload
    def __getitem__(self, row: int) -> Reading: ...
    @overload
    def __getitem__(self, row: slice) -> list[Reading]: ...
    def __getitem__(self, row: int | slice) -> Reading | list[Reading]:
        """One example's concepts with their similarities."""
        return self.top(self.similarities.shape[1])[row]

    def __iter__(self) -> Iterator[Reading]:
        """One example after the other."""
        return iter(self.top(self.similarities.shape[1]))

    def __repr__(self) -> str:
        """What it holds, in one line."""
        claimed = len(self) - int(self.abstained.sum())
        return (
            f"Decodings({counted(len(self), 'example')}, {claimed} claimed, threshold {self.threshold:.3f})"
        )


def decode(
    codebook: Codebook,
    vectors: Float[Tensor, "example width"],
    *,
    role: str = "",
    k: int = 5,
    candidates: Candidates | None = None,
    threshold: float = float("-inf"),
) -> Decodings:
    """Rank the concepts against predicted hypervectors.

    Args:
        codebook: the concepts.
        vectors: real-valued predictions, or hypervectors.
        role: taken out of the predictions first; ``""`` for bare concepts.
        k: how many concepts to give.
        candidates: names to rank among, where the prompt allows only some.
        threshold: of the abstention.

    Raises:
        CodebookError: vectors of another length, or unknown candidates.
    """
    wanted = vectors.to(codebook.vectors.device, torch.float32)
    if role:
        wanted = codebook.algebra.unbind_real(wanted, codebook.role(role))
    ranking = codebook.top(wanted, k, candidates=candidates)
    return Decodings(
        ranking.names, ranking.similarities, ranking.index, threshold, wanted, codebook, candidates
    )


def null_threshold(
    codebook: Codebook, vectors: Float[Tensor, "example width"], *, role: str = "", level: float = 0.05
) -> float:
    """The similarity that the best concept of only a share ``level`` of null predictions passes.

    Args:
        codebook: the concepts.
        vectors: predictions for inputs that hold no concept.
        role: taken out first.
        level: share of nulls that are claimed all the same.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} asked; give a share of false claims between 0 and 1, such as 0.05.")
    best = decode(codebook, vectors, role=role, k=1).similarities[:, 0]
    return float(torch.quantile(best.double(), 1 - level))
