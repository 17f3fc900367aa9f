"""Tokens as words: with the blank that many of them begin with, and visible where they are only blanks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from interp.models.model import Model

__all__ = ["shown", "words_of"]

BLANK = "\u2581"
"""How sentencepiece writes a blank: its tokenizers leave it out when they decode one token."""


def words_of(model: Model, tokens: Iterable[int]) -> tuple[str, ...]:
    """The text of each token by itself, with its leading blank; its number where there is no tokenizer.

    Args:
        model: whose tokenizer.
        tokens: their ids; ids beyond the tokenizer's own stand as numbers.
    """
    known: dict[int, str] = {}
    found = []
    for token in map(int, tokens):
        if token not in known:
            known[token] = _word(model.tokenizer, token)
        found.append(known[token])
    return tuple(found)


def _word(tokenizer: Any, token: int) -> str:
    if tokenizer is None or not isinstance(piece := tokenizer.convert_ids_to_tokens(token), str):
        return f"[{token}]"
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    if piece.startswith(BLANK) and not text.startswith(" "):
        return f" {text}"
    return text or piece


def shown(word: str) -> str:
    """A token's text without the blanks around it, in which something can be seen, as a new line's escape.

    Args:
        word: as :func:`words_of` gives it.
    """
    text = word.strip(" ")
    return text if text and text.isprintable() else repr(text or word)[1:-1] or "''"
