"""A run that keeps its graph: captured tensors are nodes of it, so gradients with respect to them exist."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.models.anatomy import Anatomy
from interp.models.batches import make_batch
from interp.models.execution import LOGITS, Logits, forward, last_logits
from interp.models.hooks import Frame, Writer, evaluating, writing
from interp.models.interventions import Plan
from interp.models.positions import Chosen
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["execute_with_gradients"]


def execute_with_gradients(
    anatomy: Anatomy, tokens: Tokens, sites: Sequence[Site], chosen: Chosen, logits: Logits, plan: Plan | None
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
    frame = Frame()
    recorders = [
        Writer(site, anatomy.locate(site, write=True), partial(_record, site, found))
        for site in sites
        if site != LOGITS
    ]
    device = anatomy.device
    batch = make_batch(tokens, range(len(tokens)), device)
    frame.batch, frame.width = len(tokens), batch.width
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(evaluating(anatomy.modules))
        if plan is not None:
            plan.prepare(batch)
            stack.enter_context(writing(plan.writers(), frame))
        stack.enter_context(writing(recorders, frame))
        result = forward(anatomy, batch, "all" if LOGITS in sites else logits).logits
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
