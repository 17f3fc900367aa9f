"""Which tokens of which prompts a run has read: kept beside its data, and printed with the tokens marked."""

from __future__ import annotations

import json
from io import TextIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.conversations.selectors import SHOWN, Selection, select
from interp.errors import ConfigError, DataError, counted
from interp.report.escape import rich_text
from interp.report.terminal import console

if TYPE_CHECKING:
    from interp.models import Model, Tokens

__all__ = ["FILE", "read_selection", "selected_table", "write_selection"]

FILE = "selected.parquet"
"""Where a run keeps it."""
STYLES = ("black on yellow", "black on bright_yellow")
"""Of tokens in turn, so that the border between two is seen."""


def selected_table(model: Model, tokens: Tokens, where: str | int, *, keep_text: bool) -> dict[str, Any]:
    """The table of a run's selected tokens, by its file name; none for all tokens, or without texts.

    Args:
        model: whose tokenizer tells the characters.
        tokens: the prompts.
        where: "last", an index, or a selector.
        keep_text: whether texts may be kept.
    """
    import pandas

    if where == "all" or not keep_text or model.tokenizer is None:
        return {}
    try:
        found = select(str(where), tokens, model.tokenizer)
    except DataError:  # ids that spell no text: their tokens have no characters
        return {}
    columns = {
        "row": range(len(found)),
        "selector": [found.selector] * len(found),
        "text": list(found.texts),
        "positions": [json.dumps(row) for row in found.positions],
        "characters": [json.dumps(row) for row in found.characters],
    }
    return {FILE: pandas.DataFrame(columns)}


def read_selection(run: Path) -> Selection:
    """What a run has selected.

    Raises:
        ConfigError: the run has kept none.
    """
    import pandas

    if not (run / FILE).is_file():
        raise ConfigError(
            f"--positions: {str(run)!r} keeps no selected tokens. Runs of `interp capture` keep them, unless "
            "all tokens were read or --no-text was given."
        )
    rows = pandas.read_parquet(run / FILE)
    positions = tuple(tuple(json.loads(row)) for row in rows["positions"])
    characters = tuple(tuple((a, b) for a, b in json.loads(row)) for row in rows["characters"])
    return Selection(str(rows["selector"].iloc[0]), tuple(rows["text"]), positions, characters)


def write_selection(selection: Selection, stream: TextIOBase | None = None) -> None:
    """Print prompts with their selected tokens in colour; between double brackets away from a terminal."""
    out = console(stream)
    out.print(rich_text(str(selection).split("\n", 1)[0], style="bold"))
    for number in range(min(len(selection), SHOWN)):
        line, at = rich_text(f"{number}: "), 0
        for text, own in selection.pieces(number):
            shown = text if not own or out.is_terminal else f"\u27e6{text}\u27e7"
            line.append_text(rich_text(shown, style=STYLES[at % 2] if own else ""))
            at += own
        out.print(line)
    if len(selection) > SHOWN:
        out.print(rich_text(f"and {counted(len(selection) - SHOWN, 'prompt')} more"))
