"""Which positions of each prompt are meant, and how they are gathered from a padded tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.conversations import Selector, parse
from interp.errors import ConfigError, DataError, counted
from interp.models.tokens import Tokens

__all__ = ["Batch", "Chosen", "choose", "gatherer", "in_words", "located"]

Positions = Any
"""``"last"``, ``"all"``, a selector, an int, a slice, ints per prompt, or a boolean mask ``[batch pos]``."""
ASKED = "'last', 'all', a selector, an int, a slice, one int or several ints per prompt, or a boolean mask"


@dataclass(frozen=True)
class Chosen:
    """The chosen positions of every prompt, counted from its first token.

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
        """What ``Activations.positions`` stores: an int per prompt, or a list of ints per prompt."""
        return [row[0] for row in self.rows] if self.single else [list(row) for row in self.rows]


@dataclass(frozen=True, eq=False)
class Batch:
    """One padded batch on the model's device.

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


def located(
    positions: Positions,
    tokens: Tokens,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    rows: Sequence[int] | None = None,
    limits: Sequence[int] | None = None,
) -> Positions:
    """Positions in which a selector has become ints per prompt; all others as they are.

    Args:
        positions: as for ``choose``; a text other than "last" and "all", or a ``Selector``, is a selector
            (``interp.conversations.selectors``).
        tokens: the prompts.
        tokenizer: the model's.
        rows: of which prompts; None for all.
        limits: per prompt of ``tokens`` its number of tokens with those still to be generated.

    Returns:
        For a selector one int per prompt where it names one token by its form (``answer[-1]``), else several.

    Raises:
        ConfigError: the text is no selector.
        DataError: it selects nothing in a prompt.
    """
    if isinstance(positions, str) and positions not in ("last", "all"):
        positions = parse(positions)
    if not isinstance(positions, Selector):
        return positions
    new = [end - length for end, length in zip(limits, tokens.lengths, strict=True)] if limits else ()
    found = positions.resolve(tokens, tokenizer, rows=rows, new=new)
    return [row[0] for row in found] if positions.single else [list(row) for row in found]


def in_words(positions: Positions) -> str:
    """Positions as they were asked for in words; "" for numbers and masks."""
    return str(positions) if isinstance(positions, str | Selector) else ""


def choose(positions: Positions, lengths: Sequence[int], *, limits: Sequence[int] | None = None) -> Chosen:
    """Resolve positions for every prompt.

    Args:
        positions: ``"last"``; ``"all"``; an int (negative counts from each prompt's end); a slice; an int for
            each prompt; several ints for each (what ``Activations.positions`` records); or a boolean mask
            ``[batch pos]`` whose column t is token t of the prompt. Only true and false make a mask.
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
    elif isinstance(positions, slice):
        pairs = zip(lengths, limits, strict=True)
        return Chosen(tuple(_sliced(positions, length, limit) for length, limit in pairs))
    elif isinstance(positions, Sequence | Tensor | np.ndarray | int | np.integer):
        return _listed(_plain(positions), positions, lengths, limits)
    raise ConfigError(f"positions {positions!r} asked; use {ASKED}.")


def _plain(positions: Any) -> Any:
    """Tensors, arrays and NumPy's own numbers as Python's lists and numbers."""
    if isinstance(positions, Tensor | np.ndarray | np.generic):
        return positions.tolist()
    if isinstance(positions, Sequence) and not isinstance(positions, str):
        return [_plain(one) for one in positions]
    return positions


def _listed(found: Any, asked: Any, lengths: Sequence[int], limits: Sequence[int]) -> Chosen:
    """Read an int, ints per prompt, or truth values per prompt and token; a mixture is none of them."""
    if type(found) is int:
        return _per_prompt([found] * len(lengths), lengths, limits)
    if isinstance(found, list) and all(type(one) is int for one in found) and found:
        return _per_prompt(found, lengths, limits)
    if isinstance(found, list) and found and all(isinstance(row, list) for row in found):
        kinds = {type(one) for row in found for one in row}
        if kinds == {bool}:
            return _masked(_ragged(found), lengths)
        if kinds <= {int}:
            return _several_each(found, lengths, limits)
    raise ConfigError(f"positions {asked!r} asked; use {ASKED}.")


def _several_each(wanted: list[list[int]], lengths: Sequence[int], limits: Sequence[int]) -> Chosen:
    _one_each(wanted, lengths)
    prompts = enumerate(zip(wanted, lengths, limits, strict=True))
    return Chosen(tuple(tuple(_inside(p, number, *ends) for p in row) for number, (row, *ends) in prompts))


def _sliced(positions: slice, length: int, limit: int) -> tuple[int, ...]:
    """Apply a slice: negative ends count from the prompt's end; an open end reaches the limit."""
    start, stop, step = positions.start, positions.stop, positions.step
    start = start + length if start is not None and start < 0 else start
    stop = stop + length if stop is not None and stop < 0 else stop
    start = max(start, 0) if start is not None else None
    stop = max(stop, 0) if stop is not None else None
    return tuple(range(limit))[slice(start, stop, step)]


def _per_prompt(wanted: list[int], lengths: Sequence[int], limits: Sequence[int]) -> Chosen:
    _one_each(wanted, lengths)
    prompts = enumerate(zip(wanted, lengths, limits, strict=True))
    return Chosen(tuple((_inside(p, number, *ends),) for number, (p, *ends) in prompts), single=True)


def _one_each(wanted: Sequence[Any], lengths: Sequence[int]) -> None:
    if len(wanted) != len(lengths):
        raise DataError(
            f"{counted(len(wanted), 'position')} for {counted(len(lengths), 'prompt')}. Give one per prompt."
        )


def _inside(position: int, prompt: int, length: int, limit: int) -> int:
    """A position counted from the start, refused where the prompt does not have it."""
    if not -length <= position < limit:
        raise DataError(
            f"position {position} asked, but prompt {prompt} has positions 0..{limit - 1} "
            "(-1 is the prompt's last)."
        )
    return position + length if position < 0 else position


def _ragged(rows: Sequence[Sequence[bool]]) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[bool(flag) for flag in row] + [False] * (width - len(row)) for row in rows])


def _masked(mask: Tensor, lengths: Sequence[int]) -> Chosen:
    if mask.ndim != 2 or mask.shape[0] != len(lengths):
        raise DataError(
            f"position mask has shape {tuple(mask.shape)}; give [batch pos] with "
            f"{counted(len(lengths), 'row')}."
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
    """The function that copies the chosen positions out of ``[batch pos ...]``, padded with zeros.

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
