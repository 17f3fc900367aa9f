"""Continuation, greedy or sampled, with reading and writing at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.activations import Activations
from interp.errors import ConfigError, DataError, SiteError, counted
from interp.models.architecture import Architecture
from interp.models.backends.base import Backend, Forward
from interp.models.forward import LOGITS, cache_of, in_batches, make_batch
from interp.models.hooks import Frame
from interp.models.interventions import Intervention, Plan
from interp.models.positions import Batch
from interp.models.tokens import Tokens
from interp.sites import Dimensions, Site

__all__ = ["Generated", "Generation", "generate"]


@dataclass(frozen=True, eq=False)
class Generation:
    """Continuations.

    Attributes:
        texts: per prompt the new text, special tokens left out; "" without a tokenizer.
        token_ids: per prompt the new ids, the end-of-sequence token included.
        activations: ``[prompt step ...]``, zeros for steps that a prompt did not reach; None if not asked.
    """

    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    activations: Activations | None


@dataclass(eq=False)
class Generated:
    """What the loop gathers, before it becomes a ``Generation``."""

    texts: tuple[str, ...] = ()
    token_ids: tuple[tuple[int, ...], ...] = ()
    all_ids: tuple[tuple[int, ...], ...] = ()
    positions: list[list[int]] = field(default_factory=list)
    tensors: dict[Site, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class _Row:
    """Follow one prompt: its new ids and, per site, what was read at each wanted step it reached."""

    new: list[int] = field(default_factory=list)
    done: bool = False
    reached: list[int] = field(default_factory=list)
    read: dict[Site, list[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Job:
    """Continue batches one after the other."""

    backend: Backend
    call: Forward
    tokens: Tokens
    plan: Plan
    frame: Frame
    max_new_tokens: int
    wanted: list[int]
    stops: frozenset[int]
    use_cache: bool
    choose: Callable[[Tensor], Tensor]
    rows: dict[int, _Row] = field(default_factory=dict)

    def run(self, numbers: Sequence[int]) -> None:
        """Walk one left-padded batch to its end; call it again with fewer rows when memory runs out."""
        state = {number: _Row() for number in numbers}
        rows = list(state.values())
        batch = make_batch(self.tokens, numbers, self.backend.architecture.device)
        cache: Any = None
        for step in range(self.max_new_tokens):
            self.plan.prepare(batch)
            self.frame.begin(len(rows), batch.width)
            result = self.call(batch, "last", use_cache=self.use_cache, cache=cache)
            cache = cache_of(result) if self.use_cache else None
            logits = result.logits[:, -1]
            if step in self.wanted:
                _read(rows, step, {**self.frame.found, LOGITS: logits})
            newest = self.choose(logits)
            _append(rows, newest.tolist(), self.stops)
            if all(row.done for row in rows):
                break
            batch = _longer(batch, newest[:, None], cached=cache is not None)
        self.frame.begin(0, 0)
        self.rows.update(state)


def generate(
    backend: Backend,
    tokens: Tokens,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    max_new_tokens: int,
    max_length: int | None,
    dims: Dimensions,
    sites: Sequence[Site],
    steps: str | Sequence[int],
    interventions: Sequence[Intervention],
    batches: Sequence[Sequence[int]],
    use_cache: bool,
    temperature: float = 0.0,
    seed: int = 0,
) -> Generated:
    """Continue all prompts batch by batch; see ``Model.generate``."""
    architecture = backend.architecture
    _check(tokens, max_new_tokens, max_length, architecture.name, sites)
    wanted = _wanted(steps, max_new_tokens)
    limits = [length + max_new_tokens - 1 for length in tokens.lengths]
    plan = Plan.of(interventions, dims, tokens, tokenizer, limits=limits)
    frame = Frame(gather=_newest)
    cached = use_cache and backend.caches
    choose = _chooser(temperature, seed)
    hooked, stops = [site for site in sites if site != LOGITS], _stop_ids(architecture, tokenizer)
    with torch.no_grad(), backend.session(frame, writes=[plan.edits()], reads=hooked) as call:
        choose = _chooser(temperature, seed)
        job = _Job(backend, call, tokens, plan, frame, max_new_tokens, wanted, stops, cached, choose)
        in_batches(batches, job.run)
    plan.check_fired()
    return _gathered(tokens, [job.rows[number] for number in range(len(tokens))], sites, tokenizer)


def _chooser(temperature: float, seed: int) -> Callable[[Tensor], Tensor]:
    """What picks each prompt's next token from ``[prompt vocab]`` logits.

    Draws are made on the CPU in float64, by inverting the distribution, so that they are the same everywhere
    and two close logits cannot swap more than their own tokens.

    Raises:
        ConfigError: the temperature is negative or not finite.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ConfigError(f"temperature {temperature} asked; use 0 for the likeliest token, or more to draw.")
    if temperature == 0:
        return lambda logits: logits.argmax(-1)
    draws = torch.Generator().manual_seed(seed)

    def drawn(logits: Tensor) -> Tensor:
        shares = (logits.to("cpu", torch.float64) / temperature).softmax(-1).cumsum(-1)
        at = torch.rand(len(shares), 1, generator=draws, dtype=torch.float64) * shares[:, -1:]
        return torch.searchsorted(shares, at, right=True)[:, 0].to(logits.device)

    return drawn


