"""A run that keeps its graph: captured tensors are nodes of it, so gradients with respect to them exist."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.models.backend import Backend
from interp.models.batches import make_batch
from interp.models.hooks import Frame
from interp.models.interventions import Plan
from interp.models.passes import LOGITS, Logits, last_logits
from interp.models.positions import Chosen
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["execute_with_gradients"]


def execute_with_gradients(
    backend: Backend, tokens: Tokens, sites: Sequence[Site], chosen: Chosen, logits: Logits, plan: Plan | None
) -> tuple[Tensor | None, dict[Site, Tensor]]:
    """Run one batch with the graph kept.

    Every captured site is read and written back, so the tensor returned lies on the path to the logits. Where
    nothing before it needs a gradient it becomes a leaf, so frozen parameters are fine and cheaper.

    Raises:
        ConfigError: positions other than "all", or a site that cannot be written.
    """
    if sites and not chosen.everything:
        raise ConfigError(
            "grad=True keeps whole tensors of the graph: use positions='all', and index the result."
        )
    found: dict[Site, Tensor] = {}
    records = {site: partial(_record, site, found) for site in sites if site != LOGITS}
    batch = make_batch(tokens, range(len(tokens)), backend.anatomy.device)
    frame = Frame(batch=len(tokens), width=batch.width)
    writes = [records]
    if plan is not None:
        plan.prepare(batch)
        writes = [plan.edits(), records]
    with torch.enable_grad(), backend.session(frame, writes=writes, reads=[]) as call:
        result = call(batch, "all" if LOGITS in sites else logits).logits
    if plan is not None:
        plan.check_fired()
    if LOGITS in sites:
        found[LOGITS] = result
    if logits == "none":
        return None, found
    return (result if logits == "all" else last_logits(result, batch)), found


def _record(site: Site, found: dict[Site, Tensor], current: Tensor) -> Tensor:
    value = current.clone() if current.requires_grad else current.detach().requires_grad_(True)
    found[site] = value
    return value.clone()
