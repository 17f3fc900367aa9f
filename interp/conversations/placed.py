"""Where the texts of a conversation stand in what a template made of it, found by rendering placeholders.

Two ways, each of which proves itself on the real text: placeholders instead of the texts (what the template
writes around them, with the texts put back, must be the real text), and placeholders put into the middle of
the texts (what is left without them must be the real text), for templates that look into the texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from interp.conversations.messages import Leaf, replaced

__all__ = ["Keys", "Placed", "Unplaced", "place"]

Render = Callable[[Sequence[Any]], str]


class Unplaced(Exception):
    """Say why texts cannot be found; the caller makes the message whole."""


@dataclass(frozen=True)
class Placed:
    """A text of a conversation in the rendered text.

    Attributes:
        leaf: the text.
        start: its first character.
        stop: the one after its last.
    """

    leaf: Leaf
    start: int
    stop: int


@dataclass(frozen=True)
class Keys:
    """Placeholders that occur nowhere else: letters and digits, without blanks around."""

    salt: str

    @classmethod
    def absent_from(cls, text: str) -> Keys:
        """Make keys that a text does not contain."""
        number = 0
        while f"q{number}zk" in text:
            number += 1
        return cls(f"q{number}zk")

    def of(self, number: int) -> str:
        """The placeholder of the leaf with a number."""
        return f"{self.salt}{number:06d}kz"


def place(
    messages: Sequence[Any], found: Sequence[Leaf], text: str, render: Render, keys: Keys
) -> list[Placed]:
    """Find every text of a conversation in the rendered text, in the text's order.

    A text that the template leaves out is not among them.

    Args:
        messages: the conversation.
        found: its leaves.
        text: what the template made of it.
        render: the template with all its settings.
        keys: placeholders.

    Raises:
        Unplaced: neither way proves itself.
    """
    try:
        return _instead(messages, found, text, render, keys)
    except Unplaced as first:
        try:
            return _inside(messages, found, text, render, keys)
        except Unplaced:
            raise first from None


def _order(rendered: str, found: Sequence[Leaf], keys: Keys) -> list[tuple[int, int]]:
    """(place, number) of every key that was written, in order of place."""
    order = []
    for number, leaf in enumerate(found):
        places = [hit.start() for hit in re.finditer(keys.of(number), rendered)]
        if len(places) > 1 and leaf.kind != "tool_call":  # results of tools may name the call again
            raise Unplaced("it writes the same text twice")
        order += [(at, number) for at in places]
    return sorted(order)


def _instead(
    messages: Sequence[Any], found: Sequence[Leaf], text: str, render: Render, keys: Keys
) -> list[Placed]:
    rendered = render(replaced(messages, found, keys.of))
    literals, order, end = [], [], 0
    for at, number in _order(rendered, found, keys):
        stop = at + len(keys.of(number))
        quoted = rendered[at - 1 : at] == rendered[stop : stop + 1] == '"'
        if quoted and not isinstance(found[number].value, str):
            at, stop = at - 1, stop + 1  # a number is written without the marks of its placeholder
        literals.append(rendered[end:at])
        order.append(number)
        end = stop
    literals.append(rendered[end:])
    if not text.startswith(literals[0]):
        raise Unplaced("what it writes around the messages depends on their texts")
    at, placed = len(literals[0]), []
    for number, literal in zip(order, literals[1:], strict=True):
        leaf = found[number]
        fits = (one for one in _forms(leaf.value) if text.startswith(one + literal, at))
        form = next(fits, None)
        if form is None:
            raise Unplaced(f"it changes the text of message {leaf.turn}, or what stands around it")
        if form and leaf not in {one.leaf for one in placed}:
            placed.append(Placed(leaf, at, at + len(form)))
        at += len(form) + len(literal)
    if at != len(text):
        raise Unplaced("what it writes around the messages depends on their texts")
    return placed


def _forms(value: Any) -> list[str]:
    """How a value may be written, longest first: as it is, without blanks at its ends, or inside of JSON."""
    if not isinstance(value, str):
        return list(dict.fromkeys([json.dumps(value), str(value)]))
    escaped = [json.dumps(value, ensure_ascii=ascii)[1:-1] for ascii in (False, True)]
    trimmed = [form for one in (value, *escaped) for form in (one, one.lstrip(), one.rstrip(), one.strip())]
    lines = [value.strip("\n"), value.lstrip("\n"), value.rstrip("\n")]
    return sorted(dict.fromkeys([*trimmed, *lines]), key=len, reverse=True)


def _inside(
    messages: Sequence[Any], found: Sequence[Leaf], text: str, render: Render, keys: Keys
) -> list[Placed]:
    texts = [leaf for leaf in found if isinstance(leaf.value, str)]
    halves = [_halves(leaf.value) for leaf in texts]
    rendered = render(replaced(messages, texts, lambda n: keys.of(n).join(halves[n])))
    order = _order(rendered, texts, keys)
    bare = rendered
    for _, number in order:
        bare = bare.replace(keys.of(number), "", 1)
    gone = [leaf for number, leaf in enumerate(texts) if number not in {number for _, number in order}]
    if bare != text or (gone and render(replaced(messages, gone, keys.of)) != text):
        raise Unplaced("what it writes around the messages depends on their texts")
    placed = []
    for count, (place, number) in enumerate(order):
        at = place - count * len(keys.of(number))
        left, right = halves[number]
        before = next((one for one in _forms(left) if text[:at].endswith(one)), None)
        after = next((one for one in _forms(right) if text.startswith(one, at)), None)
        if before is None or after is None:
            raise Unplaced(f"it changes the text of message {texts[number].turn}")
        if texts[number] not in {one.leaf for one in placed}:
            placed.append(Placed(texts[number], at - len(before), at + len(after)))
    return placed


def _halves(text: str) -> tuple[str, str]:
    """Cut a text in the middle of what is no blank."""
    start = len(text) - len(text.lstrip())
    middle = start + len(text.strip()) // 2
    return text[:middle], text[middle:]
