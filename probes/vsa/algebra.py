"""What a vector symbolic architecture can do, and the laws it keeps."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

__all__ = ["TIES", "Algebra", "Ties", "check_ties", "generator_for", "random_signs", "unit"]

Ties = Literal["random", "ternary", "negative", "real"]
"""What a bundle puts where its parts cancel: see :meth:`Algebra.bundle`."""

TIES: tuple[str, ...] = get_args(Ties)


@dataclass(frozen=True)
class Algebra(ABC):
    """Compute with hypervectors: random vectors so long that any two are nearly orthogonal.

    With ``a, b, c`` drawn by :meth:`random` and ``D`` the dimension, every algebra keeps these laws (those
    marked ~ hold up to noise of order ``1/sqrt(D)`` in HRR, exactly elsewhere):

    - ``similarity(a, a) = 1``, and between independent vectors about ``0 +- 1/sqrt(D)``;
    - ``bind(a, b) = bind(b, a)``, ``bind(a, bind(b, c)) = bind(bind(a, b), c)``, ``bind(a, identity) = a``;
    - ``unbind(bind(a, b), b) ~ a`` and ``unbind(a, b) = bind(a, inverse(b))``;
    - ``similarity(bind(a, c), bind(b, c)) ~ similarity(a, b)``, while ``bind(a, b)`` resembles neither part;
    - ``bind(a, bundle(b, c)) ~ bundle(bind(a, b), bind(a, c))``: in MAP and BSC exactly where nothing ties;
    - ``bundle(a, b)`` resembles ``a`` and ``b``, and no other vector;
    - ``permute(permute(a, k), -k) = a``, and ``permute(a)`` does not resemble ``a``.

    Source: Kanerva 2009, "Hyperdimensional Computing"; Schlegel, Neubert and Protzel 2022, "A comparison of
    vector symbolic architectures". Each subclass cites its own.

    Raises:
        ValueError: the dimension is below 2, or no whole number.
    """

    dimension: int
    name: ClassVar[str]
    dtype: ClassVar[torch.dtype]

    def __post_init__(self) -> None:
        given: Any = self.dimension
        if isinstance(given, bool) or not isinstance(given, int) or given < 2:
            raise ValueError(
                f"dimension {self.dimension!r} asked; a hypervector needs a whole number, at least 2."
            )

    def random(
        self,
        n: int,
        *,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Shaped[Tensor, "vector dim"]:
        """Draw ``n`` independent hypervectors; drawn on the generator's device, then moved."""
        return self._draw(n, generator).to(device, dtype or self.dtype)

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator) -> Shaped[Tensor, "vector dim"]: ...

    def _bits(self, n: int, generator: torch.Generator) -> Shaped[Tensor, "vector dim"]:
        size, device = (n, self.dimension), generator.device
        return torch.randint(0, 2, size, generator=generator, device=device, dtype=torch.int8)

    def identity(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, " dim"]:
        """Make the vector that binding leaves everything unchanged with: ones, where binding multiplies."""
        return torch.ones(self.dimension, device=device, dtype=dtype or self.dtype)

    @abstractmethod
    def bind(self, a: Shaped[Tensor, ...], b: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Join two hypervectors into one that resembles neither; leading axes broadcast."""

    def inverse(self, a: Shaped[Tensor, "... dim"]) -> Shaped[Tensor, "... dim"]:
        """Compute what undoes binding with ``a``: the vector itself, where that is its own inverse."""
        return a

    def unbind(self, bound: Shaped[Tensor, ...], key: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """Take a key out of a bound vector: ``unbind(bind(a, key), key)`` is ``a``."""
        return self.bind(bound, self.inverse(key))

    @abstractmethod
    def bundle(
        self,
        vectors: Shaped[Tensor, "*batch item dim"],
        *,
        ties: Ties = "random",
        generator: torch.Generator | None = None,
    ) -> Shaped[Tensor, "*batch dim"]:
        """Superpose hypervectors (axis -2) into one that resembles each.

        Args:
            vectors: the items; their order does not matter.
            ties: what stands where the items cancel. ``random``: drawn by ``generator``, so that the bundle
                is unbiased; ``ternary``: 0; ``negative``: -1 (0 in BSC), the rule of the published probe,
                which makes any two bundles of two resemble each other; ``real``: the plain sum, unrounded.
                Algebras without rounding (HRR, FHRR) have no ties: all but ``real`` give the normalised sum.
            generator: for ``random``, where something can tie.

        Raises:
            ValueError: an unknown rule, one that the algebra cannot hold, or no generator for ``random``.
        """

    def permute(self, a: Shaped[Tensor, "... dim"], shifts: int = 1) -> Shaped[Tensor, "... dim"]:
        """Rotate the coordinates: ``permute(permute(a, k), -k)`` is ``a``."""
        return torch.roll(a, shifts, dims=-1)

    @abstractmethod
    def as_real(self, vectors: Shaped[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Convert to real numbers whose cosine is the algebra's similarity: what an encoder predicts."""

    @abstractmethod
    def unbind_real(
        self, vectors: Float[Tensor, "*batch width"], key: Shaped[Tensor, " dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Take a key out of real-valued predictions, without rounding them first."""

    @property
    def width(self) -> int:
        """The length of :meth:`as_real`."""
        return self.dimension

    def similarity(
        self, queries: Shaped[Tensor, "query dim"], items: Shaped[Tensor, "item dim"]
    ) -> Float[Tensor, "query item"]:
        """Compare each query with each item: 1 for equal, about 0 for independent ones.

        The cosine; in BSC one minus twice the share of differing bits, in FHRR the cosine of the real parts.
        A vector of zeros resembles nothing: 0.
        """
        a, b = self.as_real(queries), self.as_real(items)
        return unit(a) @ unit(b).T

    def __str__(self) -> str:
        """Write the call that makes it."""
        return f"{self.name}({self.dimension})"


def unit(vectors: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    """Scale to length 1; zeros stay zeros."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norms.clamp_min(torch.finfo(vectors.dtype).tiny)


def check_ties(ties: str, allowed: tuple[str, ...], name: str) -> None:
    """Raise ValueError for a rule that is unknown or that the algebra cannot hold."""
    if ties not in allowed:
        raise ValueError(f"ties={ties!r} asked; {name} knows: {', '.join(allowed)}.")


def random_signs(like: Float[Tensor, ...], generator: torch.Generator | None) -> Float[Tensor, ...]:
    """Draw +1 or -1 for every coordinate.

    Raises:
        ValueError: there is no generator to draw from.
    """
    if generator is None:
        raise ValueError(
            "ties='random' asked without a generator; give generator=torch.Generator().manual_seed(0), "
            "or another rule such as ties='ternary'."
        )
    bits = torch.randint(0, 2, tuple(like.shape), generator=generator, device=generator.device)
    return (bits * 2 - 1).to(like.device, like.dtype)


def generator_for(*parts: str | int) -> torch.Generator:
    """Make a CPU generator seeded by a hash of the parts: the same on every machine and in every process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
