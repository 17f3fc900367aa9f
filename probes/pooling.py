"""From the selected tokens of a prompt to one score: the table of poolings, and the tokens they read.

Every pooling is a weighted mean: it gives each selected token a weight, and the score of the prompt is the
weighted mean of the scores of its tokens. For a linear probe that is the score of the weighted mean of their
states. A monitor that reads token by token gives the score of the tokens so far, so that its last score is
the one of the whole prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from probes.arrays import as_array
from probes.statistics.groups import counted

__all__ = ["POOLINGS", "Pooling", "PoolingRow", "Sequences", "read_pooling", "running"]

Scores = Float64[np.ndarray, "prompt pos output"]
Keys = Float64[np.ndarray, "prompt pos"]
Valid = Bool[np.ndarray, "prompt pos"]
Weigh = Callable[[Scores, Keys, Valid, int], Scores]


@dataclass(frozen=True)
class PoolingRow:
    """A pooling.

    Attributes:
        name: what users type (``--pooling``).
        description: one line.
        weigh: gives weights ``[prompt pos output]``, which add up to 1 over the tokens of a prompt, from the
            tokens' scores, their keys ``[prompt pos]``, which tokens there are, and the size.
        fixed: whether the weights depend on the number of tokens alone, so that the mean state can be learned
            from by any probe; the others are learned with their scores.
        keyed: whether the weights come from keys, a second learned direction.
        size: the number that may follow the name (``rolling-max:16``); 0 where none may.
    """

    name: str
    description: str
    weigh: Weigh
    fixed: bool = False
    keyed: bool = False
    size: int = 0


@dataclass(frozen=True)
class Pooling:
    """A row of the table with its size: what :func:`read_pooling` reads.

    Attributes:
        row: of :data:`POOLINGS`.
        size: of windows, or the half-life, in tokens; 0 where there is none.
    """

    row: PoolingRow
    size: int = 0

    def weights(self, scores: Scores, keys: Keys, valid: Valid) -> Scores:
        """The weight of every token; 0 where there is none.

        Args:
            scores: ``[prompt pos output]``.
            keys: ``[prompt pos]``; only ``attention`` reads them.
            valid: ``[prompt pos]``, whose true values come first.
        """
        return self.row.weigh(scores, keys, valid, self.size)

    def __call__(self, scores: Scores, keys: Keys, valid: Valid) -> Float64[np.ndarray, "prompt output"]:
        """The scores of whole prompts."""
        weights = self.weights(scores, keys, valid)
        return np.where(weights > 0, weights * scores, 0.0).sum(axis=1)

    def __str__(self) -> str:
        """The text that :func:`read_pooling` reads."""
        return f"{self.row.name}:{self.size}" if self.row.size else self.row.name


def read_pooling(text: str) -> Pooling:
    """Read ``mean``, ``max``, ``rolling-max:16``.

    Raises:
        ValueError: an unknown name, or a size that is not a whole number from 1 or that the pooling lacks.
    """
    name, sign, size = text.partition(":")
    row = POOLINGS.get(name)
    if row is None:
        raise ValueError(f"pooling {text!r} asked; the poolings are: {', '.join(POOLINGS)}.")
    if sign and not row.size:
        raise ValueError(f"pooling {text!r} asked, but {name} has no size; write {name!r}.")
    if sign and not (size.isdecimal() and int(size) >= 1):
        raise ValueError(f"pooling {text!r} asked; its size is a number of tokens from 1: {name}:{row.size}.")
    return Pooling(row, int(size) if sign else row.size)


def running(
    pooling: Pooling, scores: Float64[np.ndarray, "pos output"], keys: Float64[np.ndarray, " pos"]
) -> Float64[np.ndarray, "pos output"]:
    """The score of the tokens so far, after each token of one prompt."""
    found = np.empty_like(scores)
    for end in range(1, len(scores) + 1):
        valid = np.ones((1, end), dtype=bool)
        found[end - 1] = pooling(scores[None, :end], keys[None, :end], valid)[0]
    return found


@dataclass(frozen=True, eq=False)
class Sequences:
    """The states of the selected tokens of many prompts.

    Attributes:
        states: ``[prompt pos dim]``, the selected tokens of each prompt first, in order, then zeros.
        lengths: ``[prompt]``, selected tokens, one at least.
    """

    states: Float64[np.ndarray, "prompt pos dim"]
    lengths: Int[np.ndarray, " prompt"]

    @classmethod
    def of(cls, states: Any, mask: Any = None) -> Sequences:
        """Take states and a mask.

        Args:
            states: ``[prompt pos dim]``, a tensor or an array; it is not changed.
            mask: ``[prompt pos]``, true where a token is selected; all of them where left out.

        Raises:
            ValueError: wrong shapes, a prompt without a selected token, or selected states that are not
                finite.
        """
        table = _floats(states)
        if table.ndim != 3 or 0 in table.shape:
            raise ValueError(
                f"states have shape {table.shape}; give [prompt, pos, dim] with one token at least. Of one "
                "token per prompt: states[:, None]."
            )
        chosen = np.ones(table.shape[:2], dtype=bool) if mask is None else _truths(mask)
        if chosen.shape != table.shape[:2]:
            raise ValueError(
                f"the mask has shape {chosen.shape} for states of {table.shape}; give one truth value for "
                "every prompt and token."
            )
        lengths = chosen.sum(axis=1)
        if not lengths.all():
            empty = np.flatnonzero(lengths == 0)
            raise ValueError(
                f"{counted(len(empty), 'prompt has', 'prompts have')} no selected token, first prompt "
                f"{int(empty[0])}; select at least one in each, or leave those prompts out."
            )
        order = np.argsort(~chosen, axis=1, kind="stable")[:, : int(lengths.max())]
        kept = np.take_along_axis(table, order[:, :, None], axis=1)
        kept = np.where((np.arange(kept.shape[1]) < lengths[:, None])[:, :, None], kept, 0.0)
        wrong = np.flatnonzero(~np.isfinite(kept).all(axis=(1, 2)))
        if len(wrong):
            raise ValueError(
                f"the states of {counted(len(wrong), 'prompt')} are not finite (NaN or infinity), first "
                f"prompt {int(wrong[0])}; drop those prompts, or capture them in float32."
            )
        return cls(kept, lengths.astype(np.int64))

    @classmethod
    def rows(cls, rows: Sequence[Any]) -> Sequences:
        """Take ``[pos dim]`` states of each prompt, of any lengths.

        Raises:
            ValueError: as for :meth:`of`.
        """
        tables = [_floats(row) for row in rows]
        width, longest = tables[0].shape[-1], max(len(row) for row in tables)
        states = np.zeros((len(tables), longest, width))
        mask = np.zeros((len(tables), longest), dtype=bool)
        for at, row in enumerate(tables):
            states[at, : len(row)], mask[at, : len(row)] = row, True
        return cls.of(states, mask)

    def __len__(self) -> int:
        """Count the prompts."""
        return len(self.lengths)

    def __getitem__(self, rows: Any) -> Sequences:
        """Keep some prompts, by a slice, row numbers or a mask."""
        return Sequences(self.states[rows], self.lengths[rows])

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of prompts and of columns."""
        return len(self), self.states.shape[2]

    @property
    def valid(self) -> Valid:
        """``[prompt pos]``, true where there is a token."""
        return np.arange(self.states.shape[1]) < self.lengths[:, None]


