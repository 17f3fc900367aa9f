"""Products taken apart: which concept of each codebook was bound into one vector."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Shaped
from torch import Tensor

from probes.vsa.algebra import Algebra, generator_for
from probes.vsa.codebook import Codebook, CodebookError

__all__ = ["Factors", "factorise"]

KNOWN = ("MAP", "FHRR")
RESTARTS = 10
STEPS = 200
ALIKE = 2
"""Updates that change no name, after which the estimates count as settled."""


@dataclass(frozen=True)
class Factors:
    """What a product was taken apart into.

    Attributes:
        names: the concept of each codebook, in the codebooks' order; empty where no product of them resembles
            what was given.
        similarity: of the product of the best concepts with what was given, from -1 to 1. In MAP it may be
            negative: the product is then minus that of the concepts.
        threshold: what the absolute similarity has to pass: the best of all products of the codebooks passes
            it with a chance of 1% where the vector has nothing to do with them.
        steps: how many updates were made, over all starts.
    """

    names: tuple[str, ...]
    similarity: float
    threshold: float
    steps: int

    @property
    def found(self) -> bool:
        """Whether the vector is a product of these codebooks."""
        return bool(self.names)


def factorise(
    codebooks: Sequence[Codebook],
    product: Shaped[Tensor, " dim"],
    *,
    steps: int = STEPS,
    restarts: int = RESTARTS,
    level: float = 0.01,
    seed: int = 0,
) -> Factors:
    """Find the concepts, one of each codebook, whose product a vector is: a resonator network.

    There are as many products as the codebooks' sizes multiplied; none of them is formed. Each factor is
    estimated in turn: the others' estimates are taken out of the product, what is left is compared with the
    codebook, and the sum of the concepts, weighted by their similarity, rounded, is the new estimate. It
    starts from a random weighting of all concepts, and anew where it settles on no product. In MAP a product
    does not change when two factors change their sign, so that concepts are named by the size of their
    similarity; whether the named concepts' product is the vector or minus the vector is checked at the end.

    Source: Frady, Kent, Olshausen and Sommer 2020, "Resonator networks, 1".

    Args:
        codebooks: two or more, of one algebra: MAP or FHRR.
        product: a product, with or without noise (such as other terms of a bundle).
        steps: updates of all factors for each start, at most.
        restarts: starts, at most.
        level: chance that a vector that is no product of the codebooks counts as one.
        seed: of the restarts.

    Raises:
        CodebookError: fewer than two codebooks, of different algebras, or of one where this does not work;
            or a vector of another length or with values that are not finite; no step or start, or a level
            that is no chance.
    """
    algebra = _algebra(codebooks, product)
    if steps < 1 or restarts < 1 or not 0 < level < 1:
        raise CodebookError(
            f"{steps} steps, {restarts} restarts and level {level} asked; give at least 1 of each, and a "
            "level between 0 and 1."
        )
    matrices = [book.vectors.to(product.device) for book in codebooks]
    threshold = _threshold(codebooks, algebra, level)
    best, rows, made = 0.0, [0] * len(matrices), 0
    for start in range(restarts):
        found, more = _settled(algebra, matrices, product, steps, generator_for(seed, "resonator", start))
        made += more
        named = torch.stack([matrix[row] for matrix, row in zip(matrices, found, strict=True)])
        similarity = float(algebra.similarity(_product(algebra, list(named))[None], product[None]))
        if abs(similarity) > abs(best):
            best, rows = similarity, found
        if abs(best) > threshold:
            break
    names = tuple(book.names[row] for book, row in zip(codebooks, rows, strict=True))
    return Factors(names if abs(best) > threshold else (), best, threshold, made)


def _algebra(codebooks: Sequence[Codebook], product: Tensor) -> Algebra:
    known = {str(book.algebra): book.algebra for book in codebooks}
    if len(codebooks) < 2 or len(known) > 1:
        raise CodebookError(
            f"{len(codebooks)} codebooks of {', '.join(known) or 'no algebra'} given; a product is taken "
            "apart by two or more of one algebra and dimension."
        )
    algebra = codebooks[0].algebra
    if algebra.name not in KNOWN:
        raise CodebookError(
            f"{algebra} given; products are taken apart in {' and '.join(KNOWN)}: make the codebooks in one "
            "of them."
        )
    if len(product) != algebra.dimension:
        raise CodebookError(f"a vector of length {len(product)} given to codebooks of {algebra}.")
    if not bool(torch.isfinite(product).all()):
        raise CodebookError("a vector with values that are not finite was given; nothing can be taken apart.")
    return algebra


def _threshold(codebooks: Sequence[Codebook], algebra: Algebra, level: float) -> float:
    """The similarity in size that the best of all products passes by luck with a chance of ``level``.

    The similarity of independent vectors is normal, of variance one over the real numbers in a vector; the
    chances of all products are added up (Bonferroni).
    """
    products = math.prod(len(book) for book in codebooks)
    return -NormalDist().inv_cdf(level / (2 * products)) / math.sqrt(algebra.width)


def _settled(
    algebra: Algebra, matrices: list[Tensor], product: Tensor, steps: int, generator: torch.Generator
) -> tuple[list[int], int]:
    """The rows that the estimates settle on, and the updates that it took."""
    estimates = [_start(algebra, matrix, generator) for matrix in matrices]
    named: list[int] = []
    alike = 0
    for step in range(steps):
        before, named = named, []
        for at, matrix in enumerate(matrices):
            others = _product(algebra, estimates[:at] + estimates[at + 1 :])
            left = algebra.unbind(product, others)
            weights = (matrix.conj() @ left.to(matrix)).real
            estimates[at] = _phases(weights.to(matrix) @ matrix)
            named.append(int(weights.abs().argmax()))
        alike = alike + 1 if named == before else 0
        if alike == ALIKE:
            return named, step + 1
    return named, steps


def _start(algebra: Algebra, matrix: Tensor, generator: torch.Generator) -> Tensor:
    """A random weighting of all concepts, rounded."""
    weights = torch.rand(len(matrix), generator=generator, dtype=torch.float32).to(matrix)
    return _phases(weights @ matrix)


def _product(algebra: Algebra, vectors: list[Tensor]) -> Tensor:
    found = vectors[0]
    for vector in vectors[1:]:
        found = algebra.bind(found, vector)
    return found


def _phases(vector: Tensor) -> Tensor:
    """Signs of real numbers (0 counts as +1), phases of complex ones."""
    if vector.is_complex():
        return torch.polar(torch.ones_like(vector.real), vector.angle())
    return torch.where(vector < 0, -1.0, 1.0).to(vector)
