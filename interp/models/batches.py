"""Prompts in batches: sized by a token budget, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from interp.errors import ConfigError, OutOfMemoryError
from interp.models.positions import Batch
from interp.models.tokens import Tokens, pad

__all__ = ["in_batches", "layout", "make_batch", "most_prompts", "plan_batches"]

_TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 16384}
_LOGITS_PER_BATCH = 1 << 27
_MOST: ContextVar[int | None] = ContextVar("most prompts of an automatic batch", default=None)


@contextmanager
def layout(prompts: int) -> Iterator[None]:
    """Let automatic batches inside the block hold at most so many prompts.

    The numbers of a run differ between layouts by rounding alone, which is one measure of its noise.

    Raises:
        ConfigError: fewer than one prompt.
    """
    if prompts < 1:
        raise ConfigError(f"layout({prompts}) asked; a batch holds 1 prompt or more.")
    token = _MOST.set(prompts)
    try:
        yield
    finally:
        _MOST.reset(token)


def most_prompts() -> int | None:
    """Give the limit that :func:`layout` has set here; None outside of one."""
    return _MOST.get()


def plan_batches(
    lengths: Sequence[int], batch_size: str | int, *, device: str = "cpu", logits_width: int = 0
) -> list[list[int]]:
    """Group prompts of similar length, within a budget of padded tokens.

    Args:
        lengths: tokens per prompt.
        batch_size: prompts per batch, or "auto".
        device: type of device, which decides the budget.
        logits_width: vocabulary size where logits of all positions are kept; they are budgeted too.

    Raises:
        ConfigError: the batch size is neither "auto" nor a positive number.
    """
    if isinstance(batch_size, bool) or not (
        batch_size == "auto" or (isinstance(batch_size, int) and batch_size >= 1)
    ):
        raise ConfigError(f"batch_size {batch_size!r} asked; use 'auto' or a number of prompts, 1 or more.")
    budget = _TOKENS_PER_BATCH.get(device, 4096)
    budget = min(budget, max(1, _LOGITS_PER_BATCH // logits_width)) if logits_width else budget
    most = _MOST.get() or len(lengths)
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    batches: list[list[int]] = []
    for row in order:
        size = len(batches[-1]) + 1 if batches else 1
        full = (
            size > batch_size if isinstance(batch_size, int) else size * lengths[row] > budget or size > most
        )
        if full or not batches:
            batches.append([])
        batches[-1].append(row)
    return [sorted(batch) for batch in batches]


def make_batch(
    tokens: Tokens, rows: Sequence[int], device: torch.device, *, always_mask: int | None = None
) -> Batch:
    """Pad some prompts on the tokens' own side and put them on the device.

    A mask is left out where nothing is padded, unless the id ``always_mask`` occurs: transformers guesses.
    """
    picked = [tokens.token_ids[row] for row in rows]
    lengths = tuple(map(len, picked))
    width = max(lengths)
    if min(lengths) == width and (always_mask is None or not any(always_mask in row for row in picked)):
        return Batch(tuple(rows), lengths, torch.tensor(picked, device=device), None, (0,) * len(picked))
    ids, mask = pad(picked, tokens.pad_id, tokens.padding_side)
    starts = tuple(length - width if tokens.padding_side == "left" else 0 for length in lengths)
    return Batch(tuple(rows), lengths, ids.to(device), mask.to(device), starts)


def in_batches(
    batches: Sequence[Sequence[int]], run: Callable[[Sequence[int]], None], *, progress: bool = False
) -> None:
    """Run every batch; when memory runs out, halve it, retry the same rows, and keep to that size.

    Raises:
        OutOfMemoryError: one prompt alone does not fit.
    """
    pending, limit = [list(batch) for batch in reversed(batches)], max(map(len, batches))
    with _progress_bar(sum(map(len, batches)), progress) as advance:
        while pending:
            rows = pending.pop()
            if len(rows) > limit:
                pending += [rows[limit:], rows[:limit]]
                continue
            if _fits(run, rows):
                advance(len(rows))
                continue
            if len(rows) == 1:
                raise OutOfMemoryError(
                    f"memory ran out on prompt {rows[0]} alone, at batch size 1. Capture fewer sites or "
                    "positions, shorten the prompt, use device='cpu' for the results, or a smaller dtype."
                )
            limit = max(1, len(rows) // 2)
            pending.append(rows)


def _fits(run: Callable[[Sequence[int]], None], rows: Sequence[int]) -> bool:
    try:
        run(rows)
    except torch.OutOfMemoryError:
        fits = False
    else:
        fits = True
    if not fits and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return fits


@contextmanager
def _progress_bar(total: int, show: bool) -> Iterator[Callable[[int], object]]:
    """Show progress on request; tqdm is imported only then."""
    if not show:
        yield lambda count: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="prompt", leave=False) as bar:
        yield bar.update
