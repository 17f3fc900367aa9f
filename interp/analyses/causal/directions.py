"""The directions that a linear probe reads, in the raw activation space, and random ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError, counted
from interp.mediation.subspaces import Subspace
from probes.base import Probe
from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.editing import NotLinearError, score_map
from probes.linear import LinearProbe
from probes.table import PROBES

__all__ = [
    "Directions",
    "Pairwise",
    "Spanned",
    "check_directions",
    "coefficients_of",
    "directions_of",
    "drawn",
    "towards",
]

MOST = 0.5
"""A span of more than this share of the dimensions is no longer told from a random one."""


@dataclass(frozen=True, eq=False)
class Spanned:
    """One subspace for all prompts.

    Attributes:
        basis: ``[dim d_model]``, orthonormal rows.
        words: what it is, for tables.
    """

    basis: Float[Tensor, "dim d_model"]
    words: str = "a random subspace"

    @property
    def rank(self) -> int:
        """The number of directions."""
        return len(self.basis)

    @property
    def named(self) -> str:
        """Name them in a sentence."""
        return "this direction" if self.rank == 1 else f"these {self.rank} directions"

    def along(self, shift: Float[Tensor, "example d_model"]) -> Float[Tensor, "example d_model"]:
        """Project onto the subspace."""
        return shift @ self.basis.T @ self.basis


@dataclass(frozen=True, eq=False)
class Pairwise:
    """One direction per prompt.

    Attributes:
        units: ``[example d_model]``, of length 1 (or 0 where there is none).
        words: what they are, for tables.
        named: what they are, in a sentence.
        rank: how many there are in each prompt.
    """

    units: Float[Tensor, "example d_model"]
    words: str
    named: str = "these directions (one for each prompt)"
    rank: int = 1

    def along(self, shift: Float[Tensor, "example d_model"]) -> Float[Tensor, "example d_model"]:
        """Project each row onto its own direction."""
        return (shift * self.units).sum(dim=1, keepdim=True) * self.units


Directions = Spanned | Pairwise
"""Both move states along some directions only, by ``along``."""


def check_directions(kind: str) -> None:
    """Refuse a kind of probe that does not score labels by a linear function of the state.

    Args:
        kind: a key of ``PROBES``.

    Raises:
        ConfigError: says which kinds do.
    """
    if kind not in linear_kinds():
        raise _not_linear(kind)


def linear_kinds() -> list[str]:
    """The kinds of probe that have directions."""
    kinds: list[Any] = [(name, row.load()) for name, row in PROBES.items()]
    return [name for name, kind in kinds if issubclass(kind, LinearProbe | HyperdimensionalProbe)]


def _not_linear(kind: str) -> ConfigError:
    return ConfigError(
        f"a causal test of a {kind} probe asked, which does not score labels by a linear function of the "
        f"state, so that it has no directions to change; those that have: {', '.join(linear_kinds())}."
    )


def coefficients_of(probe: Probe, names: Sequence[str]) -> Float[Tensor, "label d_model"]:
    """The direction along which the score of each label grows, in the units of the raw activations.

    A Hyperdimensional Probe ranks concepts by the product of the predicted hypervector with each concept's,
    and its linear encoder predicts by a matrix, so that the product is linear in the state too.

    Args:
        probe: a fitted one.
        names: labels or concepts that it knows.

    Raises:
        ConfigError: its scores are not linear in the state.
    """
    if isinstance(probe, LinearProbe):
        rows = {str(name): at for at, name in enumerate(probe.classes_.tolist())}
        return torch.as_tensor(probe.coef_[[rows[name] for name in names]], dtype=torch.float64)
    if isinstance(probe, HyperdimensionalProbe):
        try:
            return score_map(probe.fitted_, probe.codebook_, names, probe.fitted_.roles[0]).rows
        except NotLinearError:
            raise _not_linear(f"{probe.kind} ({probe.encoder})") from None
    raise _not_linear(probe.kind)


def directions_of(
    coefficients: Float[Tensor, "label d_model"],
    labels: Int[Tensor, " example"],
    others: Int[Tensor, " example"],
) -> Directions:
    """Span what the probe tells all labels apart by; with many labels, each prompt's label from one other.

    Args:
        coefficients: one row per label.
        labels: row of each prompt's label.
        others: row of the other label that it is compared with.
    """
    n, width = coefficients.shape
    if n - 1 <= MOST * width:
        basis = Subspace.from_coefficients(coefficients, "probe").basis
        many = f"the {len(basis)} directions" if len(basis) > 1 else "the direction"
        return Spanned(basis, f"{many} along which the probe tells its {counted(n, 'label')} apart")
    return Pairwise(
        towards(coefficients, labels, others),
        "for each prompt, the direction along which the probe tells its concept from another one",
    )


def towards(
    coefficients: Float[Tensor, "label d_model"],
    labels: Int[Tensor, " example"],
    others: Int[Tensor, " example"],
) -> Float[Tensor, "example d_model"]:
    """The unit vector along which the other label's score grows over that of the prompt's own."""
    rows = coefficients[others] - coefficients[labels]
    return (rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)).float()


def drawn(n: int, rank: int, width: int, *, seed: int) -> list[Spanned]:
    """Draw random subspaces, each direction equally likely."""
    generator = torch.Generator().manual_seed(seed)
    tables = (torch.randn(width, rank, generator=generator, dtype=torch.float64) for _ in range(n))
    return [Spanned(torch.linalg.qr(table)[0].T.float().contiguous()) for table in tables]
