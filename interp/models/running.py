"""A run of a model: what was asked is checked, planned and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.activations import Activations
from interp.errors import ConfigError, SiteError
from interp.models.anatomy import Anatomy
from interp.models.backend import Backend
from interp.models.batches import plan_batches
from interp.models.execution import execute
from interp.models.gradients import execute_with_gradients
from interp.models.interventions import Intervention, Plan
from interp.models.passes import LOGITS
from interp.models.positions import Positions, choose
from interp.models.tokens import Tokens
from interp.sites import Dimensions, Site, expand

__all__ = ["Run", "chosen_sites", "run"]


@dataclass(frozen=True, eq=False)
class Run:
    """Hold what one run gave.

    Attributes:
        logits: ``[prompt vocab]`` after the last token, ``[prompt pos vocab]`` for all (zeros beyond a
            prompt's end), or None; in the model's own dtype.
        activations: what was captured, or None.
    """

    logits: Tensor | None
    activations: Activations | None


def chosen_sites(
    anatomy: Anatomy, dims: Dimensions, sites: str | Site | Sequence[str | Site], embed_is_token: bool
) -> list[Site]:
    """Turn names and globs into sites that the model offers.

    Raises:
        SiteError: nothing matches, or the model does not offer the site.
    """
    found = expand(sites, dims)
    texts = [str(site) for site in ([sites] if isinstance(sites, str | Site) else sites)]
    if "hook_embed" in texts and not embed_is_token:
        raise SiteError(
            f"'hook_embed' is the token embedding alone in TransformerLens, but in {anatomy.name!r} there is "
            "more before block 0 (positions, a norm or a factor). Ask for 'embed', the stream that enters "
            "block 0."
        )
    if any(mark in text.partition(".")[0] for text in texts for mark in "*?["):
        found = [site for site in found if site.kind not in anatomy.disabled]
    anatomy.check(dict.fromkeys(site.kind for site in found))
    return found


def run(
    backend: Backend,
    dims: Dimensions,
    tokens: Tokens,
    *,
    sites: Sequence[Site],
    positions: Positions,
    logits: str,
    interventions: Sequence[Intervention],
    batch_size: str | int,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    progress: bool,
    grad: bool,
) -> tuple[Tensor | None, dict[Site, Tensor], list[Any]]:
    """Return logits, captured tensors and the positions they are at; see ``Model.run``."""
    if logits not in ("last", "all", "none"):
        raise ConfigError(f"logits {logits!r} asked; use 'last', 'all' or 'none'.")
    chosen = choose(positions, tokens.lengths)
    plan = Plan(interventions, dims, tokens.lengths) if interventions else None
    if grad:
        return *execute_with_gradients(backend, tokens, sites, chosen, logits, plan), chosen.recorded()
    anatomy = backend.anatomy
    width = anatomy.vocab_size if logits == "all" or LOGITS in sites else 0
    found = execute(
        backend,
        tokens,
        plan_batches(tokens.lengths, batch_size, device=anatomy.device.type, logits_width=width),
        sites=sites,
        chosen=chosen,
        logits=logits,
        plan=plan,
        device=torch.device(device) if device is not None else None,
        dtype=dtype,
        progress=progress,
    )
    return *found, chosen.recorded()
