"""The four architectures, and the table of them: a new one is one class and one row here."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from probes.vsa.algebra import TIES, Algebra, Ties, check_ties, random_signs, unit

__all__ = ["ALGEBRAS", "BSC", "FHRR", "HRR", "MAP"]


@final
@dataclass(frozen=True)
class MAP(Algebra):
    """Multiply, add, permute: entries -1 and +1 (also 0 or real numbers, after a bundle that keeps them).

    Binding is the product, its own inverse: ``unbind`` equals ``bind``. Source: Gayler 1998, "Multiplicative
    binding, representation operators and analogy".
    """

    name: ClassVar[str] = "MAP"
    dtype: ClassVar[torch.dtype] = torch.float32

    def _draw(self, n: int, generator: torch.Generator) -> Shaped[Tensor, "vector dim"]:
        bits = self._bits(n, generator)
        return bits * 2 - 1

    def bind(self, a: Shaped[Tensor, ...], b: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Multiply, coordinate by coordinate."""
        return a * b

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
        """Convert to floating-point numbers."""
        return vectors if vectors.is_floating_point() else vectors.to(self.dtype)

    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Multiply by the key."""
        return vectors * key.to(vectors)


@final
@dataclass(frozen=True)
class BSC(Algebra):
    """Binary spatter code: vectors of bits (``torch.bool``).

    Binding is exclusive or, its own inverse. Source: Kanerva 1996, "Binary spatter-coding of ordered
    K-tuples".
    """

    name: ClassVar[str] = "BSC"
    dtype: ClassVar[torch.dtype] = torch.bool

    def _draw(self, n: int, generator: torch.Generator) -> Shaped[Tensor, "vector dim"]:
        return self._bits(n, generator)

    def identity(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, " dim"]:
        """Make a vector of zero bits."""
        return torch.zeros(self.dimension, device=device, dtype=dtype or self.dtype)

    def bind(self, a: Shaped[Tensor, ...], b: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Take the exclusive or, bit by bit."""
        return a ^ b

    def bundle(
        self,
        vectors: Shaped[Tensor, "*batch item dim"],
        *,
        ties: Ties = "random",
        generator: torch.Generator | None = None,
    ) -> Shaped[Tensor, "*batch dim"]:
        """Take the majority of each bit; bits hold neither a third value nor a sum."""
        check_ties(ties, ("random", "negative"), self.name)
        votes = (2 * vectors.to(torch.int64) - 1).sum(dim=-2)
        found = votes > 0
        if ties == "random" and vectors.shape[-2] % 2 == 0:
            found = torch.where(votes == 0, random_signs(votes.to(torch.float32), generator) > 0, found)
        return found.to(vectors.dtype)

    def as_real(self, vectors: Shaped[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Take +1 for a zero bit and -1 for a one, so that exclusive or is a product."""
        return 1 - 2 * vectors.to(torch.float32)

    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Multiply by the signs of the key."""
        return vectors * self.as_real(key).to(vectors)


@final
@dataclass(frozen=True)
class HRR(Algebra):
    """Holographic reduced representations: real vectors of length 1.

    Binding is circular convolution. The inverse is the involution ``a[-i]``, which undoes it up to noise, and
    stays well behaved where an exact inverse would divide by almost nothing. Source: Plate 1995, "Holographic
    reduced representations".
    """

    name: ClassVar[str] = "HRR"
    dtype: ClassVar[torch.dtype] = torch.float32

    def _draw(self, n: int, generator: torch.Generator) -> Shaped[Tensor, "vector dim"]:
        drawn = torch.randn(
            (n, self.dimension), generator=generator, device=generator.device, dtype=torch.float32
        )
        return unit(drawn)

    def identity(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, " dim"]:
        """Make 1 followed by zeros."""
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
        """The vectors themselves."""
        return vectors

    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Convolve with the involution of the key."""
        return self.unbind(vectors, key.to(vectors))


@final
@dataclass(frozen=True)
class FHRR(Algebra):
    """Holographic reduced representations in the frequency domain: complex numbers of modulus 1.

    Binding multiplies, the inverse is the conjugate, exactly. Source: Plate 1994, "Distributed
    representations and nested compositional structure".
    """

    name: ClassVar[str] = "FHRR"
    dtype: ClassVar[torch.dtype] = torch.complex64

    def _draw(self, n: int, generator: torch.Generator) -> Shaped[Tensor, "vector dim"]:
        turns = torch.rand(
            (n, self.dimension), generator=generator, device=generator.device, dtype=torch.float32
        )
        return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)

    def bind(self, a: Shaped[Tensor, ...], b: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Multiply, coordinate by coordinate."""
        return a * b

    def inverse(self, a: Shaped[Tensor, "... dim"]) -> Shaped[Tensor, "... dim"]:
        """Take the complex conjugate."""
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
        """Take the real parts followed by the imaginary parts."""
        return torch.cat([vectors.real, vectors.imag], dim=-1)

    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Turn every phase back by the key's."""
        real, imaginary = vectors.chunk(2, dim=-1)
        return self.as_real(self.unbind(torch.complex(real, imaginary), key.to(vectors.device)))

    @property
    def width(self) -> int:
        """Twice the dimension: a real and an imaginary part for each coordinate."""
        return 2 * self.dimension


ALGEBRAS: dict[str, type[Algebra]] = {"MAP": MAP, "BSC": BSC, "HRR": HRR, "FHRR": FHRR}
