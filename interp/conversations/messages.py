"""A conversation: what is allowed in it, and the texts inside that a template writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import DataError

__all__ = [
    "MARKS",
    "TOOLS",
    "Leaf",
    "check",
    "is_conversation",
    "leaves",
    "replaced",
    "tools_of",
    "transcript",
    "with_tools",
]

MARKS: tuple[tuple[str, str], ...] = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""What stands around thinking where it is written into the content of an assistant's message."""
THINKING = ("reasoning_content", "thinking", "reasoning")
"""Fields of a message that hold its thinking; transformers copies one to the others."""
TOOLS = "tools"
"""Field of one of the messages that holds what the template is told that the model may call."""
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Leaf:
    """One text of a message, or one value of a tool call.

    Attributes:
        turn: the index of the message.
        path: the keys that lead to the field inside the message.
        start: where the text begins in the field.
        stop: where it ends.
        kind: "content", "thinking" or "tool_call".
        value: the text; a number or truth value of a tool call as it is.
        call: which tool call of the message; -1 for none.
    """

    turn: int
    path: Path
    start: int
    stop: int
    kind: str
    value: Any
    call: int = -1


def is_conversation(item: Any) -> bool:
    """Whether a prompt is a list of messages."""
    return (
        isinstance(item, Sequence)
        and not isinstance(item, str | bytes)
        and bool(item)
        and all(isinstance(one, Mapping) for one in item)
    )


def check(messages: Any, name: str) -> None:
    """Refuse what is no conversation.

    Raises:
        DataError: naming the conversation, the message and what it lacks.
    """
    if not is_conversation(messages):
        raise DataError(f"{name} is no list of messages; give a list of {{'role': ..., 'content': ...}}.")
    for turn, message in enumerate(messages):
        place, role = f"{name}, message {turn}", message.get("role")
        if not isinstance(role, str) or not role.strip():
            found = f"the role {role!r}" if "role" in message else f"only {', '.join(map(repr, message))}"
            raise DataError(
                f"{place} has {found}; every message needs a 'role' such as 'system', 'user' or 'assistant'."
            )
        content = message.get("content")
        if content is None and not any(message.get(key) for key in ("tool_calls", *THINKING)):
            raise DataError(f"{place} ({role}) has no 'content'; give a text, '' for none, or 'tool_calls'.")
        if content is not None and not isinstance(content, str) and not _is_parts(content):
            raise DataError(
                f"{place} ({role}): its 'content' is a {type(content).__name__}; give a text, or a list of "
                "{'type': 'text', 'text': ...}."
            )
    tools_of(messages, name)


def with_tools(messages: Sequence[Mapping[str, Any]], tools: Any, name: str) -> list[dict[str, Any]]:
    """Messages that carry what the model may call in their first one, as ``render`` reads it.

    Args:
        messages: a conversation.
        tools: schemas, as transformers takes them; None for none.
        name: the conversation, for messages.

    Raises:
        DataError: the tools are no list of objects, or a message has tools of its own already.
    """
    found = [dict(message) for message in messages]
    if tools is None:
        return found
    if any(TOOLS in message for message in found):
        raise DataError(f"{name} has 'tools' beside its messages and in one of them; keep one.")
    found[0][TOOLS] = tools
    tools_of(found, name)
    return found


def tools_of(messages: Sequence[Mapping[str, Any]], name: str) -> list[Any] | None:
    """What a conversation says that the model may call; None where it says nothing.

    Raises:
        DataError: it is no list of schemas, or is said in two messages.
    """
    found = [message[TOOLS] for message in messages if message.get(TOOLS) is not None]
    if len(found) > 1:
        raise DataError(f"{name} has 'tools' in {len(found)} of its messages; keep them in the first.")
    if not found:
        return None
    if not isinstance(found[0], list | tuple) or not all(isinstance(one, Mapping) for one in found[0]):
        raise DataError(
            f"{name}: its 'tools' are no list of schemas; give [{{'type': 'function', 'function': {{'name': "
            "..., 'parameters': ...}}]."
        )
    return list(found[0])


