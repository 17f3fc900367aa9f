"""Whose the characters are that the template writes itself, told by renders of fewer messages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp.conversations.messages import Leaf, replaced
from interp.conversations.placed import Keys, Placed, Render
from interp.conversations.spans import Piece

__all__ = ["Frame", "template_pieces"]


@dataclass(frozen=True)
class Frame:
    """What is known of a rendered conversation when its template's characters are shared out.

    Attributes:
        messages: the conversation.
        leaves: its texts.
        placed: where they stand, in order.
        text: the rendered text.
        closed: the template, closing the last message.
        keys: placeholders that do not occur in the text.
        answers: whether the text ends with the beginning of an answer.
        bos: the token that begins a sequence, as text; "" for none.
        eos: the token that ends one, which some templates write behind the last message of all.
    """

    messages: Sequence[Any]
    leaves: Sequence[Leaf]
    placed: Sequence[Placed]
    text: str
    closed: Render
    keys: Keys
    answers: bool
    bos: str
    eos: str


@dataclass(frozen=True)
class _End:
    """Where a message ends; ``alone`` tells that the messages before it back to the last end are in it."""

    turn: int
    at: int
    alone: bool = True


def template_pieces(frame: Frame) -> list[Piece]:
    """The characters outside of the placed texts, each with its message."""
    ends = _ends(frame)
    borders: list[tuple[int, str | None, int | None]] = []  # (stop, role, turn)
    for number, end in enumerate(ends):
        role, turn = (str(frame.messages[end.turn]["role"]), end.turn) if end.alone else (None, None)
        if number == 0 and end.alone and (preamble := _preamble(frame, ends)):
            borders.append((preamble, None, None))
        borders.append((end.at, role, turn))
    done = ends[-1].turn if ends else -1
    if frame.answers and done == len(frame.messages) - 1:
        borders.append((len(frame.text), "assistant", None))
    borders.append((len(frame.text), None, None))
    return [piece for gap in _gaps(frame) for piece in _cut(gap, borders)]


def _gaps(frame: Frame) -> list[tuple[int, int]]:
    at, found = 0, []
    for one in frame.placed:
        found.append((at, one.start))
        at = one.stop
    return [*found, (at, len(frame.text))]


def _cut(gap: tuple[int, int], borders: Sequence[tuple[int, str | None, int | None]]) -> list[Piece]:
    at, stop = gap
    pieces = []
    for border, role, turn in borders:
        if at < stop and at < border:
            pieces.append(Piece(at, min(stop, border), "template", role, turn))
            at = min(stop, border)
    return pieces


def _ends(frame: Frame) -> list[_End]:
    """Where messages end, of those of which it can be told."""
    found: list[_End] = []
    alone = True
    for turn in range(len(frame.messages)):
        at, merged = _end(frame, turn)
        if at is None or (found and at < found[-1].at):
            alone = alone and merged
            continue
        found.append(_End(turn, at, alone))
        alone = True
    return found


def _end(frame: Frame, turn: int) -> tuple[int | None, bool]:
    """Where a message ends; and, where that is not known, whether a later message has taken it in."""
    own = [one for one in frame.placed if one.leaf.turn == turn]
    later = [one.start for one in frame.placed if one.leaf.turn > turn]
    low, high = max((one.stop for one in own), default=0), min(later, default=len(frame.text))
    try:
        written = frame.closed(frame.messages[: turn + 1])
    except Exception:  # a template may refuse fewer messages than it was made for
        return _before_header(frame, turn), False
    if turn == len(frame.messages) - 1 and written.startswith(frame.text):
        return len(frame.text), True  # left open
    for whole in _without_end(frame, written):
        if frame.text.startswith(whole) and low <= len(whole) <= high:
            return len(whole), True
    tail = _tail(frame, turn)
    if tail is None or not own:
        return None, tail is None
    behind = min((one.start for one in frame.placed if one.start >= own[-1].stop), default=len(frame.text))
    for ending in _without_end(frame, tail):
        if frame.text[own[-1].stop : behind].startswith(ending):
            return own[-1].stop + len(ending), True
    return _before_header(frame, turn), False


def _before_header(frame: Frame, turn: int) -> int | None:
    """Where the header of the next message begins, if the template writes it as it does elsewhere."""
    own = [one.stop for one in frame.placed if one.leaf.turn == turn]
    following = [one.start for one in frame.placed if one.leaf.turn == turn + 1]
    if not own or not following or max(own) > min(following):
        return None
    header = _made_header(frame, str(frame.messages[turn + 1]["role"]))
    fits = header and frame.text[max(own) : min(following)].endswith(header)
    return min(following) - len(header) if fits else None


def _without_end(frame: Frame, written: str) -> list[str]:
    """What was written, and the same without the end of a sequence."""
    bare = written.removesuffix(frame.eos) if frame.eos else written
    return list(dict.fromkeys([written, bare]))


def _tail(frame: Frame, turn: int) -> str | None:
    """What the template writes behind the last text of a message that ends a conversation."""
    written = frame.closed(replaced(frame.messages, frame.leaves, frame.keys.of)[: turn + 1])
    places = {leaf.turn: 0 for leaf in frame.leaves}
    last, behind = -1, -1
    for number, leaf in enumerate(frame.leaves):
        at = written.rfind(frame.keys.of(number))
        if at > last:
            last, behind = at, leaf.turn
            places[leaf.turn] = at + len(frame.keys.of(number))
    return written[places[turn] :] if last >= 0 and behind == turn else None


def _preamble(frame: Frame, ends: Sequence[_End]) -> int:
    """How many characters stand before the first message: what the template writes for the whole."""
    first = frame.placed[0].start if frame.placed else 0
    opening = frame.text[: min(first, ends[0].at)]
    role = str(frame.messages[ends[0].turn]["role"])
    header = _later_header(frame, ends, role) or _made_header(frame, role)
    if header and opening.endswith(header):
        return len(opening) - len(header)
    return len(frame.bos) if frame.bos and opening.startswith(frame.bos) else 0


def _later_header(frame: Frame, ends: Sequence[_End], role: str) -> str:
    for before, end in itertools.pairwise(ends):
        if end.alone and frame.messages[end.turn]["role"] == role:
            starts = [one.start for one in frame.placed if before.at <= one.start < end.at]
            return frame.text[before.at : min(starts)] if starts else ""
    return ""


def _made_header(frame: Frame, role: str) -> str:
    """The header of a role where it does not come first, from a conversation made up for it."""
    other = "user" if role != "user" else "assistant"
    for roles in ((role, other, role), (other, role), (role, role)):
        made = [{"role": one, "content": frame.keys.of(number)} for number, one in enumerate(roles)]
        try:
            before, whole = frame.closed(made[:-1]), frame.closed(made)
        except Exception:
            continue
        key = frame.keys.of(len(made) - 1)
        for begun in _without_end(frame, before):
            if whole.startswith(begun) and key in whole:
                return whole[len(begun) : whole.index(key)]
    return ""
