"""What all looks at one prompt share: its tokens, and the same tokens in other orders, their control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.errors import DataError, counted
from interp.models.model import Model
from interp.models.tokens import Tokens

__all__ = ["Prompt", "fixed_start", "read", "shuffled"]

Prompt = Any
"""A text, a conversation (a list of mappings with ``role`` and ``content``), or token ids."""


def read(model: Model, prompt: Prompt, *, least: int, most: int) -> Tokens:
    """The tokens of one prompt.

    Args:
        model: whose tokenizer.
        prompt: what is read.
        least: tokens that it must have.
        most: tokens that it may have.

    Raises:
        DataError: it has fewer or more.
    """
    tokens = model.tokenize([prompt])
    n = tokens.lengths[0]
    if not least <= n <= most:
        raise DataError(
            f"the prompt has {counted(n, 'token')}; {least} to {most} can be looked at. Give a "
            f"{'longer' if n < least else 'shorter'} one."
        )
    return tokens


def fixed_start(model: Model, ids: Sequence[int]) -> int:
    """How many special tokens the prompt begins with: a shuffle leaves them where they are."""
    special = set(getattr(model.tokenizer, "all_special_ids", ()))
    return next((at for at, token in enumerate(ids) if token not in special), len(ids))


def shuffled(ids: Sequence[int], start: int, rng: np.random.Generator) -> list[int]:
    """The ids with those from ``start`` on in another order; the same order where there is no other."""
    head, tail = list(ids[:start]), list(ids[start:])
    if len(set(tail)) < 2:
        return head + tail
    while True:
        drawn = [tail[at] for at in rng.permutation(len(tail))]
        if drawn != tail:
            return head + drawn
