"""Spans: which tokens of a rendered conversation are whose, and which are the template's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Piece", "Span", "spans_of"]

Kind = Literal["template", "content", "thinking", "tool_call"]
Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True, order=True)
class Span:
    """Some tokens of one kind that stand together.

    Attributes:
        start: its first token.
        stop: the token after its last.
        kind: "template" for what the template writes; else "content", "thinking" or "tool_call".
        role: of the message; None where the template's tokens belong to no message.
        turn: the index of the message; None for no message, and for the beginning of an answer that is not
            there yet.
    """

    start: int
    stop: int
    kind: Kind
    role: str | None = None
    turn: int | None = None


@dataclass(frozen=True, order=True)
class Piece:
    """Some characters of one kind; pieces follow each other without a gap. Fields as in ``Span``."""

    start: int
    stop: int
    kind: Kind
    role: str | None = None
    turn: int | None = None


def spans_of(pieces: Sequence[Piece], offsets: Offsets) -> tuple[Span, ...]:
    """The spans of tokens that pieces of text make.

    A token that holds characters of several pieces belongs to the first of them that is no template: all
    characters of the messages are in tokens that are not the template's.

    Args:
        pieces: all the text, in order.
        offsets: per token its first character and the one after its last.
    """
    owners: list[int] = []
    at = 0
    for start, stop in offsets:
        while at + 1 < len(pieces) and pieces[at].stop <= start:
            at += 1
        touched = [at]
        while touched[-1] + 1 < len(pieces) and pieces[touched[-1] + 1].start < stop:
            touched.append(touched[-1] + 1)
        owners.append(next((one for one in touched if pieces[one].kind != "template"), at))
    spans: list[Span] = []
    for position, owner in enumerate(owners):
        piece = pieces[owner]
        if position and owners[position - 1] == owner:
            spans[-1] = Span(spans[-1].start, position + 1, piece.kind, piece.role, piece.turn)
        else:
            spans.append(Span(position, position + 1, piece.kind, piece.role, piece.turn))
    return tuple(spans)
