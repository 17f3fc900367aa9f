"""Pairs of a contrast from a file of the user's, and their division into fitting and evaluation."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.conversations.messages import with_tools
from interp.errors import DataError, counted
from interp.steering.fitting import Prompt, question_of
from interp.steering.vector import hashed
from interp.tasks.files import cell, rows_of

__all__ = ["Contrast", "read_pairs"]

SIDES = ("positive", "negative")
KEPT = 0.4
"""The part of the pairs that nothing is fitted on."""
FEWEST = 8


@dataclass(frozen=True)
class Contrast:
    """Pairs of prompts.

    Attributes:
        positive: prompts that have what is looked for.
        negative: one for each that has not.
        name: where they come from.
    """

    positive: tuple[Prompt, ...]
    negative: tuple[Prompt, ...]
    name: str = ""

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.positive)

    def divided(self, seed: int = 0) -> tuple[Contrast, Contrast]:
        """Pairs to fit on, and others to evaluate on, each pair once.

        A text, or a question of conversations whatever the answer, is on one side alone.

        Args:
            seed: of the draw.

        Raises:
            DataError: fewer than 8 different positive texts, or questions of conversations.
        """
        up, down = ([hashed(question_of(one)) for one in side] for side in (self.positive, self.negative))
        different = list(dict.fromkeys(up))
        if len(different) < FEWEST:
            raise DataError(
                f"{self.name or 'the contrast'} holds {counted(len(different), 'different positive prompt')} "
                f"(conversations count by what comes before the answer); {FEWEST} are the fewest that can be "
                "fitted and evaluated on. Give more."
            )
        random.Random(f"steering:{seed}").shuffle(different)
        kept = frozenset(different[: max(FEWEST // 2, round(KEPT * len(different)))])
        once = list({hashed(pair): at for at, pair in enumerate(self._pairs())}.values())
        held = [at for at in once if up[at] in kept]
        shared = kept | {down[at] for at in held}
        fitted = [at for at in once if up[at] not in shared and down[at] not in shared]
        return self._of(fitted), self._of(held)

    def _pairs(self) -> list[tuple[Prompt, Prompt]]:
        return list(zip(self.positive, self.negative, strict=True))

    def _of(self, rows: Sequence[int]) -> Contrast:
        up, down = (tuple(side[at] for at in rows) for side in (self.positive, self.negative))
        return Contrast(up, down, self.name)


def read_pairs(path: str | Path) -> Contrast:
    """Read pairs of texts or conversations.

    Args:
        path: a ``.jsonl``, ``.csv`` or ``.tsv`` file in UTF-8 with the columns ``positive`` and
            ``negative``: texts, or in JSON lines lists of messages, with ``tools`` of both beside them.

    Raises:
        DataError: no such file, a missing column, an empty cell, or a pair of two equal sides; the message
            names the line.
    """
    path = Path(path)
    found = [
        (line, *(_prompt(path, line, row, side) for side in SIDES)) for line, row in rows_of(path, SIDES)
    ]
    for line, up, down in found:
        if up == down:
            raise DataError(f"'{path}' line {line}: both sides are the same; remove the line, or change one.")
    return Contrast(tuple(up for _, up, _ in found), tuple(down for _, _, down in found), path.name)


def _prompt(path: Path, line: int, row: Mapping[str, object], side: str) -> Prompt:
    value: Any = row.get(side)
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        return with_tools(value, row.get("tools"), f"'{path}' line {line}")
    return cell(path, line, row, side)
