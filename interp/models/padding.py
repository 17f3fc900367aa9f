"""Whether padding and a cache leave a model's numbers alone: measured at load, and heeded in every run.

A recurrence that does not skip padding carries it into the prompt. Prompts of several lengths then share no
batch with padding on that side, and where a cache gives other logits than a whole pass, text is continued
without one: right by construction.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from interp.models.architecture import Architecture
from interp.models.families import WRONG_CACHES, Family
from interp.models.forward import cache_name, cache_of, forward, last_logits
from interp.models.hooks import evaluating
from interp.models.positions import Batch
from interp.models.probe_pass import probe_batch
from interp.models.rounding import relative, tolerance

__all__ = ["FAR", "with_padding"]

FAR = 10
"""Rounding tolerances that a recurrence may differ by when it is cut into other chunks."""
_LESS = 2


def with_padding(architecture: Architecture) -> Architecture:
    """Record in a model's row on which sides prompts may be padded, and whether its cache can be used.

    Four passes of ten tokens, and one for each token after the second.
    """
    batch = probe_batch(architecture)
    if batch.width <= _LESS:
        return architecture
    limit = FAR * tolerance(architecture.hf.dtype)
    with torch.no_grad(), evaluating(architecture.modules):
        wanted = forward(architecture, _cut(batch, 0, batch.width - _LESS), "last").logits[:1, -1]
        sides = [side for side in ("right", "left") if _padded(architecture, batch, side, wanted) <= limit]
        known = architecture.hf.config.get_text_config().model_type in WRONG_CACHES
        cached = not cache_name(architecture) or (not known and _cached(architecture, batch) <= limit)
    padding = "either" if len(sides) == 2 else sides[0] if sides else "none"
    rows = tuple(_noted(row, padding, cached) for row in architecture.family.rows)
    return replace(architecture, family=replace(_noted(architecture.family, padding, cached), rows=rows))


def _noted(row: Family, padding: str, cached: bool) -> Family:
    return replace(row, padding=padding, cache=row.cache and cached)


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    """Some columns of both rows, without padding."""
    width, mask = stop - start, torch.ones_like(batch.input_ids[:, :stop])
    return Batch((0, 1), (width, width), batch.input_ids[:, start:stop], mask, (start, start))


def _padded(architecture: Architecture, batch: Batch, side: str, wanted: Tensor) -> float:
    """How far the first row, cut short and padded, is from the same alone."""
    length, width = batch.width - _LESS, batch.width
    pad = torch.zeros(_LESS, dtype=batch.input_ids.dtype, device=batch.input_ids.device)
    parts = (batch.input_ids[0, :length], pad)
    ids = torch.stack([torch.cat(parts if side == "right" else parts[::-1]), batch.input_ids[1]])
    mask = torch.ones_like(ids)
    mask[0, slice(length, None) if side == "right" else slice(0, _LESS)] = 0
    starts = (-_LESS if side == "left" else 0, 0)
    rows = Batch((0, 1), (length, width), ids, mask, starts)
    try:
        found = last_logits(forward(architecture, rows, "all").logits, rows)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
        return float("inf")
    error = relative(found[:1], wanted)
    return error if error == error else float("inf")


def _cached(architecture: Architecture, batch: Batch) -> float:
    """How far the logits of tokens given one by one are from those of a whole pass."""
    try:
        whole = forward(architecture, batch, "all").logits
        result = forward(architecture, _cut(batch, 0, _LESS), "last", use_cache=True)
        errors = [0.0]
        for column in range(_LESS, batch.width):
            cache = cache_of(result)
            if cache is None:
                return float("inf")
            step = _cut(batch, column, column + 1)
            result = forward(architecture, step, "last", use_cache=True, cache=cache)
            errors.append(relative(result.logits[:, -1], whole[:, column]))
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
        return float("inf")
    return max(error if error == error else float("inf") for error in errors)
