"""Which characters of a text each token covers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from interp.errors import DataError

__all__ = ["encoded", "offsets_behind", "offsets_of"]

Offset = tuple[int, int]
WINDOW = 8
"""Tokens before one that decide how it is written."""
BROKEN = "\ufffd"
"""What stands for a part of a character."""


def encoded(text: str, tokenizer: Any) -> tuple[list[int], tuple[Offset, ...]] | None:
    """The tokens of a text without anything around it, and their characters; None without offsets."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(found["input_ids"])
    return ids, _filled(text, ids, [(int(a), int(b)) for a, b in found["offset_mapping"]], tokenizer)


def _filled(text: str, ids: list[int], offsets: list[Offset], tokenizer: Any) -> tuple[Offset, ...]:
    """Give blanks that a tokenizer leaves out of its offsets back to the tokens that hold them."""
    if all(before[1] >= after[0] for before, after in itertools.pairwise(offsets)):
        return tuple(offsets)
    found: list[Offset] = []
    for number, (start, stop) in enumerate(offsets):
        end = found[-1][1] if found else 0
        start = min(start, end) if text[end:start].isspace() else start
        after = offsets[number + 1][0] if number + 1 < len(offsets) else len(text)
        if after > stop and text[stop:after].isspace():
            own = str(tokenizer.decode([ids[number]]))
            stop += min(after - stop, len(own) - len(own.rstrip()) if own.strip() else 0)
        found.append((start, stop))
    return tuple(found)


def offsets_of(
    ids: Sequence[int], text: str, tokenizer: Any, *, name: str = "the prompt"
) -> tuple[Offset, ...]:
    """Per token the first character that it covers in a text, and the one after its last.

    Tokens that the tokenizer puts before a text, such as the beginning of sequence, cover no character.

    Args:
        ids: the tokens.
        text: that they stand for.
        tokenizer: the model's.
        name: the prompt, for the message.

    Raises:
        DataError: the tokens do not spell the text, so that nobody can say which character is where.
    """
    found = encoded(text, tokenizer)
    if found is not None:
        own, offsets = found
        before = len(ids) - len(own)
        if before >= 0 and list(ids[before:]) == own and _adds_nothing(ids[:before], tokenizer):
            return ((0, 0),) * before + offsets
    spelled = _by_decoding(list(ids), tokenizer)
    if spelled is None or spelled[0] != text:
        raise DataError(
            f"{name}: its {len(ids)} tokens do not spell its text, so that a selector cannot find characters "
            "in it. Give the text or the messages, or positions as numbers."
        )
    return spelled[1]


def _adds_nothing(ids: Sequence[int], tokenizer: Any) -> bool:
    return all(one in tokenizer.all_special_ids for one in ids)


def _by_decoding(ids: list[int], tokenizer: Any) -> tuple[str, tuple[Offset, ...]] | None:
    """The text of some tokens and the characters of each, by decoding them step by step."""
    whole, found = str(tokenizer.decode(ids)), _grown(ids, 0, tokenizer)
    return (whole, tuple(found)) if (found[-1][1] if found else 0) == len(whole) else None


def offsets_behind(
    before: Sequence[int], ids: Sequence[int], tokenizer: Any
) -> tuple[str, tuple[Offset, ...] | None]:
    """The text that some tokens add behind others, and per token the characters of it that it covers.

    Args:
        before: the tokens that stand before them.
        ids: the tokens.
        tokenizer: the model's.

    Returns:
        None in the place of the offsets where the tokens change the text before them.
    """
    whole, head = str(tokenizer.decode([*before, *ids])), str(tokenizer.decode(list(before)))
    if not whole.startswith(head):
        return str(tokenizer.decode(list(ids))), None
    found = _grown([*before, *ids], len(before), tokenizer)
    text = whole[len(head) :]
    return text, tuple(found) if (found[-1][1] if found else 0) == len(text) else None


def _grown(ids: list[int], first: int, tokenizer: Any) -> list[Offset]:
    """By how many characters the text grows with each token from one on."""
    at, found = 0, []
    for number in range(first, len(ids)):
        context = ids[max(0, number - WINDOW) : number]
        before = str(tokenizer.decode(context)).rstrip(BROKEN) if context else ""
        with_it = str(tokenizer.decode([*context, ids[number]])).rstrip(BROKEN)
        longer = at + len(with_it) - len(before)
        found.append((at, max(at, longer)))
        at = max(at, longer)
    return found
