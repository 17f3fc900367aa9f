"""One call of the Hugging Face model on one batch."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.models.positions import Batch
from interp.models.tokens import position_ids
from interp.sites import Site

__all__ = ["LOGITS", "Logits", "arguments", "forward", "last_logits", "takes_cache"]

LOGITS = Site("logits")
Logits = Literal["last", "all", "none"]


@lru_cache(maxsize=64)
def _accepted(model_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


def takes_cache(anatomy: Anatomy) -> bool:
    """Tell whether the model takes the usual key-value cache."""
    return "past_key_values" in _accepted(type(anatomy.hf))


def forward(anatomy: Anatomy, batch: Batch, logits: Logits, **cache: Any) -> Any:
    """Call the Hugging Face model on a batch, with positions from the mask and no more logits than needed."""
    return anatomy.hf(**arguments(anatomy, batch, logits, **cache))


def arguments(anatomy: Anatomy, batch: Batch, logits: Logits, **cache: Any) -> dict[str, Any]:
    """Give the arguments of that call, by name."""
    accepted = _accepted(type(anatomy.hf))
    given: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False, **cache}
    if batch.mask is not None:
        given["attention_mask"] = batch.mask
        if "position_ids" in accepted:
            given["position_ids"] = position_ids(batch.mask)[:, -batch.width :]
    if logits != "all" and "logits_to_keep" in accepted:
        given["logits_to_keep"] = _last_columns(batch) if _ragged_right(batch) else 1
    return given


def _ragged_right(batch: Batch) -> bool:
    return len(set(batch.lengths)) > 1 and not any(batch.starts)


def _last_columns(batch: Batch) -> Tensor:
    columns = [length - start - 1 for length, start in zip(batch.lengths, batch.starts, strict=True)]
    return torch.tensor(columns, device=batch.input_ids.device)[:, None]


def last_logits(logits: Tensor, batch: Batch) -> Tensor:
    """Return the logits after each prompt's last token, ``[batch vocab]``, from what the model returned."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(batch.rows), device=logits.device), _last_columns(batch)[:, 0]]
