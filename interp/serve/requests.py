"""What a view asks for: fields with their kinds and bounds, and a request read by them. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from interp.errors import ConfigError, DataError

__all__ = ["Field", "conversation", "read_request"]

LETTERS = 20_000
"""Letters of a text, at most."""
ROLES = ("system", "user", "assistant")
Kind = Literal["long", "text", "choice", "whole", "number", "flag"]


@dataclass(frozen=True)
class Field:
    """One thing that a view asks for.

    Attributes:
        name: in the request.
        label: as people read it.
        kind: ``long`` and ``text`` (of several lines, of one), ``choice``, ``whole``, ``number``, ``flag``.
        default: its value where it is not given.
        help: a few words more.
        choices: of a choice.
        low: the least number.
        high: the largest.
        needed: whether it may not be empty.
        when: name of a choice and its values, separated by blanks, under which it is asked for.
    """

    name: str
    label: str
    kind: Kind = "text"
    default: Any = ""
    help: str = ""
    choices: Sequence[str] = ()
    low: int | float = 0
    high: int | float = 1e6
    needed: bool = False
    when: tuple[str, str] = ("", "")

    def described(self) -> dict[str, Any]:
        """It as JSON types."""
        return asdict(self)

    def read(self, value: Any) -> Any:
        """A value of this field.

        Raises:
            ConfigError: it is of another kind, or out of bounds.
            DataError: a text with letters that are none.
        """
        if self.kind in ("text", "long"):
            return self._text(value)
        if self.kind == "choice":
            if value not in self.choices:
                raise ConfigError(f"{self.label}: {value!r:.80} asked; there are: {', '.join(self.choices)}.")
            return value
        if self.kind == "flag":
            if not isinstance(value, bool):
                raise ConfigError(f"{self.label}: {value!r:.80} asked; give true or false.")
            return value
        return self._number(value)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ConfigError(f"{self.label}: a {type(value).__name__} given; give a text.")
        if len(value) > LETTERS:
            raise DataError(f"{self.label}: {len(value):,} letters; at most {LETTERS:,} are taken.")
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in value):
            raise DataError(f"{self.label}: half of a pair of letters (a lone surrogate). Take it out.")
        if self.needed and not value.strip():
            raise ConfigError(f"{self.label}: nothing given. Write something.")
        return value

    def _number(self, value: Any) -> int | float:
        whole = self.kind == "whole"
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not right or not math.isfinite(value) or not self.low <= value <= self.high:
            what = "a whole number" if whole else "a number"
            raise ConfigError(
                f"{self.label}: {value!r:.80} asked; give {what} of {self.low:g} to {self.high:g}."
            )
        return value


def read_request(fields: Sequence[Field], content: Any) -> dict[str, Any]:
    """Every field of a request; what is not given has its default.

    Args:
        fields: that a view asks for.
        content: what came.

    Raises:
        ConfigError: no mapping, an unknown name, or a wrong value.
        DataError: a text that cannot be read.
    """
    if not isinstance(content, Mapping):
        raise ConfigError("the request is no mapping; give names with values.")
    known = {one.name: one for one in fields}
    if unknown := [name for name in content if name not in known]:
        raise ConfigError(f"{unknown[0]!r:.80} is not asked for; there are: {', '.join(known)}.")
    return {name: one.read(content.get(name, one.default)) for name, one in known.items()}


def conversation(text: str) -> list[dict[str, str]]:
    """Messages of a text: lines that begin with ``user:``, ``assistant:`` or ``system:`` begin one.

    Args:
        text: without such a line it is one message of the user.
    """
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        role, colon, rest = line.partition(":")
        if colon and role.strip().lower() in ROLES:
            found.append({"role": role.strip().lower(), "content": rest.strip()})
        elif found:
            found[-1]["content"] += f"\n{line}"
        else:
            return [{"role": "user", "content": text}]
    return found
