"""Directions from what differs between clean and corrupt prompts: guesses, which a search must test."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, SiteError, counted
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.subspaces import Subspace
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["mean_difference", "mediator_at", "pca", "principal", "values_at"]


def mean_difference(model: Model, pairs: PairSet, site: str | Site, *, position: int = -1) -> Subspace:
    """The direction from the mean of the corrupt prompts to that of the clean ones.

    Also called difference in means (Marks and Tegmark 2023, arXiv 2310.06824). It is the direction of a
    concept only where clean prompts have it and corrupt ones have not; with pairs in both orders it is noise.

    Args:
        model: whose values.
        pairs: clean and corrupt prompts.
        site: a site, or one head, such as ``resid_post.5`` or ``head.5.3`` (in the coordinates of its ``z``).
        position: of the token, negative from the end.

    Raises:
        SiteError: the model has no such site, or it is several.
        DataError: the means are the same.
    """
    mediator = mediator_at(model, pairs, site, position)
    clean, corrupt = (values_at(model, tokens, mediator) for tokens in (pairs.clean, pairs.corrupt))
    return Subspace.of((clean - corrupt).mean(dim=0), "mean-difference")


def pca(
    model: Model,
    pairs: PairSet,
    site: str | Site,
    *,
    position: int = -1,
    dim: int = 1,
    of: str = "differences",
) -> Subspace:
    """The principal directions of the differences between clean and corrupt, or of the values.

    Args:
        model: whose values.
        pairs: clean and corrupt prompts.
        site: as for :func:`mean_difference`.
        position: of the token, negative from the end.
        dim: how many directions.
        of: ``"differences"``, not centred, because their sign is arbitrary; or ``"activations"`` of both
            prompts, centred.

    Raises:
        ConfigError: another ``of``, or more directions than the values span.
        SiteError: as for :func:`mean_difference`.
    """
    if of not in ("differences", "activations"):
        raise ConfigError(f"of={of!r} asked; use 'differences' or 'activations'.")
    mediator = mediator_at(model, pairs, site, position)
    clean, corrupt = (values_at(model, tokens, mediator) for tokens in (pairs.clean, pairs.corrupt))
    both = torch.cat([clean, corrupt])
    return principal(clean - corrupt if of == "differences" else both - both.mean(dim=0), dim, "pca")


def principal(values: Float[Tensor, "example width"], dim: int, name: str) -> Subspace:
    """The directions of largest sum of squares.

    Raises:
        ConfigError: ``dim`` is not between 1 and the number of dimensions that the values span.
    """
    _, sizes, directions = torch.linalg.svd(values.double(), full_matrices=False)
    rank = int((sizes > 1e-6 * max(float(sizes[0]), 1e-30)).sum())
    if not 1 <= dim <= rank:
        raise ConfigError(
            f"dim={dim} asked, but the values span {rank} dimensions; give more pairs, or less."
        )
    return Subspace.of(directions[:dim].float(), name)


def mediator_at(model: Model, pairs: PairSet, site: str | Site, position: int) -> Mediator:
    """The one mediator that a site and a position name.

    Raises:
        SiteError: several sites, or one that has no width of its own (a neuron).
    """
    found = mediators_of(model, pairs, site, positions=position)
    wide = [m for m in found if not (m.units or m.with_values or _needs_index(m.site))]
    if len(found) != 1 or not wide:
        raise SiteError(
            f"{str(site)!r} names {counted(len(found), 'mediator')}; a subspace needs one site with a "
            "width, such as "
            "resid_post.5, mlp_out.5 or head.5.3."
        )
    return found[0]


def _needs_index(site: Site) -> bool:
    """Whether a site is a number, or several vectors side by side."""
    return site.kind == "neuron" or (site.kind in ("q", "k", "v", "z") and site.index is None)


def values_at(model: Model, tokens: Tokens, mediator: Mediator) -> Float[Tensor, "example width"]:
    """A mediator's values at its position (the last without one), in float32 on the CPU."""
    (place,) = mediator.places
    position = -1 if mediator.position is None else mediator.position
    read = model.capture(tokens, str(place.carrier), position, device="cpu", dtype=torch.float32)
    values = read[str(place.carrier)]
    return values if place.index is None else values[:, place.index]
