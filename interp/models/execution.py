"""One forward pass, and many: read, write, stop early, gather."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from interp.models.anatomy import Anatomy
from interp.models.batches import in_batches, make_batch
from interp.models.hooks import Frame, Stop, by_reference, eager_attention, evaluating, reading, writing
from interp.models.interventions import Plan
from interp.models.positions import Batch, Chosen, choose, gatherer
from interp.models.tokens import Tokens, position_ids
from interp.sites import Site

__all__ = ["LOGITS", "Collector", "Logits", "execute", "forward", "last_logits", "takes_cache"]

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
    accepted = _accepted(type(anatomy.hf))
    arguments: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False, **cache}
    if batch.mask is not None:
        arguments["attention_mask"] = batch.mask
        if "position_ids" in accepted:
            arguments["position_ids"] = position_ids(batch.mask)[:, -batch.width :]
    if logits != "all" and "logits_to_keep" in accepted:
        arguments["logits_to_keep"] = _last_columns(batch) if _ragged_right(batch) else 1
    return anatomy.hf(**arguments)


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


@dataclass(eq=False)
class Collector:
    """Gather results of batches into tensors in prompt order, allocated once.

    Attributes:
        count: number of prompts.
        width: size of the position axis; 0 where there is none.
        longest: tokens of the longest prompt: the key axis of patterns.
        device: where results are kept; None for where they were computed.
        dtype: of the results; None for as computed.
    """

    count: int
    width: int
    longest: int
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    tensors: dict[Site, Tensor] = field(default_factory=dict)

    def add(self, site: Site, rows: Sequence[int], part: Tensor) -> None:
        """Store one batch of one site."""
        part = part.to(device=self.device, dtype=self.dtype) if self.device or self.dtype else part
        if site.kind == "pattern" and part.shape[-1] < self.longest:
            part = functional.pad(part, (0, self.longest - part.shape[-1]))
        if len(rows) == self.count and (not self.width or part.shape[1] == self.width):
            self.tensors[site] = part
            return
        if site not in self.tensors:
            shape = (self.count, self.width, *part.shape[2:]) if self.width else (self.count, *part.shape[1:])
            self.tensors[site] = part.new_zeros(shape)
        index = torch.tensor(rows, device=part.device)
        if self.width:
            self.tensors[site][index, : part.shape[1]] = part
        else:
            self.tensors[site][index] = part


@dataclass(eq=False)
class _Job:
    """Run batches one after the other and gather what they give."""

    anatomy: Anatomy
    tokens: Tokens
    sites: Sequence[Site]
    chosen: Chosen
    logits: Logits
    plan: Plan | None
    frame: Frame
    collector: Collector
    outputs: Collector
    copying: bool = False

    def run(self, rows: Sequence[int]) -> None:
        """Run one batch; call it again with fewer rows when memory runs out."""
        pad_token = getattr(self.anatomy.hf.config, "pad_token_id", None)
        batch = make_batch(self.tokens, rows, self.anatomy.device, always_mask=pad_token)
        self.frame.begin(len(rows), batch.width)
        whole = self.chosen.everything and batch.mask is None and not self.copying
        self.frame.gather = by_reference if whole else gatherer(self.chosen, batch)
        if self.plan is not None:
            self.plan.prepare(batch)
        wanted = _widest(self.logits, LOGITS in self.sites, self.chosen)
        try:
            result = forward(self.anatomy, batch, wanted).logits
        except Stop:
            result = None
        if self.frame.edited():
            self.copying = True
            self.run(rows)
            return
        for site, part in _separate(self.frame.found).items() if whole else self.frame.found.items():
            self.collector.add(site, rows, _keys_from_zero(part, batch) if site.kind == "pattern" else part)
        if result is not None:
            self._keep_logits(batch, result, wanted)
        self.frame.begin(0, 0)

    def _keep_logits(self, batch: Batch, result: Tensor, wanted: Logits) -> None:
        if LOGITS in self.sites:
            part = self.frame.gather(result) if wanted == "all" else last_logits(result, batch).clone()
            self.collector.add(LOGITS, batch.rows, part)
        if self.logits == "last":
            self.outputs.add(LOGITS, batch.rows, last_logits(result, batch).clone())
        elif self.logits == "all":
            everything = choose("all", self.tokens.lengths)
            self.outputs.add(LOGITS, batch.rows, gatherer(everything, batch)(result))


def execute(
    anatomy: Anatomy,
    tokens: Tokens,
    batches: Sequence[Sequence[int]],
    *,
    sites: Sequence[Site],
    chosen: Chosen,
    logits: Logits,
    plan: Plan | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> tuple[Tensor | None, dict[Site, Tensor]]:
    """Run all batches without gradients; return the logits asked for and the tensor of every site."""
    longest = max(tokens.lengths)
    width = 0 if chosen.single else max(len(row) for row in chosen.rows)
    collector = Collector(len(tokens), width, longest, device, dtype)
    outputs = Collector(len(tokens), longest if logits == "all" else 0, longest)
    hooked = {site: anatomy.locate(site) for site in sites if site != LOGITS}
    frame = Frame(stop=bool(hooked) and logits == "none" and LOGITS not in sites)
    job = _Job(anatomy, tokens, sites, chosen, logits, plan, frame, collector, outputs)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(anatomy.modules))
        if any(site.kind == "pattern" for site in sites):
            stack.enter_context(eager_attention(anatomy.modules))
        if plan is not None:
            stack.enter_context(writing(plan.writers(), frame))
        stack.enter_context(reading(hooked, frame))
        in_batches(batches, job.run, progress=progress)
    if plan is not None:
        plan.check_fired()
    return outputs.tensors.get(LOGITS), {site: collector.tensors[site] for site in sites}


def _separate(found: dict[Site, Tensor]) -> dict[Site, Tensor]:
    """Copy tensors that share memory with another site's, or are part of something larger."""
    seen: set[int] = set()
    for site, tensor in found.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() > tensor.nbytes:
            found[site] = tensor.clone()
        seen.add(storage.data_ptr())
    return found


def _keys_from_zero(pattern: Tensor, batch: Batch) -> Tensor:
    """Shift the key axis so that column t is token t of the prompt, also under left padding."""
    if not any(batch.starts):
        return pattern
    columns = torch.arange(batch.width)[None] - torch.tensor(batch.starts)[:, None]
    index = columns.clamp(max=batch.width - 1).view(len(batch.rows), *[1] * (pattern.ndim - 2), batch.width)
    beyond = (columns >= batch.width).view(index.shape)
    shifted = pattern.gather(-1, index.to(pattern.device).expand_as(pattern))
    return shifted.masked_fill_(beyond.to(pattern.device), 0)


def _widest(logits: Logits, captured: bool, chosen: Chosen) -> Logits:
    """Decide which logits the model must compute."""
    if logits == "all" or (captured and not chosen.last):
        return "all"
    return "last" if logits == "last" or captured else "none"