def _newest(tensor: Tensor) -> Tensor:
    return tensor[:, -1].clone()


def _check(
    tokens: Tokens, max_new_tokens: int, max_length: int | None, name: str, sites: Sequence[Site]
) -> None:
    if isinstance(max_new_tokens, bool) or max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens {max_new_tokens!r} asked; use 1 or more.")
    if any(site.kind == "pattern" for site in sites):
        raise SiteError("'pattern' cannot be captured while generating; capture it on the finished text.")
    for number, length in enumerate(tokens.lengths):
        if max_length is not None and length + max_new_tokens > max_length:
            raise DataError(
                f"prompt {number} has {counted(length, 'token')} and {max_new_tokens} new ones were asked, "
                f"but {name!r} "
                f"reads at most {max_length}. Use max_new_tokens={max(0, max_length - length)} or a "
                f"shorter prompt."
            )


def _wanted(steps: str | Sequence[int], max_new_tokens: int) -> list[int]:
    if steps == "all":
        return list(range(max_new_tokens))
    if isinstance(steps, str) or not all(
        isinstance(step, int) and 0 <= step < max_new_tokens for step in steps
    ):
        raise ConfigError(f"steps {steps!r} asked; use 'all' or numbers from 0 to {max_new_tokens - 1}.")
    return sorted(set(steps))


def _stop_ids(architecture: Architecture, tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    settings = getattr(architecture.hf, "generation_config", None)
    found: Any = getattr(settings, "eos_token_id", None)
    if found is None and tokenizer is not None:
        found = tokenizer.eos_token_id
    return frozenset() if found is None else frozenset([found] if isinstance(found, int) else found)


def _read(rows: list[_Row], step: int, found: dict[Site, Tensor]) -> None:
    for number, row in enumerate(rows):
        if row.done:
            continue
        row.reached.append(step)
        for site, tensor in found.items():
            row.read.setdefault(site, []).append(tensor[number])


def _append(rows: list[_Row], newest: list[int], stops: frozenset[int]) -> None:
    for row, token in zip(rows, newest, strict=True):
        if not row.done:
            row.new.append(token)
            row.done = token in stops


def _longer(batch: Batch, newest: Tensor, *, cached: bool) -> Batch:
    """The next pass: the newest column alone under a cache, everything otherwise."""
    ones = torch.ones_like(newest)
    mask = None if batch.mask is None else torch.cat([batch.mask, ones], 1)
    ids = newest if cached else torch.cat([batch.input_ids, newest], 1)
    lengths = tuple(length + 1 for length in batch.lengths)
    starts = tuple(length - ids.shape[1] for length in lengths)
    return replace(batch, input_ids=ids, mask=mask, lengths=lengths, starts=starts)


def _gathered(
    tokens: Tokens,
    rows: list[_Row],
    sites: Sequence[Site],
    tokenizer: PreTrainedTokenizerBase | None,
) -> Generated:
    new = tuple(tuple(row.new) for row in rows)
    texts = tuple(
        str(tokenizer.decode(list(ids), skip_special_tokens=True)) if tokenizer else "" for ids in new
    )
    full = tuple(old + ids for old, ids in zip(tokens.token_ids, new, strict=True))
    pairs = zip(tokens.lengths, rows, strict=True)
    positions = [[length - 1 + step for step in row.reached] for length, row in pairs]
    tensors = {site: _padded(rows, site, max(len(row.reached) for row in rows)) for site in sites}
    return Generated(texts, new, full, positions, tensors)


def _padded(rows: list[_Row], site: Site, width: int) -> Tensor:
    example = next((tensor for row in rows for tensor in row.read.get(site, [])), None)
    if example is None:
        raise DataError(
            "no prompt reached the steps to capture: the end-of-sequence token came first. Ask earlier steps."
        )
    result = example.new_zeros((len(rows), width, *example.shape))
    for number, row in enumerate(rows):
        if row.read.get(site):
            result[number, : len(row.reached)] = torch.stack(row.read[site])
    return result
