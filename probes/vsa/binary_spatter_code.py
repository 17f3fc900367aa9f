"""BSC: bits; binding is exclusive or, bundling the majority (Kanerva 1996)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probes.vsa.algebra import Algebra, Ties, check_ties, random_signs

__all__ = ["BSC"]


@final
@dataclass(frozen=True)
class BSC(Algebra):
    """Binary spatter code: vectors of bits (``torch.bool``).

    Binding is exclusive or, its own inverse. Source: Kanerva 1996, "Binary spatter-coding of ordered
    K-tuples".

    Args:
        dimension: length of a hypervector.
    """

    name: ClassVar[str] = "BSC"
    dtype: ClassVar[torch.dtype] = torch.bool

    def random(
        self,
        n: int,
        *,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Shaped[Tensor, "vector dim"]:
        """Draw ``n`` vectors of fair bits."""
        bits = torch.randint(0, 2, (n, self.dimension), generator=generator, device=generator.device)
        return bits.to(device, dtype or self.dtype)

    def identity(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, " dim"]:
        """Give a vector of zero bits."""
        return torch.zeros(self.dimension, device=device, dtype=dtype or self.dtype)

    def bind(self, a: Shaped[Tensor, ...], b: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Give the exclusive or, bit by bit."""
        return a ^ b

    def inverse(self, a: Shaped[Tensor, "... dim"]) -> Shaped[Tensor, "... dim"]:
        """Give the vector itself."""
        return a

    def bundle(
        self,
        vectors: Shaped[Tensor, "*batch item dim"],
        *,
        ties: Ties = "random",
        generator: torch.Generator | None = None,
    ) -> Shaped[Tensor, "*batch dim"]:
        """Give the majority of each bit; bits hold neither a third value nor a sum."""
        check_ties(ties, ("random", "negative"), self.name)
        votes = (2 * vectors.to(torch.int64) - 1).sum(dim=-2)
        found = votes > 0
        if ties == "random" and vectors.shape[-2] % 2 == 0:
            found = torch.where(votes == 0, random_signs(votes.to(torch.float32), generator) > 0, found)
        return found.to(vectors.dtype)

    def as_real(self, vectors: Shaped[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Give +1 for a zero bit and -1 for a one, so that exclusive or is a product."""
        return 1 - 2 * vectors.to(torch.float32)

    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Multiply by the signs of the key."""
        return vectors * self.as_real(key).to(vectors)
