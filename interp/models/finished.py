"""Prompts with what was written behind them: ids, texts and spans, and conversations with their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from interp.conversations import Span, answered
from interp.conversations.messages import is_conversation
from interp.conversations.offsets import offsets_behind, offsets_of
from interp.errors import DataError
from interp.models.tokens import Prompts, Tokens

__all__ = ["Conversation", "conversations_of", "finished", "with_answers"]

Conversation = tuple[Mapping[str, Any], ...]
Offsets = tuple[tuple[int, int], ...]


def conversations_of(prompts: Prompts) -> tuple[Conversation | None, ...]:
    """The conversations among prompts, None for others; () where there is none."""
    if is_conversation(prompts):
        return (tuple(prompts),)
    if not isinstance(prompts, list | tuple):
        return ()
    found = tuple(tuple(one) if is_conversation(one) else None for one in prompts)
    return found if any(found) else ()


def finished(
    tokens: Tokens, new: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase | None, *, located: bool
) -> Tokens:
    """Prompts with their new tokens; the texts spell all of them.

    Args:
        tokens: the prompts.
        new: what was written behind each.
        tokenizer: None for ids alone.
        located: whether the characters of every token are wanted, for selectors.
    """
    ids = tuple((*old, *more) for old, more in zip(tokens.token_ids, new, strict=True))
    if tokenizer is None:
        return replace(tokens, token_ids=ids, padding_side="right")
    tails = [offsets_behind(old, more, tokenizer) for old, more in zip(tokens.token_ids, new, strict=True)]
    texts = tuple(text + tail for text, (tail, _) in zip(tokens.texts, tails, strict=True))
    spans = tuple(
        None if own is None else answered(own, more, tokenizer, prompt=text, offsets=where or ())
        for own, more, text, where in zip(
            tokens.spans, new, tokens.texts, tokens.offsets, strict=bool(tokens.spans)
        )
    )
    offsets = (
        tuple(_offsets(tokens, row, tail, tokenizer) for row, (_, tail) in enumerate(tails))
        if located
        else ()
    )
    return replace(tokens, token_ids=ids, texts=texts, spans=spans, offsets=offsets, padding_side="right")


def _offsets(
    tokens: Tokens, row: int, tail: Offsets | None, tokenizer: PreTrainedTokenizerBase
) -> Offsets | None:
    """The characters of a prompt's own tokens and of the new ones; None where nobody can say."""
    known = tokens.offsets[row] if tokens.offsets else None
    if tail is None:
        return None
    text = tokens.texts[row]
    if known is None:
        try:
            known = offsets_of(tokens.token_ids[row], text, tokenizer)
        except DataError:
            return None  # a selector that needs them says so
    return (*known, *((start + len(text), stop + len(text)) for start, stop in tail))


def with_answers(
    conversations: Sequence[Conversation | None], full: Tokens, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[Conversation | None, ...]:
    """The conversations with what was written as the assistant's message, its thinking apart.

    Args:
        conversations: as they were given; None for other prompts.
        full: all tokens, with their spans.
        tokenizer: of the model.
    """
    if not conversations or tokenizer is None:
        return ()
    found: list[Conversation | None] = []
    for messages, ids, spans in zip(conversations, full.token_ids, full.spans, strict=True):
        found.append(
            None if messages is None or spans is None else _with_answer(messages, ids, spans, tokenizer)
        )
    return tuple(found)


def _with_answer(
    messages: Conversation, ids: Sequence[int], spans: Sequence[Span], tokenizer: PreTrainedTokenizerBase
) -> Conversation:
    begun = messages[-1]["role"] == "assistant"
    turn = len(messages) - begun
    said_in = [one for one in spans if one.turn is not None and one.turn >= turn]
    parts = {
        kind: str(
            tokenizer.decode(
                [token for one in said_in if one.kind == kind for token in ids[one.start : one.stop]]
            )
        )
        for kind in ("thinking", "content")
    }
    said = {"role": "assistant", "content": parts["content"].strip()}
    if parts["thinking"]:
        said["reasoning_content"] = parts["thinking"].strip()
    return (*messages[:turn], {**(messages[-1] if begun else {}), **said})
