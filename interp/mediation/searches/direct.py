"""Direct effects: a writer's value is replaced only in the stream that the final norm reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import SiteError
from interp.mediation.effects import Effects
from interp.mediation.mediators import Mediator
from interp.mediation.metrics import Targets
from interp.mediation.noise import rounding_error
from interp.mediation.searches.gradients import SIGNS
from interp.mediation.searches.job import Job, Mediators
from interp.mediation.walk import within
from interp.mediation.writers import check_heads_add_up, written_by_heads
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["direct_effects"]

WRITERS = ("embed", "head", "attn_out", "mlp_out")


def direct_effects(
    model: Model,
    pairs: PairSet,
    mediators: Mediators,
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Replace what each writer adds to the final residual stream, exactly, the rest of the model frozen.

    The final norm is live. Only the last token counts, since only it is read. What an exhaustive search finds
    beyond this goes through later parts of the model: indirect effect = effect - direct effect.

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: ``embed``, ``head.*``, ``attn_out.*`` or ``mlp_out.*``.
        metric: a key of ``METRICS``.
        replacement: a key of ``REPLACEMENTS``.
        directions: ``both``, ``denoising`` or ``noising``.
        positions: as for ``mediators_of``; other positions than the last have no direct effect.
        seed: of resampling and of intervals.
        progress: has no use here: everything is read in one pass.

    Raises:
        ConfigError: as for :func:`exhaustive`.
        SiteError: a mediator that adds nothing to the stream itself, or heads behind a norm.
    """
    job = Job.of(model, pairs, mediators, metric, replacement, directions, positions, seed)
    _need_writers(job)
    targets, clean, corrupt = job.unpatched()
    values = {direction: _effects(job, direction, targets) for direction in job.directions}
    noise = rounding_error(job, values, lambda part, way: _effects(part, way, part.unpatched()[0]))
    cost: Mapping[str, Any] = {"forwards": 2 + 2 * len(job.directions)}
    return job.effects(values, clean, corrupt, search="direct", noise=noise, cost=dict(cost))


def _effects(job: Job, direction: str, targets: Targets) -> np.ndarray:
    """``[mediator pair]`` direct effects in one direction."""
    streams, changes = _changes(job, direction)
    plain = job.values(job.model.unembed(streams), targets)
    found = [job.values(job.model.unembed(streams + change), targets) - plain for change in changes]
    return SIGNS[direction] * np.stack(found)


def _need_writers(job: Job) -> None:
    for mediator in job.mediators:
        if mediator.site.kind not in WRITERS:
            raise SiteError(
                f"'{mediator}' adds nothing to the residual stream by itself, so it has no direct effect; "
                f"mediators that do: {', '.join(WRITERS)}."
            )
    layers = {m.layer for m in job.mediators if m.site.kind == "head" and m.layer is not None}
    check_heads_add_up(job.model, job.pairs.clean, sorted(layers))


def _changes(job: Job, direction: str) -> tuple[Tensor, list[Tensor]]:
    """Give the final streams ``[pair d_model]``, and per mediator what is added to them."""
    base, source = job.base(direction)
    last = torch.tensor(job.pairs.lengths) - 1
    final = f"resid_post.{job.model.n_layers - 1}"
    sources = job.sources(source, job.mediators)
    read = job.model.capture(base, [*(str(site) for site in sources), final], "last")
    at = (torch.arange(len(last)), last)
    there = {site: value[at] for site, value in sources.items()}
    changes = [_change(job, m, read[str(m.carriers[0])], there[m.carriers[0]]) for m in job.mediators]
    return read[final], changes


def _change(job: Job, mediator: Mediator, node: Tensor, there: Tensor) -> Tensor:
    """Give what a mediator's replacement adds to the stream at the last position, ``[pair d_model]``."""
    place = mediator.places[0]
    if isinstance(place.index, int):
        node, there = node[:, place.index], there[:, place.index]
    change = within(place.subspace, node, there.to(node), job.replacement.rule) - node
    if isinstance(place.index, int):
        change = written_by_heads(job.model, Site("z", mediator.layer), {place.index: change})
    lengths = torch.tensor(job.pairs.lengths, device=change.device)
    if mediator.position is None:
        return change
    read = (mediator.position % lengths) == lengths - 1
    return change * read[:, None]
