"""How many concepts one hypervector holds: reading bundles, measured and by theory."""

# torch's functions are typed in part only: strict without the rules about unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from probes.vsa.algebra import Algebra, Ties, check_ties, generator_for
from probes.vsa.codebook import CodebookError

__all__ = ["Capacity", "expected_accuracy", "measured_accuracy"]

POINTS = 201
RULES: dict[str, tuple[Ties, ...]] = {"MAP": ("real", "random"), "BSC": ("random",), "FHRR": ("real",)}


@dataclass(frozen=True)
class Capacity:
    """How often a filler is read right out of a bundle of role-bound ones.

    Attributes:
        dimension: of the hypervectors.
        items: how many role-bound fillers were bundled.
        concepts: how many a filler is one of.
        right: how many of each bundle were read right; readings of one bundle share its noise.
        expected: the share that theory says.
    """

    dimension: int
    items: int
    concepts: int
    right: tuple[int, ...]
    expected: float

    @property
    def asked(self) -> int:
        """How many were asked for."""
        return self.items * len(self.right)

    @property
    def accuracy(self) -> float:
        """The share read right."""
        return sum(self.right) / self.asked


def expected_accuracy(algebra: Algebra, items: int, concepts: int, *, ties: Ties = "real") -> float:
    """The chance that a filler is the concept nearest to what unbinding its role leaves.

    The similarity of the right concept and of every other is normal, with a mean and a variance that follow
    from the number of items: what is left is the filler plus ``items - 1`` vectors that resemble nothing. The
    filler is read where it exceeds all others, which are independent:
    ``integral of phi(z) Phi((mean + spread z) / other)^(concepts - 1)``.

    A sum rounded to signs resembles each member by ``C(items - 1, floor(items / 2)) / 2^(items - 1)``, the
    chance that the others leave the vote to it.

    Source: Frady, Kleyko and Sommer 2018, "A theory of sequence indexing and working memory in recurrent
    neural networks".

    Args:
        algebra: MAP, BSC or FHRR.
        items: role-bound fillers in the bundle.
        concepts: how many a filler is one of.
        ties: ``real`` for a plain sum; ``random`` for one rounded to signs (MAP and BSC).

    Raises:
        CodebookError: no items, no concepts, or HRR, where unbinding adds noise of its own.
        ValueError: a rule that the theory does not know in this algebra.
    """
    if items < 1 or concepts < 1:
        raise CodebookError(f"{items} items of {concepts} concepts asked; give at least 1 of each.")
    allowed = RULES.get(algebra.name)
    if allowed is None:
        raise CodebookError(
            f"{algebra} given; there is a theory of {', '.join(RULES)}, where a role is undone without noise."
        )
    check_ties(ties, allowed, f"the theory of bundles in {algebra.name}")
    mean, own, other = 1.0, items - 1.0, float(items)
    if ties == "random":
        mean = math.comb(items - 1, items // 2) / 2 ** (items - 1)
        own, other = 1 - mean**2, 1.0
    width = algebra.width
    points, weights = np.polynomial.hermite_e.hermegauss(POINTS)
    above = (mean + points * math.sqrt(own / width)) / math.sqrt(other / width)
    chance = ((concepts - 1) * torch.special.log_ndtr(torch.from_numpy(above))).exp().numpy()
    return float((weights * chance).sum() / math.sqrt(2 * math.pi))


def measured_accuracy(
    algebra: Algebra, items: int, concepts: int, *, ties: Ties = "real", asked: int = 1_000, seed: int = 0
) -> Capacity:
    """Bundle random concepts in random roles, unbind each role, and count the fillers that are read right.

    Args:
        algebra: what is measured.
        items: role-bound fillers in each bundle.
        concepts: how many a filler is one of.
        ties: what the bundle puts where its parts cancel; ``real`` for a plain sum.
        asked: fillers to ask for, at least, over all bundles.
        seed: of the concepts, the roles, the fillers and the ties.

    Raises:
        CodebookError: as :func:`expected_accuracy`.
    """
    expected = expected_accuracy(algebra, items, concepts, ties=ties)
    generator = generator_for(seed, "capacity", str(algebra), items, concepts, ties)
    right: list[int] = []
    for _ in range(-(-asked // items)):
        book = algebra.random(concepts, generator=generator)
        roles = algebra.random(items, generator=generator)
        fillers = torch.randint(concepts, (items,), generator=generator)
        bundle = algebra.bundle(algebra.bind(book[fillers], roles), ties=ties, generator=generator)
        left = algebra.as_real(torch.stack([algebra.unbind(bundle, role) for role in roles]))
        right.append(int(((left @ algebra.as_real(book).T).argmax(dim=1) == fillers).sum()))
    return Capacity(algebra.dimension, items, concepts, tuple(right), expected)
