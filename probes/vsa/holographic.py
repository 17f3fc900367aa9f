"""HRR: real vectors; binding is circular convolution (Plate 1995)."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probes.vsa.algebra import TIES, Algebra, Ties, check_ties, unit

__all__ = ["HRR"]


@final
@dataclass(frozen=True)
class HRR(Algebra):
    """Holographic reduced representations: real vectors of length 1.

    Binding is circular convolution. The inverse is the involution ``a[-i]``, which undoes it up to noise, and
    stays well behaved where an exact inverse would divide by almost nothing. Source: Plate 1995, "Holographic
    reduced representations".

    Args:
        dimension: length of a hypervector.
    """

    name: ClassVar[str] = "HRR"
    dtype: ClassVar[torch.dtype] = torch.float32

    def random(
        self,
        n: int,
        *,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Shaped[Tensor, "vector dim"]:
        """Draw ``n`` directions uniformly, each of length 1."""
        drawn = torch.randn((n, self.dimension), generator=generator, device=generator.device)
        return unit(drawn).to(device, dtype or self.dtype)

    def identity(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, " dim"]:
        """Give 1 followed by zeros."""
        found = torch.zeros(self.dimension, device=device, dtype=dtype or self.dtype)
        found[0] = 1
        return found

    def bind(self, a: Shaped[Tensor, ...], b: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Convolve, by way of the Fourier transform."""
        product = torch.fft.rfft(a) * torch.fft.rfft(b)
        return torch.fft.irfft(product, n=self.dimension).to(a.dtype)

    def inverse(self, a: Shaped[Tensor, "... dim"]) -> Shaped[Tensor, "... dim"]:
        """Reverse all coordinates but the first."""
        return torch.roll(torch.flip(a, dims=(-1,)), 1, dims=-1)

    def bundle(
        self,
        vectors: Shaped[Tensor, "*batch item dim"],
        *,
        ties: Ties = "random",
        generator: torch.Generator | None = None,
    ) -> Shaped[Tensor, "*batch dim"]:
        """Add, and scale to length 1 (``ties="real"``: add only). Nothing is rounded, so nothing ties."""
        check_ties(ties, TIES, self.name)
        total = vectors.sum(dim=-2)
        return total if ties == "real" else unit(total)

    def as_real(self, vectors: Shaped[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Give the vectors themselves."""
        return vectors

    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Convolve with the involution of the key."""
        return self.unbind(vectors, key.to(vectors))
