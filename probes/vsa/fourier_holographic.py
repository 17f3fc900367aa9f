"""FHRR: complex vectors of phases; binding adds the phases (Plate 1994)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probes.vsa.algebra import TIES, Algebra, Ties, check_ties

__all__ = ["FHRR"]


@final
@dataclass(frozen=True)
class FHRR(Algebra):
    """Holographic reduced representations in the frequency domain: complex numbers of modulus 1.

    Binding multiplies, the inverse is the conjugate, exactly. Source: Plate 1994, "Distributed
    representations
    and nested compositional structure".

    Args:
        dimension: length of a hypervector.
    """

    name: ClassVar[str] = "FHRR"
    dtype: ClassVar[torch.dtype] = torch.complex64

    def random(
        self,
        n: int,
        *,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Shaped[Tensor, "vector dim"]:
        """Draw ``n`` vectors of phases uniform over the circle."""
        turns = torch.rand((n, self.dimension), generator=generator, device=generator.device)
        return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns).to(device, dtype or self.dtype)

    def identity(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, " dim"]:
        """Give a vector of ones."""
        return torch.ones(self.dimension, device=device, dtype=dtype or self.dtype)

    def bind(self, a: Shaped[Tensor, ...], b: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Multiply, coordinate by coordinate."""
        return a * b

    def inverse(self, a: Shaped[Tensor, "... dim"]) -> Shaped[Tensor, "... dim"]:
        """Give the complex conjugate."""
        return torch.conj(a).resolve_conj()

    def bundle(
        self,
        vectors: Shaped[Tensor, "*batch item dim"],
        *,
        ties: Ties = "random",
        generator: torch.Generator | None = None,
    ) -> Shaped[Tensor, "*batch dim"]:
        """Add, and keep the phases only (``ties="real"``: add only)."""
        check_ties(ties, TIES, self.name)
        total = vectors.sum(dim=-2)
        return total if ties == "real" else torch.polar(torch.ones_like(total.real), total.angle())

    def as_real(self, vectors: Shaped[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Give the real parts followed by the imaginary parts."""
        return torch.cat([vectors.real, vectors.imag], dim=-1)

    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Turn every phase back by the key's."""
        real, imaginary = vectors.chunk(2, dim=-1)
        return self.as_real(self.unbind(torch.complex(real, imaginary), key.to(vectors.device)))

    @property
    def width(self) -> int:
        """Give twice the dimension: a real and an imaginary part for each coordinate."""
        return 2 * self.dimension
