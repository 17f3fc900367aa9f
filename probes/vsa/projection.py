"""Embeddings through a seeded random projection into hypervectors."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probes.vsa.algebra import Algebra, unit
from probes.vsa.errors import CodebookError
from probes.vsa.seeds import generator_for

__all__ = ["Projection"]


@dataclass(frozen=True, eq=False)
class Projection:
    """Hold what turns an embedding into a hypervector: the centre and the seed of the random matrix.

    Attributes:
        centre: ``[d_model]``, subtracted from every embedding.
        seed: of the random matrix, whose entries are normal.
    """

    centre: Float[Tensor, " d_model"]
    seed: int

    def __call__(
        self, algebra: Algebra, names: Sequence[str], rows: Float[Tensor, "concept d_model"]
    ) -> Shaped[Tensor, "concept dim"]:
        """Give the hypervector of each embedding.

        Raises:
            CodebookError: not one row per name, another width, rows that are not finite, equal to the
            centre, or
                alike.
        """
        centred = self._centred(names, rows.detach().cpu().float())
        generator = generator_for(self.seed, "projection", algebra.name, algebra.dimension, centred.shape[1])
        matrix = torch.randn((centred.shape[1], algebra.width), generator=generator)
        return _TO_VECTORS[algebra.name](unit(centred) @ matrix)

    def _centred(
        self, names: Sequence[str], rows: Float[Tensor, "concept d_model"]
    ) -> Float[Tensor, "concept d_model"]:
        if len(rows) != len(names) or rows.shape[1] != len(self.centre):
            raise CodebookError(
                f"rows of shape {tuple(rows.shape)} for {len(names)} names and a centre of "
                f"{len(self.centre)}; "
                "give one embedding per name, all of the model's width."
            )
        wrong = (~torch.isfinite(rows)).any(dim=1).nonzero().flatten().tolist()
        if wrong:
            raise CodebookError(
                f"the embedding of {names[wrong[0]]!r} is not finite; load the model in float32."
            )
        centred = rows - self.centre.cpu()
        lengths = torch.linalg.vector_norm(centred, dim=1)
        empty = (lengths <= 1e-6 * lengths.max().clamp_min(1e-30)).nonzero().flatten().tolist()
        if empty:
            raise CodebookError(
                f"the embedding of {names[empty[0]]!r} equals the centre, so that it has no direction; "
                "leave the concept out, or give another centre."
            )
        _refuse_twins(names, centred)
        return centred


def _refuse_twins(names: Sequence[str], rows: Float[Tensor, "concept d_model"]) -> None:
    seen: dict[bytes, str] = {}
    for name, row in zip(names, rows.numpy(), strict=True):
        twin = seen.setdefault(row.tobytes(), name)
        if twin != name:
            raise CodebookError(
                f"{twin!r} and {name!r} have the same embedding, so that nothing can tell them apart; keep "
                f"one."
            )


def _signs(projected: Float[Tensor, "concept dim"]) -> Float[Tensor, "concept dim"]:
    return torch.where(projected < 0, -1.0, 1.0)


def _phases(projected: Float[Tensor, "concept width"]) -> Shaped[Tensor, "concept dim"]:
    real, imaginary = projected.chunk(2, dim=1)
    angle = torch.atan2(imaginary, real)
    return torch.polar(torch.ones_like(angle), angle)


_TO_VECTORS = {"MAP": _signs, "BSC": lambda projected: projected < 0, "HRR": unit, "FHRR": _phases}