def _is_parts(content: Any) -> bool:
    return (
        isinstance(content, Sequence)
        and not isinstance(content, bytes)
        and all(
            isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in content
        )
    )


def transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """What is said in a conversation, for people and for audits: each message behind its role."""
    return "\n".join(
        f"{one['role']}: {' '.join(str(leaf.value) for leaf in leaves([one]))}" for one in messages
    )


def leaves(messages: Sequence[Mapping[str, Any]], *, opened: bool = True) -> list[Leaf]:
    """Every text of a conversation that its template may write, in order; blank ones are left out.

    Args:
        messages: the conversation.
        opened: whether thinking inside of a content begins with its mark; if not, it may also begin where
            the content does, and only ends with its mark.
    """
    every = enumerate(messages)
    found = [leaf for turn, message in every for leaf in _of_message(turn, message, opened=opened)]
    return [leaf for leaf in found if not isinstance(leaf.value, str) or leaf.value.strip()]


def _of_message(turn: int, message: Mapping[str, Any], *, opened: bool) -> Iterator[Leaf]:
    name = next((key for key in THINKING if isinstance(message.get(key), str)), None)
    if name is not None:
        text = message[name]
        yield Leaf(turn, (name,), 0, len(text), "thinking", text)
    content = message.get("content")
    if isinstance(content, str):
        yield from _of_content(turn, content, message["role"], opened=opened)
    elif content is not None:
        for number, part in enumerate(content):
            path = ("content", number, "text")
            yield Leaf(turn, path, 0, len(part["text"]), "content", part["text"])
    for number, call in enumerate(message.get("tool_calls") or ()):
        yield from _of_value(turn, ("tool_calls", number), call, number)


def _of_content(turn: int, text: str, role: str, *, opened: bool) -> Iterator[Leaf]:
    """The content of a message; an assistant's begins with its thinking where marks stand around it."""
    path = ("content",)
    for opening, closing in MARKS if role == "assistant" else ():
        before, mark, rest = text.partition(closing)
        begins = before.lstrip().startswith(opening)
        if mark and (begins or not (opened or opening in before)):
            start = len(before) - len(before.lstrip()) + len(opening) if begins else 0
            thought = text[start : len(before)]
            start, stop = start + len(thought) - len(thought.lstrip()), len(before.rstrip())
            yield Leaf(turn, path, start, max(start, stop), "thinking", text[start:stop])
            start = len(text) - len(rest.lstrip())
            yield Leaf(turn, path, start, len(text), "content", text[start:])
            return
        if begins:  # not closed yet: an answer that was begun, or cut
            start = text.index(opening) + len(opening)
            start += len(text[start:]) - len(text[start:].lstrip())
            yield Leaf(turn, path, start, len(text), "thinking", text[start:])
            return
    yield Leaf(turn, path, 0, len(text), "content", text)


CALL_FIELDS = ("name", "arguments", "function")


def _of_value(turn: int, path: Path, value: Any, call: int) -> Iterator[Leaf]:
    """The name and the arguments of a tool call, value by value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if len(path) > 2 or key in CALL_FIELDS:
                yield from _of_value(turn, (*path, key), inner, call)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _of_value(turn, (*path, number), inner, call)
    elif path[-1] != "type":
        yield Leaf(turn, path, 0, len(value) if isinstance(value, str) else 0, "tool_call", value, call)


def replaced(
    messages: Sequence[Mapping[str, Any]], found: Sequence[Leaf], written: Callable[[int], Any]
) -> list[Any]:
    """The conversation with other texts in the place of its leaves; the original stays as it is.

    Args:
        messages: the conversation.
        found: its leaves, or some of them.
        written: from the number of a leaf to what stands in its place.
    """
    copied = [_copy(message) for message in messages]
    for number in reversed(range(len(found))):  # from the end, so that earlier places of a field stay
        leaf = found[number]
        holder = copied[leaf.turn]
        for key in leaf.path[:-1]:
            holder = holder[key]
        old, new = holder[leaf.path[-1]], written(number)
        if isinstance(old, str):
            new = old[: leaf.start] + str(new) + old[leaf.stop :]
        holder[leaf.path[-1]] = new
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(inner) for inner in value]
    return value
