"""The selected tokens of each message, and their states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from interp.conversations import parse
from interp.errors import DataError, counted
from interp.models.model import Model
from interp.models.tokens import Tokens
from probes.pooling import Sequences

__all__ = ["Messages", "messages_of", "states_of"]


@dataclass(frozen=True, eq=False)
class Messages:
    """Messages of conversations, each with the tokens that are read.

    Attributes:
        tokens: of all conversations.
        talk: per message its conversation.
        turn: per message its index there; -1 for a plain text.
        role: per message; "" for a plain text.
        positions: per message its selected tokens, in order.
    """

    tokens: Tokens
    talk: tuple[int, ...]
    turn: tuple[int, ...]
    role: tuple[str, ...]
    positions: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        """Count the messages."""
        return len(self.talk)

    @property
    def ids(self) -> list[tuple[int, ...]]:
        """Per message the selected tokens' ids."""
        rows = zip(self.talk, self.positions, strict=True)
        return [tuple(self.tokens.token_ids[talk][at] for at in where) for talk, where in rows]


def messages_of(model: Model, prompts: Sequence[Any], positions: str) -> Messages:
    """Select tokens, and divide them by message.

    Args:
        model: whose tokenizer writes the conversations.
        prompts: texts or conversations.
        positions: a selector; of a plain text ``all``.

    Raises:
        ConfigError: the text is no selector.
        DataError: it selects nothing in a conversation.
    """
    given = [list(prompt) if not isinstance(prompt, str) else prompt for prompt in prompts]
    tokens = model.tokenize(given)
    chosen = parse(positions).resolve(tokens, model.tokenizer)
    found: list[tuple[int, int, str, tuple[int, ...]]] = []
    for talk, row in enumerate(chosen):
        spans = tokens.spans[talk] if tokens.spans else None
        if spans is None:
            found.append((talk, -1, "", row))
            continue
        owner = {at: span for span in spans for at in range(span.start, span.stop)}
        turns: dict[int, list[int]] = {}
        for at in row:
            turn = owner[at].turn
            turns.setdefault(-1 if turn is None else turn, []).append(at)
        found += [(talk, turn, owner[ats[0]].role or "", tuple(ats)) for turn, ats in turns.items()]
    talks, numbers, roles, places = zip(*found, strict=True)
    return Messages(tokens, talks, numbers, roles, places)


def states_of(
    model: Model,
    messages: Messages,
    sites: Sequence[str],
    *,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> dict[str, Sequences]:
    """The states of the selected tokens of every message, in float32 on the CPU.

    Raises:
        DataError: states that are not finite.
    """
    wanted: list[list[int]] = [[] for _ in range(len(messages.tokens))]
    for talk, where in zip(messages.talk, messages.positions, strict=True):
        wanted[talk] += where
    rows = [sorted(set(row)) for row in wanted]
    acts = model.capture(
        messages.tokens,
        list(sites),
        rows,
        batch_size=batch_size,
        device="cpu",
        dtype=torch.float32,
        progress=progress,
    )
    column = [{at: number for number, at in enumerate(row)} for row in rows]
    places = [
        [column[talk][at] for at in where]
        for talk, where in zip(messages.talk, messages.positions, strict=True)
    ]
    found: dict[str, Sequences] = {}
    for site, tensor in acts.items():
        pairs = zip(messages.talk, places, strict=True)
        try:
            found[site] = Sequences.rows([tensor[talk, where].numpy() for talk, where in pairs])
        except ValueError as error:
            raise DataError(f"{site} of {counted(len(messages), 'message')}: {error}") from error
    return found
