"""MAP: bipolar vectors; binding multiplies, bundling adds and rounds (Gayler 1998)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probes.vsa.algebra import TIES, Algebra, Ties, check_ties, random_signs

__all__ = ["MAP"]


@final
@dataclass(frozen=True)
class MAP(Algebra):
    """Multiply, add, permute: entries -1 and +1 (also 0 or real numbers, after a bundle that keeps them).

    Binding is the product, its own inverse: ``unbind`` equals ``bind``. Source: Gayler 1998, "Multiplicative
    binding, representation operators and analogy".

    Args:
        dimension: length of a hypervector.
    """

    name: ClassVar[str] = "MAP"
    dtype: ClassVar[torch.dtype] = torch.float32

    def random(
        self,
        n: int,
        *,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Shaped[Tensor, "vector dim"]:
        """Draw ``n`` vectors of -1 and +1, each with probability one half."""
        bits = torch.randint(0, 2, (n, self.dimension), generator=generator, device=generator.device)
        return (bits * 2 - 1).to(device, dtype or self.dtype)

    def identity(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, " dim"]:
        """Give a vector of ones."""
        return torch.ones(self.dimension, device=device, dtype=dtype or self.dtype)

    def bind(self, a: Shaped[Tensor, ...], b: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Multiply, coordinate by coordinate."""
        return a * b

    def inverse(self, a: Shaped[Tensor, "... dim"]) -> Shaped[Tensor, "... dim"]:
        """Give the vector itself: its square is the identity."""
        return a

    def bundle(
        self,
        vectors: Shaped[Tensor, "*batch item dim"],
        *,
        ties: Ties = "random",
        generator: torch.Generator | None = None,
    ) -> Shaped[Tensor, "*batch dim"]:
        """Add, and round to -1 or +1; see :meth:`Algebra.bundle` for ties."""
        check_ties(ties, TIES, self.name)
        total = vectors.sum(dim=-2)
        if ties == "real":
            return total
        signs = torch.sign(total)
        if ties == "ternary":
            return signs
        if ties == "negative":
            return torch.where(signs == 0, -1, signs).to(vectors.dtype)
        tied = signs == 0
        return torch.where(tied, random_signs(signs, generator), signs) if bool(tied.any()) else signs

    def as_real(self, vectors: Shaped[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Give the vectors as floating-point numbers."""
        return vectors if vectors.is_floating_point() else vectors.to(self.dtype)

    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Multiply by the key."""
        return vectors * key.to(vectors)
