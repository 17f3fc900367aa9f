"""The texts a lens is fitted on: drawn from the model itself, and texts that were given; some held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import DataError
from interp.models.model import Model

__all__ = ["LENGTH", "TOKENS", "Ids", "Texts", "drawn", "prepared"]

TOKENS = 16_384
"""Tokens that are drawn from the model where nothing is said.

Half of them is too few. Measured on SmolLM2, layer 24, 165 prompts ``a -> b`` that it answers right, with a
translator fitted on such text alone: named 0.891 from all, 0.867 on average from six halves (0.842 to 0.879;
all six were lower, two by more than the 95% interval of the difference); on held-out text 0.541 and 0.534.
"""
LENGTH = 64
"""Tokens of each text that is drawn."""
HELD_OUT = 0.125
"""The part of the texts, of those drawn and of those given, that is not learned from."""
AT_ONCE = 128
"""Texts that are drawn in one batch; it decides the draws, so it does not follow the machine."""
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Texts:
    """Token ids of texts to learn from, and of others to choose and judge on; no text is in both.

    Attributes:
        train: to learn from.
        held_out: to choose and to judge on.
        drawn: how many of both were drawn from the model.
        given: how many of both were given.
        seed: of the draws and of the division.
    """

    train: tuple[Ids, ...]
    held_out: tuple[Ids, ...]
    drawn: int
    given: int
    seed: int

    def card(self) -> dict[str, Any]:
        """What they are, as JSON types."""
        return {
            "texts": _origin(self.drawn, self.given),
            "drawn": self.drawn,
            "given": self.given,
            "train_tokens": sum(map(len, self.train)),
            "held_out_tokens": sum(map(len, self.held_out)),
            "seed": self.seed,
            "hash": self.hash,
        }

    @property
    def hash(self) -> str:
        """The sha256 of all ids."""
        return hashlib.sha256(json.dumps([self.train, self.held_out]).encode()).hexdigest()


def _origin(drawn: int, given: int) -> str:
    if not drawn:
        return "that were given"
    return "drawn from the model itself" + (", and given ones" if given else "")


def prepared(
    model: Model,
    given: Sequence[str] | None = None,
    *,
    n_tokens: int = TOKENS,
    length: int = LENGTH,
    seed: int = 0,
) -> Texts:
    """Draw texts from a model, add given ones, and hold some of each kind out.

    Args:
        model: whose texts.
        given: further texts, for example prompts like those that will be read.
        n_tokens: how many tokens to draw; 0 for none.
        length: of each text that is drawn, cut to what the model reads.
        seed: of the draws and of the division.

    Raises:
        DataError: fewer than two texts of any kind.
    """
    own = drawn(model, n_tokens=n_tokens, length=length, seed=seed) if n_tokens else ()
    limit = model.max_length
    others = dict.fromkeys(ids[:limit] for ids in (model.tokenize(list(given)).token_ids if given else ()))
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in (tuple(dict.fromkeys(own)), tuple(others)) if kind]
    parts = [_divided(kind, rng) for kind in kinds if len(kind) > 1]
    if not parts or len(parts) < len(kinds):
        found = " and ".join(str(len(kind)) for kind in kinds) or "no"
        raise DataError(f"{found} different texts for a lens; give at least 2, some of which are held out.")
    train = tuple(ids for part, _ in parts for ids in part)
    held_out = tuple(ids for _, part in parts for ids in part)
    return Texts(train, held_out, len(own), len(others), seed)


def _divided(texts: tuple[Ids, ...], rng: np.random.Generator) -> tuple[list[Ids], list[Ids]]:
    order = rng.permutation(len(texts)).tolist()
    n = max(1, round(HELD_OUT * len(texts)))
    return [texts[row] for row in sorted(order[n:])], [texts[row] for row in sorted(order[:n])]


def drawn(model: Model, *, n_tokens: int, length: int, seed: int) -> tuple[Ids, ...]:
    """Draw texts from a model at temperature 1, half from its beginning token, half from single other tokens.

    A model without a beginning token starts from single tokens alone. A text ends with the model's end of
    text or at ``length``, so that fewer tokens than asked may come.

    Args:
        model: what writes.
        n_tokens: about how many tokens.
        length: of each text.
        seed: of the first tokens and of the draws.
    """
    length = max(2, min(length, model.max_length or length))
    starts = list(_starts(model, max(2, round(n_tokens / length)), seed))
    found: list[Ids] = []
    for at in range(0, len(starts), AT_ONCE):
        part = starts[at : at + AT_ONCE]
        rest = model.generate(
            part, max_new_tokens=length - 1, batch_size=AT_ONCE, temperature=1.0, seed=seed + at
        )
        found += [(*start, *new) for start, new in zip(part, rest.token_ids, strict=True)]
    return tuple(found)


def _starts(model: Model, n: int, seed: int) -> Iterator[list[int]]:
    tokenizer = model.tokenizer
    begin: Any = None if tokenizer is None else tokenizer.bos_token_id
    special = frozenset() if tokenizer is None else frozenset(tokenizer.all_special_ids)
    size = model.vocab_size if tokenizer is None else min(model.vocab_size, len(tokenizer))
    others = [token for token in range(size) if token not in special] or list(range(size))
    drawn = np.random.default_rng(seed).choice(others, size=n, replace=n > len(others)).tolist()
    for number, token in enumerate(drawn):
        yield [int(begin)] if begin is not None and number % 2 else [int(token)]
