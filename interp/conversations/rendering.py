"""A conversation as its tokenizer's template writes it: exact ids, text, offsets and spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import Any, cast

from interp.conversations.messages import TOOLS, Leaf, check, leaves, tools_of
from interp.conversations.offsets import encoded
from interp.conversations.owners import Frame, template_pieces
from interp.conversations.placed import Keys, Placed, Render, Unplaced, place
from interp.conversations.spans import Kind, Piece, Span, spans_of
from interp.errors import ConfigError, DataError

__all__ = ["CONTINUE", "Rendered", "render"]

CONTINUE: tuple[str, ...] = ("auto", "answer", "message", "open", "none")
ENDINGS = {"answer": {"add_generation_prompt": True}, "message": {"continue_final_message": True}}
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it.

    Attributes:
        ids: exactly those of ``tokenizer.apply_chat_template``.
        text: that they stand for.
        offsets: per token its first character and the one after its last.
        spans: disjoint, in order, all tokens together.
        warnings: what a reader should know, such as a message that the template leaves out.
    """

    ids: tuple[int, ...]
    text: str
    offsets: tuple[tuple[int, int], ...]
    spans: tuple[Span, ...]
    warnings: tuple[str, ...] = ()


def render(
    messages: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    tools: Sequence[Any] | None = None,
    continue_: str = "auto",
    options: Mapping[str, Any] = NOTHING,
    name: str = "the conversation",
) -> Rendered:
    """Write a conversation with the tokenizer's template, and tell whose every token is.

    Spans come from further renders of the template with placeholders in place of the texts, never from
    looking for marks; that the parts found make up the text is checked.

    Args:
        messages: ``[{"role": ..., "content": ...}, ...]`` with what else the template knows, such as
            ``reasoning_content`` or ``tool_calls``. ``tools`` in one of them stand for the parameter.
        tokenizer: with a chat template.
        tools: what the template is told that the model may call: schemas or functions; for a conversation
            that does not say so itself.
        continue_: "answer" ends with the beginning of an answer (the generation prompt), "message" leaves the
            last message open, "none" closes it. Where the last message is the assistant's, "auto" is "none"
            and "open" is "message"; otherwise both are "answer".
        options: more settings that the template knows, such as ``{"enable_thinking": False}``.
        name: the conversation, for messages.

    Raises:
        DataError: no messages, a template that is missing or refuses them, or spans that cannot be told.
        ConfigError: ``continue_`` is none of the above.
    """
    check(messages, name)
    if continue_ not in CONTINUE:
        raise ConfigError(f"continue_ {continue_!r} asked; use {', '.join(map(repr, CONTINUE))}.")
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"{name} is a list of messages, but the tokenizer has no chat template. Give a text, load a chat "
            "model, or set tokenizer.chat_template."
        )
    plain = [{key: message[key] for key in message if key != TOOLS} for message in messages]
    own = tools_of(messages, name)
    tools = tools if own is None else own
    if continue_ in ("auto", "open"):
        begun = "none" if continue_ == "auto" else "message"
        continue_ = begun if plain[-1]["role"] == "assistant" else "answer"
    settings = {**options, "tools": list(tools) if tools is not None else None}
    ending = ENDINGS.get(continue_, {})
    whole = partial(_written, tokenizer, {**settings, **ending})
    text = _first(whole, plain, name)
    ids, offsets = _encoded(tokenizer, plain, text, {**settings, **ending}, name)
    keys = Keys.absent_from(text + str(plain))
    found, placed = _placed(plain, text, whole, keys, name)
    closed = partial(_written, tokenizer, settings)
    ends = (str(token or "") for token in (tokenizer.bos_token, tokenizer.eos_token))
    frame = Frame(plain, found, placed, text, closed, keys, continue_ == "answer", *ends)
    spans = spans_of(_pieces(frame), offsets)
    left_out = sorted({leaf.turn for leaf in found} - {one.leaf.turn for one in placed})
    warnings = [
        f"{name}: the chat template leaves out message {turn} ({plain[turn]['role']})." for turn in left_out
    ]
    if tools and whole(plain, tools=None) == text:
        warnings.append(f"{name}: the chat template leaves out its tools.")
    return Rendered(ids, text, offsets, spans, (*warnings, *_read_as_marks(ids, spans, tokenizer, name)))