def _floats(states: Any) -> np.ndarray:
    plain = states.detach().cpu().double().numpy() if hasattr(states, "detach") else states
    return as_array(plain, name="states").astype(np.float64)


def _truths(mask: Any) -> np.ndarray:
    plain = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    if plain.dtype != bool:
        raise ValueError(f"the mask holds {plain.dtype}; give truth values, for example mask.astype(bool).")
    return plain


def _like(weights: np.ndarray, scores: Scores) -> Scores:
    """``[prompt pos]`` weights for every output, in shares."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    return np.repeat(shares[:, :, None], scores.shape[2], axis=2)


def _last(scores: Scores, keys: Keys, valid: Valid, size: int) -> Scores:
    at = np.arange(valid.shape[1]) == valid.sum(axis=1, keepdims=True) - 1
    return _like(at.astype(np.float64), scores)


def _mean(scores: Scores, keys: Keys, valid: Valid, size: int) -> Scores:
    return _like(valid.astype(np.float64), scores)


def _max(scores: Scores, keys: Keys, valid: Valid, size: int) -> Scores:
    best = np.where(valid[:, :, None], scores, -np.inf).argmax(axis=1)
    return (np.arange(scores.shape[1])[None, :, None] == best[:, None]).astype(np.float64)


def _attention(scores: Scores, keys: Keys, valid: Valid, size: int) -> Scores:
    shown = np.where(valid, keys, -np.inf)
    return _like(np.exp(shown - shown.max(axis=1, keepdims=True)), scores)


def _rolling(scores: Scores, keys: Keys, valid: Valid, size: int) -> Scores:
    """The window of highest mean; a prompt shorter than a window is one window."""
    lengths = valid.sum(axis=1)
    window = np.minimum(size, lengths)[:, None]
    start = np.arange(scores.shape[1])[None]
    end = np.minimum(start + window, scores.shape[1])
    total = np.concatenate(
        [np.zeros_like(scores[:, :1]), np.where(valid[:, :, None], scores, 0).cumsum(1)], 1
    )
    means = np.take_along_axis(total, end[:, :, None], 1) - np.take_along_axis(total, start[:, :, None], 1)
    fits = (start + window <= lengths[:, None])[:, :, None]
    best = np.where(fits, means, -np.inf).argmax(axis=1)[:, None]
    at = np.arange(scores.shape[1])[None, :, None]
    inside = (at >= best) & (at < best + window[:, :, None])
    return inside / window[:, :, None].astype(np.float64)


def _exponential(scores: Scores, keys: Keys, valid: Valid, size: int) -> Scores:
    age = valid.sum(axis=1, keepdims=True) - 1 - np.arange(valid.shape[1])
    return _like(np.where(valid, 0.5 ** (np.maximum(age, 0) / size), 0.0), scores)


_ROWS = (
    PoolingRow("last", "the last selected token", _last, fixed=True),
    PoolingRow("mean", "the mean over selected tokens", _mean, fixed=True),
    PoolingRow("max", "the selected token with the highest score", _max),
    PoolingRow(
        "attention", "a mean weighted by the softmax of a second, learned direction", _attention, keyed=True
    ),
    PoolingRow("rolling-max", "the highest mean over so many tokens in a row", _rolling, size=8),
    PoolingRow(
        "exponential",
        "a mean in which a token counts half as much so many tokens later",
        _exponential,
        fixed=True,
        size=16,
    ),
)

POOLINGS: dict[str, PoolingRow] = {row.name: row for row in _ROWS}
