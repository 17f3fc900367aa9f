"""Which positions of each prompt are meant, and how they are gathered from a padded tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, DataError

__all__ = ["Batch", "Chosen", "choose", "gatherer"]

Positions = Any
"""``"last"``, ``"all"``, an int, a slice, one int per prompt, or a boolean mask ``[batch pos]``."""


@dataclass(frozen=True)
class Chosen:
    """Hold the chosen positions of every prompt, counted from its first token.

    Attributes:
        rows: per prompt its positions.
        single: one position per prompt, so that captured tensors have no position axis.
        everything: all positions of every prompt.
        last: the last token of every prompt.
    """

    rows: tuple[tuple[int, ...], ...]
    single: bool = False
    everything: bool = False
    last: bool = False

    def recorded(self) -> list[Any]:
        """Return what ``Activations.positions`` stores: an int per prompt, or a list of ints per prompt."""
        return [row[0] for row in self.rows] if self.single else [list(row) for row in self.rows]


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold one padded batch on the model's device.

    Attributes:
        rows: which prompts these are.
        lengths: their numbers of tokens.
        input_ids: ``[batch pos]``.
        mask: ``[batch pos]``, or None where nothing is padded.
        starts: per row the position, within its prompt, of the first column; negative under left padding.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    input_ids: Tensor
    mask: Tensor | None
    starts: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.input_ids.shape[1])


def choose(positions: Positions, lengths: Sequence[int], *, limits: Sequence[int] | None = None) -> Chosen:
    """Resolve positions for every prompt.

    Args:
        positions: ``"last"``; ``"all"``; an int (negative counts from each prompt's end); a slice; a sequence
            with one int per prompt; a boolean mask ``[batch pos]`` whose column t is token t of the prompt.
        lengths: tokens per prompt.
        limits: tokens per prompt with those still to be generated; ``"all"`` and open slices reach that far.

    Raises:
        DataError: a position that a prompt does not have, or a mask of the wrong shape.
        ConfigError: the value is none of the above.
    """
    limits = lengths if limits is None else limits
    if isinstance(positions, str):
        if positions == "last":
            return Chosen(tuple((length - 1,) for length in lengths), single=True, last=True)
        if positions == "all":
            return Chosen(tuple(tuple(range(limit)) for limit in limits), everything=True)
    elif isinstance(positions, bool):
        pass
    elif isinstance(positions, int):
        return _per_prompt([positions] * len(lengths), lengths, limits)
    elif isinstance(positions, slice):
        pairs = zip(lengths, limits, strict=True)
        return Chosen(tuple(_sliced(positions, length, limit) for length, limit in pairs))
    elif (mask := _as_mask(positions)) is not None:
        return _masked(mask, lengths)
    elif isinstance(positions, Tensor | Sequence | np.ndarray):
        return _per_prompt([int(p) for p in positions], lengths, limits)
    raise ConfigError(
        f"positions {positions!r} asked; use 'last', 'all', an int, a slice, one int per prompt, or a "
        "boolean mask."
    )


def _sliced(positions: slice, length: int, limit: int) -> tuple[int, ...]:
    """Apply a slice: negative ends count from the prompt's end; an open end reaches the limit."""
    start, stop, step = positions.start, positions.stop, positions.step
    start = start + length if start is not None and start < 0 else start
    stop = stop + length if stop is not None and stop < 0 else stop
    start = max(start, 0) if start is not None else None
    stop = max(stop, 0) if stop is not None else None
    return tuple(range(limit))[slice(start, stop, step)]


def _per_prompt(wanted: list[int], lengths: Sequence[int], limits: Sequence[int]) -> Chosen:
    if len(wanted) != len(lengths):
        raise DataError(f"{len(wanted)} positions for {len(lengths)} prompts. Give one per prompt.")
    rows = []
    for number, (position, length, limit) in enumerate(zip(wanted, lengths, limits, strict=True)):
        if not -length <= position < limit:
            raise DataError(
                f"position {position} asked, but prompt {number} has positions 0..{limit - 1} "
                "(-1 is the prompt's last)."
            )
        rows.append((position + length if position < 0 else position,))
    return Chosen(tuple(rows), single=True)


def _as_mask(positions: Any) -> Tensor | None:
    if isinstance(positions, Tensor):
        return positions if positions.dtype == torch.bool else None
    if isinstance(positions, np.ndarray) and positions.dtype == np.bool_:
        return torch.as_tensor(positions)
    if isinstance(positions, Sequence) and positions and isinstance(positions[0], Sequence):
        return _ragged(positions)
    return None


def _ragged(rows: Sequence[Sequence[bool]]) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[bool(flag) for flag in row] + [False] * (width - len(row)) for row in rows])


def _masked(mask: Tensor, lengths: Sequence[int]) -> Chosen:
    if mask.ndim != 2 or mask.shape[0] != len(lengths):
        raise DataError(
            f"position mask has shape {tuple(mask.shape)}; give [batch pos] with {len(lengths)} rows."
        )
    rows = tuple(tuple(row.nonzero()[:, 0].tolist()) for row in mask)
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if row and row[-1] >= length:
            raise DataError(
                f"position mask marks position {row[-1]}, but prompt {number} has positions 0..{length - 1}. "
                "Column t of a mask is token t of the prompt; padding is never counted."
            )
    return Chosen(rows)


def gatherer(chosen: Chosen, batch: Batch) -> Callable[[Tensor], Tensor]:
    """Return the function that copies the chosen positions out of ``[batch pos ...]``, padded with zeros.

    The result is a copy: it never keeps the whole tensor alive, and no later edit in place can reach it.
    """
    rows = [chosen.rows[row] for row in batch.rows]
    device = batch.input_ids.device
    if chosen.everything and batch.mask is None:
        return torch.clone
    columns = [[p - start for p in row] for row, start in zip(rows, batch.starts, strict=True)]
    if chosen.single:
        return _single([row[0] for row in columns], device)
    return _several(columns, device)


def _single(columns: list[int], device: torch.device) -> Callable[[Tensor], Tensor]:
    if len(set(columns)) == 1:
        return partial(_column, columns[0])
    index = torch.arange(len(columns), device=device), torch.tensor(columns, device=device)
    return partial(_indexed, index)


def _column(column: int, tensor: Tensor) -> Tensor:
    return tensor.select(1, column).clone()


def _indexed(index: tuple[Tensor, Tensor], tensor: Tensor) -> Tensor:
    rows, columns = index
    return tensor[rows.to(tensor.device), columns.to(tensor.device)]


def _several(columns: list[list[int]], device: torch.device) -> Callable[[Tensor], Tensor]:
    width = max(len(row) for row in columns)
    index = torch.tensor([row + [0] * (width - len(row)) for row in columns], device=device, dtype=torch.long)
    flags = [[False] * len(row) + [True] * (width - len(row)) for row in columns]
    empty = torch.tensor(flags, device=device, dtype=torch.bool)
    return partial(_gathered, (torch.arange(len(columns), device=device)[:, None], index), empty)


def _gathered(index: tuple[Tensor, Tensor], empty: Tensor, tensor: Tensor) -> Tensor:
    picked = _indexed(index, tensor)
    empty = empty.to(tensor.device)
    return picked.masked_fill_(empty.view(*empty.shape, *[1] * (picked.ndim - 2)), 0)
