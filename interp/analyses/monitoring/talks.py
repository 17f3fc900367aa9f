"""Conversations with labels, and where each comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp.conversations.messages import with_tools
from interp.errors import ConfigError, DataError, counted
from interp.paths import objects, text_of
from interp.tasks.prompts import text_sha256

__all__ = ["Talks", "read_talks"]

Prompt = str | tuple[Mapping[str, Any], ...]
"""A text, or messages ``{"role": ..., "content": ...}``."""


@dataclass(frozen=True)
class Talks:
    """Conversations, or plain texts, with what is known of each.

    Attributes:
        name: of the data.
        prompts: a text or a tuple of messages each.
        labels: one each; "" where there is none.
        groups: what must not straddle a split, one each.
        sources: where each comes from; "" where that is not said.
    """

    name: str
    prompts: tuple[Any, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        """Count the conversations."""
        return len(self.prompts)

    @property
    def texts(self) -> tuple[str, ...]:
        """The words of each, without roles."""
        return tuple(_words(prompt) for prompt in self.prompts)

    @property
    def described(self) -> dict[str, Any]:
        """What a result says about them."""
        rows = [self.texts, self.labels, self.groups, self.sources]
        return {
            "name": self.name,
            "n": len(self),
            "groups": len(set(self.groups)),
            "labels": sorted(set(self.labels)),
            "sources": len(set(filter(None, self.sources))),
            "fingerprint": hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest(),
        }

    def select(self, rows: Sequence[int]) -> Talks:
        """Keep some, in the order given."""
        columns = (self.prompts, self.labels, self.groups, self.sources)
        kept = [tuple(column[row] for row in rows) for column in columns]
        return Talks(self.name, kept[0], kept[1], kept[2], kept[3])

    def positions(self, asked: str, chats: str) -> str:
        """The selector asked for; where there is none, all tokens of texts and some of conversations.

        Args:
            asked: a selector, or "".
            chats: what is read of conversations.

        Raises:
            ConfigError: none was asked, and there are both texts and conversations.
        """
        texts = sum(isinstance(prompt, str) for prompt in self.prompts)
        if not asked and 0 < texts < len(self):
            raise ConfigError(
                f"'{self.name}' has {counted(texts, 'plain text')} and "
                f"{counted(len(self) - texts, 'conversation')}, and no selector was asked for; give "
                "positions that both have, such as 'content', or texts alone or conversations alone."
            )
        return asked or ("all" if texts else chats)

    def hashes(self) -> frozenset[str]:
        """The sha256 of every text: what tells whether two sets share one."""
        return frozenset(map(text_sha256, self.texts))

    def named(self, name: str) -> Talks:
        """The same under another name."""
        return replace(self, name=name)


def _words(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    parts = [message.get("content") or "" for message in prompt]
    return "\n".join(part if isinstance(part, str) else json.dumps(part) for part in parts)


def read_talks(*paths: str | Path, labelled: bool = True, name: str = "") -> Talks:
    """Read conversations from files of JSON lines.

    Args:
        *paths: each line an object with ``messages`` (a list of ``{role, content}``; beside it ``tools``,
            what the model may call) or ``text``, and with ``label``; ``group`` and ``source`` where wanted.
            A file without sources is one, by its name; a line without a group is one, by its number and the
            file's contents.
        labelled: whether labels are needed.
        name: of the data; the first file's where left out.

    Raises:
        DataError: no such file, an empty one, or a line that lacks something; the message names the line.
    """
    rows: list[tuple[Any, str, str, str]] = []
    for path in map(Path, paths):
        if path.suffix.lower() not in (".jsonl", ".ndjson"):
            raise DataError(f"'{path}' ends in '{path.suffix}'; conversations are read from .jsonl files.")
        text = text_of(path)
        unit = f"{path.stem}-{text_sha256(text)[:12]}"
        found = [_row(path, line, row, labelled, unit) for line, row in objects(path, text)]
        if not found:
            raise DataError(f"'{path}' holds no conversation; write one object with 'messages' a line.")
        rows += found
    prompts, labels, groups, sources = zip(*rows, strict=True)
    return Talks(name or Path(paths[0]).stem, prompts, labels, groups, sources)


def _row(
    path: Path, line: int, row: Mapping[str, Any], labelled: bool, unit: str
) -> tuple[Any, str, str, str]:
    place = f"'{path}' line {line}"
    label = row.get("label")
    if labelled and (label is None or not str(label).strip()):
        raise DataError(f'{place} has no \'label\'; give one, such as "label": "deceptive".')
    messages, text = row.get("messages"), row.get("text")
    if isinstance(messages, list) and messages and all(isinstance(one, dict) for one in messages):
        prompt: Any = tuple(with_tools(messages, row.get("tools"), place))
    elif isinstance(text, str) and text.strip():
        prompt = text
    else:
        raise DataError(
            f"{place} has neither 'messages' nor 'text'; give "
            '{"messages": [{"role": "user", "content": "..."}], "label": "..."}.'
        )
    group = row.get("group")
    return (
        prompt,
        "" if label is None else str(label).strip(),
        f"{unit}-{line}" if group in (None, "") else str(group),
        str(row.get("source") or path.stem),
    )


def check_two(talks: Talks, alarm: str) -> None:
    """Refuse labels that are not two, one of them the alarm's.

    Raises:
        DataError: naming the labels there are.
    """
    known = sorted(set(talks.labels))
    if len(known) != 2 or alarm not in known:
        asked = f"the alarm {alarm!r} asked" if alarm else "no alarm was named"
        raise DataError(
            f"{asked}; a monitor tells two labels apart and raises an alarm for one, and "
            f"'{talks.name}' has {counted(len(known), 'label')}: {', '.join(known[:6])}. Name one of two."
        )
