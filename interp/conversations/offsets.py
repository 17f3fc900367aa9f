"""Which characters of a text each token covers."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from interp.errors import DataError

__all__ = ["Offset", "encoded", "offsets_behind", "offsets_of"]

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
    whole = str(tokenizer.decode(ids))
    found = _grown(ids, 0, whole, tokenizer)
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
    text = whole[len(head) :]
    found = _grown([*before, *ids], len(before), text, tokenizer)
    return text, tuple(found) if (found[-1][1] if found else 0) == len(text) else None


def _grown(ids: list[int], first: int, text: str, tokenizer: Any) -> list[Offset]:
    """By how many characters the text grows with each token from one on.

    Tokens that hold a part of a character cover all of it, as in the offsets of a tokenizer. Some tokenizers
    write no character of a row of bytes before all of it is complete: so the text is measured at edges,
    behind which no part of a character is open.

    Args:
        ids: the tokens with those before them.
        first: the first that is asked for.
        text: that they add.
        tokenizer: the model's.
    """
    edges, edge = [_clear(ids, first, tokenizer)], first
    at = measured = 0
    found: list[Offset] = []
    parts: list[int] = []
    for number in range(first, len(ids)):
        context = edges[max(0, bisect_right(edges, edge - WINDOW) - 1)]
        before = str(tokenizer.decode(ids[context:edge])) if context < edge else ""
        with_it = str(tokenizer.decode(ids[context : number + 1]))
        added = with_it.rstrip(BROKEN)[len(before) + at - measured :]
        lost = len(added) - len(added.lstrip(BROKEN)) if parts else 0  # bytes that became no character
        if added:
            for one in parts:
                found[one] = (found[one][0], at + (lost or len(added)))
            parts = []
        found.append((at + lost, at + len(added)))
        at += len(added)
        if with_it.endswith(BROKEN):
            parts.append(number - first)
        else:
            parts, edge, measured = [], number + 1, at
            edges.append(edge)
    if text[at:] and not text[at:].strip(BROKEN):  # the text ends inside of a character
        for one in parts:
            found[one] = (found[one][0], len(text))
    return found


def _clear(ids: list[int], first: int, tokenizer: Any) -> int:
    """A token some way before one, and not in the middle of a character."""
    start = max(0, first - WINDOW)
    while start > max(0, first - 2 * WINDOW) and str(tokenizer.decode(ids[start:first])).startswith(BROKEN):
        start -= 1
    return start
