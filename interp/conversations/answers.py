"""The spans of an answer that a model has written behind a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.conversations.messages import MARKS
from interp.conversations.offsets import Offset, offsets_of
from interp.conversations.spans import Piece, Span, spans_of
from interp.errors import DataError

__all__ = ["answered"]


def answered(
    spans: Sequence[Span], new_ids: Sequence[int], tokenizer: Any, *, prompt: str, offsets: Sequence[Offset]
) -> tuple[Span, ...]:
    """The spans of a conversation with an answer behind it.

    The tokens of the answer are an assistant's content; thinking where the answer, or the end of the prompt,
    opens it; and the template's where they are special tokens at its end.

    Args:
        spans: of the prompt.
        new_ids: the tokens that were added.
        tokenizer: the model's.
        prompt: the prompt's text, whose end says whether thinking is open: by the template, or by an answer
            that was begun.
        offsets: per token of the prompt its characters.
    """
    opening, closing = _mark_at_end(spans, prompt, offsets)
    known, turn = _begun(spans, closed_thinking=bool(closing and not opening))
    length, special = spans[-1].stop, set(tokenizer.all_special_ids)
    end = len(new_ids)
    while end and new_ids[end - 1] in special:
        end -= 1
    ids = list(new_ids[:end])
    text = str(tokenizer.decode(ids)) if ids else ""
    for start, stop, kind in _kinds(text, opening, ids, tokenizer):
        known.append(Span(length + start, length + stop, kind, "assistant", turn))
    if end < len(new_ids):
        known.append(Span(length + end, length + len(new_ids), "template", "assistant", turn))
    return tuple(known)


def _mark_at_end(spans: Sequence[Span], prompt: str, offsets: Sequence[Offset]) -> tuple[str, str]:
    """The marks of thinking at the end of a prompt, outside of what its messages say.

    Returns:
        The opening mark where thinking is open, and its closing mark; the closing mark alone where it is
        just closed.
    """
    last = spans[-1]
    thinks = last.kind == "thinking"
    head = (prompt[: offsets[last.start][0]] if thinks else prompt).rstrip()
    if next((one.kind for one in spans if offsets[one.stop - 1][1] >= len(head)), "") != "template":
        return "", ""
    for opening, closing in MARKS:
        if head.endswith(opening):
            return opening, closing
        if head.endswith(closing) and not thinks:
            return "", closing
    return "", ""


def _begun(spans: Sequence[Span], *, closed_thinking: bool) -> tuple[list[Span], int]:
    """The spans of a prompt whose end now belongs to the answer, and the answer's number."""
    turns = [one.turn for one in spans if one.turn is not None]
    last = spans[-1]
    if last.role == "assistant" and last.turn is not None:
        blank = all(one.kind == "template" for one in spans if one.turn == last.turn)
        if last.kind != "template" or blank or closed_thinking:  # the last message was left open
            return list(spans), last.turn
    turn = max(turns, default=-1) + 1
    first = len(spans)
    while first and spans[first - 1].turn is None and spans[first - 1].role == "assistant":
        first -= 1
    return [
        *spans[:first],
        *(Span(one.start, one.stop, one.kind, one.role, turn) for one in spans[first:]),
    ], turn


def _kinds(text: str, opened: str, ids: list[int], tokenizer: Any) -> list[tuple[int, int, Any]]:
    """The tokens of an answer by kind."""
    pieces = _pieces(text, opened)
    if len(pieces) <= 1:
        return [(0, len(ids), pieces[0].kind if pieces else "content")] if ids else []
    try:
        offsets = offsets_of(ids, text, tokenizer, name="the answer")
    except DataError:  # what was written is never lost for want of its parts
        return [(0, len(ids), "content")]
    return [(one.start, one.stop, one.kind) for one in spans_of(pieces, offsets)]


def _pieces(text: str, opened: str) -> list[Piece]:
    for opening, closing in MARKS:
        if opened != opening and (opened or not text.lstrip().startswith(opening)):
            continue
        begin = 0 if opened else text.index(opening) + len(opening)
        end = text.find(closing, begin)
        borders = [0, begin, len(text)] if end < 0 else [0, begin, end, end + len(closing), len(text)]
        kinds: list[Any] = ["template", "thinking", "template", "content"]
        parts = zip(borders, borders[1:], kinds, strict=False)
        return [Piece(start, stop, kind) for start, stop, kind in parts if stop > start]
    return [Piece(0, len(text), "content")] if text else []
