"""Make text from data safe to print: no control character reaches the terminal, nothing is markup."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.text

__all__ = ["one_line", "printable", "rich_text"]

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories written as escapes: controls, direction marks, lone surrogates, line separators."""

NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: object) -> str:
    r"""Write control characters, direction overrides and the like as escapes.

    Example:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if (character.isascii() and character.isprintable()) or unicodedata.category(character) not in UNSEEN:
        return character
    if character in NAMED:
        return NAMED[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def one_line(text: object, width: int | None = None) -> str:
    """Write text on one line, escaped, and cut to a width with an ellipsis where one is given."""
    line = " ".join(printable(part) for part in str(text).split())
    return line if width is None or len(line) <= width else line[: max(width - 1, 0)] + "…"


def rich_text(text: object, style: str = "") -> rich.text.Text:
    """Text from data as a rich ``Text``, which is never parsed as markup."""
    from rich.text import Text

    return Text(printable(text), style=style)
