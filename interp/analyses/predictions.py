"""Next-token predictions of a model on prompts, kept small enough to be compared with another model's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import DataError
from interp.models.model import Model
from interp.models.tokens import Tokens

__all__ = ["Averages", "Predictions", "divergence", "predictions"]

MOST_NUMBERS = 1 << 26
"""Log-probabilities kept at most (256 MiB); beyond it, positions are left out, but never the last."""
MOST_LOGITS = 1 << 25
ROWS = 1024


@dataclass(frozen=True, eq=False)
class Averages:
    """Average distributions.

    Attributes:
        log_p: ``[average vocab]`` log-probabilities.
        index: which average belongs to each row of the predictions.
        rows: the rows whose average is over more than themselves.
    """

    log_p: Float[Tensor, "average vocab"]
    index: Int[np.ndarray, " row"]
    rows: Int[np.ndarray, " shared"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicts after the tokens of some prompts.

    Attributes:
        log_p: ``[row vocab]`` natural log-probabilities in float32, prompt after prompt, each from its last
            position backwards.
        owner: the prompt of each row.
        offset: how far from its prompt's end each row is; 0 for the last token.
        top: per prompt the most probable next token at every position.
        surprise: per prompt the mean negative log-probability of its tokens from the second on, in nats.
    """

    log_p: Float[Tensor, "row vocab"]
    owner: Int[np.ndarray, " row"]
    offset: Int[np.ndarray, " row"]
    top: tuple[Int[np.ndarray, " _"], ...]
    surprise: Float[np.ndarray, " item"]

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return int(self.log_p.shape[1])

    @cached_property
    def last(self) -> Float[Tensor, "item vocab"]:
        """The log-probabilities after each whole prompt."""
        return self.log_p[torch.from_numpy(np.flatnonzero(self.offset == 0))]

    def averages(self, tasks: Sequence[str]) -> Averages:
        """Average the distributions of all prompts of a task, place by place from the end.

        It is what somebody would predict who knows the task and the place, and not the prompt; a task of one
        prompt takes the average over all prompts.

        Args:
            tasks: of each prompt.
        """
        sizes = Counter(tasks)
        pools = [task if sizes[task] > 1 else None for task in tasks]
        keys = [(pools[i], int(k)) for i, k in zip(self.owner, self.offset, strict=True)]
        everything: dict[tuple[str | None, int], list[int]] = {}
        for row, (pool, k) in enumerate(keys):
            everything.setdefault((pool, k), []).append(row)
        for pool, k in [key for key in everything if key[0] is None]:
            everything[pool, k] = np.flatnonzero(self.offset == k).tolist()
        place = {key: at for at, key in enumerate(everything)}
        means = [torch.logsumexp(self.log_p[rows], dim=0) - np.log(len(rows)) for rows in everything.values()]
        index = np.array([place[key] for key in keys])
        shared = np.array([len(everything[key]) > 1 for key in keys])
        return Averages(torch.stack(means), index, np.flatnonzero(shared))

    def check(self, other: Predictions) -> Predictions:
        """These predictions, if the other ones are over the same vocabulary.

        Raises:
            DataError: they are not.
        """
        if self.log_p.shape != other.log_p.shape:
            raise DataError(
                f"the reference gives probabilities to {self.vocabulary} tokens, this model to "
                f"{other.vocabulary}; distributions can be compared over one vocabulary only."
            )
        return self


def predictions(model: Model, tokens: Tokens) -> Predictions:
    """Run a model on prompts and keep its predictions.

    Raises:
        DataError: a prompt of one token, which has nothing to predict.
    """
    short = next((i for i, length in enumerate(tokens.lengths) if length < 2), None)
    if short is not None:
        raise DataError(f"prompt {short} has one token, so that nothing in it is predicted; give it more.")
    offsets = _offsets(tokens.lengths, model.vocab_size)
    kept: dict[int, Tensor] = {}
    top: dict[int, np.ndarray] = {}
    surprise = np.empty(len(tokens))
    for rows in _chunks(tokens.lengths, model.vocab_size):
        logits = model.run([list(tokens.token_ids[i]) for i in rows], logits="all").logits
        assert logits is not None
        for at, i in enumerate(rows):
            ids = torch.tensor(tokens.token_ids[i])
            found = torch.log_softmax(logits[at, : len(ids)].cpu().double(), dim=-1)
            top[i] = found.argmax(dim=-1).numpy()
            surprise[i] = -float(found[:-1].gather(1, ids[1:, None]).mean())
            kept[i] = found.flip(0)[[k for k in offsets if k < len(ids)]].float()
    order = range(len(tokens))
    sizes = [[k for k in offsets if k < length] for length in tokens.lengths]
    return Predictions(
        log_p=torch.cat([kept[i] for i in order]),
        owner=np.repeat(np.arange(len(tokens)), [len(row) for row in sizes]),
        offset=np.concatenate([np.array(row, dtype=np.int64) for row in sizes]),
        top=tuple(top[i] for i in order),
        surprise=surprise,
    )


def _offsets(lengths: tuple[int, ...], vocabulary: int) -> list[int]:
    """The distances from the end that are kept: all, or evenly spaced ones where memory is short."""
    longest = max(lengths)
    most = max(1, MOST_NUMBERS // (vocabulary * len(lengths)))
    if most >= longest or sum(lengths) * vocabulary <= MOST_NUMBERS:
        return list(range(longest))
    return sorted({int(k) for k in np.linspace(0, longest - 1, most).round()})


def _chunks(lengths: tuple[int, ...], vocabulary: int) -> list[list[int]]:
    """Group prompts of similar length so that the logits of a group are few enough."""
    chunks: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not chunks or (len(chunks[-1]) + 1) * lengths[i] * vocabulary > MOST_LOGITS:
            chunks.append([])
        chunks[-1].append(i)
    return chunks


def divergence(
    first: Float[Tensor, "row vocab"],
    second: Float[Tensor, "other vocab"],
    index: Int[np.ndarray, " row"] | None = None,
) -> Float[np.ndarray, " row"]:
    """KL(first || second) in nats, row by row.

    Summed as ``p (exp(d) - 1 - d)`` with ``d = log q - log p``: every term is positive, so that rounding does
    not hide divergences below 1e-6, nor make them negative.

    Args:
        first: log-probabilities.
        second: log-probabilities.
        index: which row of ``second`` each row of ``first`` is compared with; the same where left out.
    """
    order = torch.arange(len(first)) if index is None else torch.from_numpy(index)
    found = np.empty(len(first))
    for start in range(0, len(first), ROWS):
        part = slice(start, start + ROWS)
        log_p, log_q = first[part].double(), second[order[part]].double()
        difference = log_q - log_p
        found[part] = (log_p.exp() * (torch.expm1(difference) - difference)).sum(dim=-1).numpy()
    return found
