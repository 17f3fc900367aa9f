"""One forward pass, and many: read, write, stop early, gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from interp.models.backend import Backend, Forward
from interp.models.batches import in_batches, make_batch
from interp.models.hooks import Frame, Stop, by_reference
from interp.models.interventions import Plan
from interp.models.passes import LOGITS, Logits, last_logits
from interp.models.positions import Batch, Chosen, choose, gatherer
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["Collector", "execute"]


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

    backend: Backend
    call: Forward
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
        pad_token = getattr(self.backend.anatomy.hf.config, "pad_token_id", None)
        batch = make_batch(self.tokens, rows, self.backend.anatomy.device, always_mask=pad_token)
        self.frame.begin(len(rows), batch.width)
        whole = self.chosen.everything and batch.mask is None and not self.copying
        self.frame.gather = by_reference if whole else gatherer(self.chosen, batch)
        if self.plan is not None:
            self.plan.prepare(batch)
        wanted = _widest(self.logits, LOGITS in self.sites, self.chosen)
        try:
            result = self.call(batch, wanted).logits
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
    backend: Backend,
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
    hooked = [site for site in sites if site != LOGITS]
    frame = Frame(stop=bool(hooked) and logits == "none" and LOGITS not in sites)
    writes = [] if plan is None else [plan.edits()]
    with torch.no_grad(), backend.session(frame, writes=writes, reads=hooked) as call:
        job = _Job(backend, call, tokens, sites, chosen, logits, plan, frame, collector, outputs)
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
