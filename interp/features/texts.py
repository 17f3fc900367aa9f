"""The tokens that a dictionary is judged on, and which of them count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import ArtifactError, DataError
from interp.lenses.texts import drawn
from interp.models.gguf import cache
from interp.models.model import Model
from interp.results import read_json, write_json

__all__ = ["FIRST", "counted_positions", "parts", "texts_of"]

FIRST = 1
"""The first token of a text is left out: its state is far from all others' (an attention sink), and most
published dictionaries were trained without it."""
AT_ONCE = 16


def texts_of(
    model: Model, given: Sequence[str] | None, n: int, *, length: int = 64, seed: int = 0
) -> tuple[tuple[int, ...], ...]:
    """Token ids of texts: those that were given, or texts drawn from the model itself.

    Args:
        model: whose tokens.
        given: texts; None to draw them.
        n: how many at most.
        length: tokens of each at most.
        seed: of the draws.

    Raises:
        DataError: fewer than three texts have three tokens or more.
    """
    length = min(length, model.max_length or length)
    if given is None:
        rows = _own(model, n, length, seed)
    else:
        rows = tuple(ids[:length] for ids in model.tokenize(list(given)).token_ids)
    kept = tuple(dict.fromkeys(ids for ids in rows if len(ids) > FIRST + 1))[:n]
    if len(kept) < 3:
        raise DataError(
            f"{len(kept)} different texts of 3 tokens or more; a dictionary is judged on 3 at least."
        )
    return kept


def _own(model: Model, n: int, length: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Texts drawn from a model; they are kept in the user's cache, since drawing takes longest of all."""
    marks = f"1|{model.fingerprint}|{model.tokenizer_fingerprint}|{n}|{length}|{seed}"
    path = cache() / "dictionaries" / f"texts-{hashlib.sha256(marks.encode()).hexdigest()[:32]}.json"
    if path.is_file():
        with suppress(ArtifactError):
            return tuple(tuple(ids) for ids in read_json(path)["texts"])
    found = drawn(model, n_tokens=n * length, length=length, seed=seed)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json({"texts": found}, path)
    return found


def parts(texts: Sequence[Sequence[int]], size: int = AT_ONCE) -> Iterator[list[list[int]]]:
    """The texts in parts that fit into memory."""
    for at in range(0, len(texts), size):
        yield [list(ids) for ids in texts[at : at + size]]


def counted_positions(texts: Sequence[Sequence[int]], first: int = FIRST) -> Bool[Tensor, "text pos"]:
    """Which tokens count: all but the first of a text.

    Args:
        texts: token ids.
        first: the first position that counts.
    """
    lengths = torch.tensor([len(ids) for ids in texts])
    places = torch.arange(int(lengths.max()))
    return (places >= first) & (places < lengths[:, None])