def _written(tokenizer: Any, settings: Mapping[str, Any], messages: Sequence[Any], **other: Any) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **{**settings, **other}))


def _placed(
    messages: list[Any], text: str, whole: Render, keys: Keys, name: str
) -> tuple[list[Leaf], list[Placed]]:
    """The texts of a conversation and where they stand."""
    why = ""
    for opened in (True, False):
        found = leaves(messages, opened=opened)
        try:
            return found, place(messages, found, text, whole, keys)
        except Unplaced as error:
            why = why or str(error)
    raise DataError(
        f"{name}: the spans of its messages cannot be told, since the chat template does more than write "
        f"them: {why}. Give the rendered text, or change the texts or the template."
    )


def _encoded(
    tokenizer: Any, messages: list[Any], text: str, settings: Mapping[str, Any], name: str
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """The ids of transformers itself, and the characters of each, which only its text tells."""
    told = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **settings)
    ids = tuple(int(one) for one in told["input_ids"])
    known = encoded(text, tokenizer)
    if known is None:
        raise DataError(
            f"{name}: this tokenizer tells no characters of its tokens, so that the spans of messages are "
            "not known. Load the fast tokenizer of the model, or give the rendered text."
        )
    if tuple(known[0]) != ids:
        raise DataError(
            f"{name}: the tokenizer makes other tokens of the rendered text than its chat template does, so "
            "that the spans of messages are not known. Give the rendered text or the ids."
        )
    return ids, known[1]


def _first(whole: Any, messages: list[Any], name: str) -> str:
    """The rendered text; what the template says where it refuses the messages."""
    try:
        text = whole(messages)
    except Exception as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        why = str(error).rstrip(".") or type(error).__name__
        raise DataError(
            f"{name}: the chat template refuses these messages ({roles}): {why}. Change the roles or their "
            "order, or the fields that it reads."
        ) from error
    if not text:
        raise DataError(f"{name}: the chat template writes nothing for it. Check the roles of its messages.")
    return text


def _pieces(frame: Frame) -> list[Piece]:
    """All the text in pieces, in order; what stands between the parts of a tool call belongs to it."""
    own: list[Piece] = []
    before = None
    for one in frame.placed:
        leaf, kind = one.leaf, cast("Kind", one.leaf.kind)
        if before is not None and before.call == leaf.call >= 0 and before.turn == leaf.turn:
            own[-1] = replace(own[-1], stop=one.stop)
        else:
            own.append(Piece(one.start, one.stop, kind, str(frame.messages[leaf.turn]["role"]), leaf.turn))
        before = leaf
    between = (
        piece
        for piece in template_pieces(frame)
        if not any(one.start <= piece.start and piece.stop <= one.stop for one in own)
    )
    found = sorted([*own, *between], key=attrgetter("start"))
    borders = [0, *(piece.stop for piece in found)]
    assert borders == [*(piece.start for piece in found), len(frame.text)]
    return found


def _read_as_marks(ids: Sequence[int], spans: Sequence[Span], tokenizer: Any, name: str) -> list[str]:
    """Warn of texts that hold special tokens, which the tokenizer reads as such: so does transformers."""
    special = set(tokenizer.all_special_ids)
    found: dict[int | None, list[str]] = {}
    for span in spans:
        if span.kind != "template":
            words = [str(tokenizer.decode([one])) for one in ids[span.start : span.stop] if one in special]
            found.setdefault(span.turn, []).extend(words)
    return [
        f"{name}, message {turn}: its text holds {', '.join(map(repr, dict.fromkeys(words)))}, which the "
        "tokenizer reads as special tokens."
        for turn, words in found.items()
        if words
    ]
