"""What a selector is made of: sets of tokens of one prompt, and how they are combined."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from interp.conversations.offsets import offsets_of
from interp.conversations.spans import Span
from interp.errors import DataError, counted

__all__ = ["ATOMS", "Atom", "Combined", "Index", "Node", "Part", "Prompt", "Sliced"]

SENTENCE = re.compile(
    r"\S.*?(?:[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s|$)"
    r"|[\u3002\uff01\uff1f]+[\"'\u201d\u2019\u300d\u300f\uff09)\]]*|(?=\n\s*\n)|$)",
    re.DOTALL,
)
"""A sentence ends with its mark before a blank (Chinese and Japanese ones need none), at an empty line, or
where the text ends."""


@dataclass(eq=False)
class Prompt:
    """One prompt, as selectors look at it.

    Attributes:
        name: for messages.
        ids: its tokens.
        text: that they stand for.
        tokenizer: the model's; None where there is none.
        spans: of a conversation; None for a plain text.
        known: its offsets, where they are known already.
        new: how many tokens will follow it.
    """

    name: str
    ids: Sequence[int]
    text: str
    tokenizer: Any
    spans: Sequence[Span] | None = None
    known: Sequence[tuple[int, int]] | None = None
    new: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Number of tokens that are there."""
        return len(self.ids)

    @property
    def future(self) -> frozenset[int]:
        """The tokens that will follow."""
        return frozenset(range(self.length, self.length + self.new))

    @cached_property
    def offsets(self) -> Sequence[tuple[int, int]]:
        """The characters of every token."""
        if self.known is not None:
            return self.known
        if self.tokenizer is None:
            raise DataError(
                f"{self.name} has no text, since the model has no tokenizer: select its tokens by numbers, "
                "'last' or 'all', or load the model with a tokenizer."
            )
        return offsets_of(self.ids, self.text, self.tokenizer, name=self.name)

    @cached_property
    def special(self) -> frozenset[int]:
        """Ids that stand for no text, such as the beginning of sequence; not the one for unknown words."""
        if self.tokenizer is None:
            return frozenset()
        ends = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        unknown = {self.tokenizer.unk_token_id} - ends
        return frozenset(self.tokenizer.all_special_ids) - unknown

    @property
    def sentences(self) -> list[tuple[int, int]]:
        """As ``parts``, without the special tokens around a plain text."""
        own = [at for at, token in enumerate(self.ids) if token not in self.special]
        if self.spans is not None or not own:
            return self.parts
        return [(self.offsets[own[0]][0], self.offsets[own[-1]][1])]

    @cached_property
    def parts(self) -> list[tuple[int, int]]:
        """The texts of the messages, as characters: the whole of a plain text."""
        if self.spans is None:
            return [(0, len(self.text))]
        bounds = [self.offsets[span.start : span.stop] for span in self.spans if span.kind != "template"]
        return [(min(a for a, _ in one), max(b for _, b in one)) for one in bounds]

    def told(self, what: str) -> Sequence[Span]:
        """The spans; only a conversation has them.

        Raises:
            DataError: for a plain text.
        """
        if self.spans is None:
            raise DataError(
                f"{what!r} asks for messages, but {self.name} is a plain text: {self.shown}. Give a list of "
                "messages, or select by text:, regex:, sentence:, token: or numbers."
            )
        return self.spans

    @property
    def shown(self) -> str:
        """The text on one line, in its quotation marks; the middle of a long one left out."""
        text = self.text if len(self.text) <= 400 else f"{self.text[:250]} ... {self.text[-140:]}"
        return json.dumps(text, ensure_ascii=False)

    def covering(self, ranges: Sequence[tuple[int, int]]) -> frozenset[int]:
        """The tokens that hold at least one character of some ranges."""
        starts, stops = ([offset[end] for offset in self.offsets] for end in (0, 1))
        found: set[int] = set()
        for low, high in ranges:  # offsets are in order
            inside = range(bisect_right(stops, low), bisect_left(starts, high))
            found.update(token for token in inside if starts[token] < stops[token])
        return frozenset(found)


class Node:
    """A part of a selector."""

    def tokens(self, prompt: Prompt) -> frozenset[int]:
        """The tokens of a prompt that it selects."""
        raise NotImplementedError

    def ordered(self, prompt: Prompt) -> list[int]:
        """These tokens in order."""
        return sorted(self.tokens(prompt))


@dataclass(frozen=True)
class Index(Node):
    """One token by number, from the end where negative; ``last`` is -1."""

    at: int

    def tokens(self, prompt: Prompt) -> frozenset[int]:
        """The token.

        Raises:
            DataError: the prompt does not have it.
        """
        if not -prompt.length <= self.at < prompt.length + prompt.new:
            raise DataError(
                f"position {self.at} asked, but {prompt.name} has positions 0..{prompt.length - 1}: "
                f"{prompt.shown}. Use 'last' or a slice such as [-3:], which takes what is there."
            )
        return frozenset([self.at + prompt.length if self.at < 0 else self.at])

    def __str__(self) -> str:
        """As it is written."""
        return str(self.at)


@dataclass(frozen=True)
class Part(Node):
    """Tokens by a word of the table ``ATOMS``, with its value."""

    word: str
    value: Any = None
    which: int | None = None

    def tokens(self, prompt: Prompt) -> frozenset[int]:
        """The tokens."""
        return ATOMS[self.word].tokens(prompt, self)

    def __str__(self) -> str:
        """As it is written."""
        if self.value is None:
            return self.word
        atom = ATOMS[self.word]
        value = str(self.value)
        if atom.takes == "text":
            value = json.dumps(value, ensure_ascii=False)
        if atom.takes == "regex":
            value = f"/{value.replace('/', chr(92) + '/')}/"
        if atom.takes == "word" and not re.fullmatch(r"[\w.]+", value):
            value = json.dumps(value, ensure_ascii=False)
        return f"{self.word}:{value}" + (f"#{self.which}" if self.which is not None else "")


@dataclass(frozen=True)
class Combined(Node):
    """Two sets: both (``|``), what they share (``&``), or the first without the second (``-``)."""

    sign: str
    left: Node
    right: Node

    def tokens(self, prompt: Prompt) -> frozenset[int]:
        """The tokens."""
        left, right = self.left.tokens(prompt), self.right.tokens(prompt)
        return {"|": left | right, "&": left & right, "-": left - right}[self.sign]

    def __str__(self) -> str:
        """As it is written, with brackets only where they are needed."""
        rank = {"|": 0, "&": 1, "-": 2}
        left = rank[self.left.sign] < rank[self.sign] if isinstance(self.left, Combined) else False
        right = rank[self.right.sign] <= rank[self.sign] if isinstance(self.right, Combined) else False
        first, second = (
            f"({self.left})" if left else str(self.left),
            f"({self.right})" if right else str(self.right),
        )
        return f"{first} {self.sign} {second}"


@dataclass(frozen=True)
class Sliced(Node):
    """Some of the tokens of a set by their number in it: one, or those of a slice."""

    of: Node
    start: int | None = None
    stop: int | None = None
    step: int | None = None
    one: bool = False

    def tokens(self, prompt: Prompt) -> frozenset[int]:
        """The tokens: negative numbers count from the end of those that are there already."""
        every = self.of.ordered(prompt)
        there = sum(one < prompt.length for one in every)
        start, stop = (_counted(end, there) for end in (self.start, self.stop))
        if self.one:
            assert start is not None
            return frozenset(every[start : start + 1] if start >= 0 else [])
        start, stop = (None if end is None else max(end, 0) for end in (start, stop))
        return frozenset(every[start : stop : self.step])

    def __str__(self) -> str:
        """As it is written."""
        inner = f"({self.of})" if isinstance(self.of, Combined | Index) else str(self.of)
        inner = "" if self.of == Part("all") and not self.one else inner
        if self.one:
            return f"{inner}[{self.start}]"
        ends = ["" if end is None else str(end) for end in (self.start, self.stop)]
        return f"{inner}[{':'.join(ends)}{'' if self.step is None else f':{self.step}'}]"


def _counted(end: int | None, there: int) -> int | None:
    return end + there if end is not None and end < 0 else end


@dataclass(frozen=True)
class Atom:
    """A word of the grammar.

    Attributes:
        takes: what follows its colon: "" for nothing, "word", "number", "text" or "regex".
        counted: whether ``#2`` may follow, for the second of what is found.
        tokens: the tokens of a prompt.
        example: how it is written.
        meaning: in a few words.
    """

    takes: str
    tokens: Callable[[Prompt, Part], frozenset[int]]
    example: str
    meaning: str
    counted: bool = False


def _all(prompt: Prompt, part: Part) -> frozenset[int]:
    return frozenset(range(prompt.length)) | prompt.future


def _last(prompt: Prompt, part: Part) -> frozenset[int]:
    return frozenset([prompt.length - 1])


def _where(spans: Sequence[Span]) -> frozenset[int]:
    return frozenset(token for span in spans for token in range(span.start, span.stop))


def _role(prompt: Prompt, part: Part) -> frozenset[int]:
    spans = prompt.told(str(part))
    roles = list(dict.fromkeys(span.role for span in spans if span.role is not None))
    if part.value not in roles:
        prompt.notes.append(f"its roles are {', '.join(map(repr, roles))}")
    found = _where([span for span in spans if span.role == part.value])
    return found | prompt.future if part.value == "assistant" else found


def _turn(prompt: Prompt, part: Part) -> frozenset[int]:
    spans = prompt.told(str(part))
    turns = sorted({span.turn for span in spans if span.turn is not None})
    turn = part.value if part.value >= 0 else turns[-1] + 1 + part.value
    if turn not in turns:
        prompt.notes.append(f"its turns are {turns[0]}..{turns[-1]} (-1 is the last)")
    return _where([span for span in spans if span.turn == turn])


def _think(prompt: Prompt, part: Part) -> frozenset[int]:
    spans = prompt.told(part.word)
    if not any(span.kind == "thinking" for span in spans):
        prompt.notes.append("it has no thinking; some templates leave that of earlier turns out")
    return _where([span for span in spans if span.kind == "thinking"])


def _answer(prompt: Prompt, part: Part) -> frozenset[int]:
    spans = prompt.told(part.word)
    found = _where([span for span in spans if span.kind == "content" and span.role == "assistant"])
    return found | prompt.future


def _call(prompt: Prompt, part: Part) -> frozenset[int]:
    return _where([span for span in prompt.told(part.word) if span.kind == "tool_call"])


def _template(prompt: Prompt, part: Part) -> frozenset[int]:
    if prompt.spans is None:
        both = enumerate(zip(prompt.ids, prompt.offsets, strict=True))
        return frozenset(at for at, (token, (a, b)) in both if a == b or token in prompt.special)
    return _where([span for span in prompt.spans if span.kind == "template"])


def _content(prompt: Prompt, part: Part) -> frozenset[int]:
    return frozenset(range(prompt.length)) - _template(prompt, part) | prompt.future


def _chosen(prompt: Prompt, part: Part, found: Sequence[tuple[int, int]]) -> frozenset[int]:
    """All that was found, or the n-th of it."""
    if part.which is None:
        return prompt.covering(found)
    at = part.which - 1 if part.which > 0 else len(found) + part.which
    if not 0 <= at < len(found):
        prompt.notes.append(f"{Part(part.word, part.value)} is found {counted(len(found), 'time')}")
        return frozenset()
    return prompt.covering(found[at : at + 1])


def _text(prompt: Prompt, part: Part) -> frozenset[int]:
    return _chosen(prompt, part, _matches(prompt, re.compile(re.escape(part.value))))


def _regex(prompt: Prompt, part: Part) -> frozenset[int]:
    return _chosen(prompt, part, _matches(prompt, re.compile(part.value)))


def _matches(prompt: Prompt, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """Where a pattern is found in the texts of the messages, in order."""
    found = []
    for start, stop in prompt.parts:
        hits = pattern.finditer(prompt.text[start:stop])
        found += [(start + hit.start(), start + hit.end()) for hit in hits if hit.end() > hit.start()]
    if not found and pattern.search(prompt.text):
        prompt.notes.append("it is found in the template's own text alone, where token: finds tokens")
    return found


def _sentence(prompt: Prompt, part: Part) -> frozenset[int]:
    found = []
    for start, stop in prompt.sentences:
        sentences = [
            (start + hit.start(), start + hit.end()) for hit in SENTENCE.finditer(prompt.text[start:stop])
        ]
        at = part.value if part.value >= 0 else len(sentences) + part.value
        found += sentences[at : at + 1] if at >= 0 else []
    if not found:
        prompt.notes.append("sentences are counted within each message, from 0")
    return prompt.covering(found)


def _token(prompt: Prompt, part: Part) -> frozenset[int]:
    spelled = [prompt.text[start:stop] for start, stop in prompt.offsets]
    names = prompt.tokenizer.convert_ids_to_tokens(list(prompt.ids)) if prompt.tokenizer else spelled
    both = enumerate(zip(names, spelled, strict=True))
    found = frozenset(at for at, (name, text) in both if part.value in (name, text))
    if not found and (
        near := [text for text in dict.fromkeys(spelled) if text.strip() == part.value.strip()]
    ):
        prompt.notes.append(f"it has {', '.join(map(repr, near[:3]))}")
    return found


ATOMS: dict[str, Atom] = {
    "last": Atom("", _last, "last", "the last token of the prompt"),
    "all": Atom("", _all, "all", "all tokens"),
    "content": Atom("", _content, "content", "what messages say, without the template's tokens"),
    "template": Atom("", _template, "template", "tokens that the chat template writes"),
    "think": Atom("", _think, "think", "thinking of the assistant"),
    "answer": Atom("", _answer, "answer", "what the assistant says outside of its thinking"),
    "tool_call": Atom("", _call, "tool_call", "names and arguments of tool calls"),
    "role": Atom("word", _role, "role:assistant", "messages of a role, with the template's tokens around"),
    "turn": Atom("number", _turn, "turn:-1", "a message by number, from 0; -1 is the last"),
    "text": Atom("text", _text, 'text:"Paris"#2', "a text in what messages say; #2 its second place", True),
    "regex": Atom("regex", _regex, "regex:/[0-9]+/", "what a regular expression finds there", True),
    "sentence": Atom("number", _sentence, "sentence:-1", "a sentence of each message by number, from 0"),
    "token": Atom("text", _token, 'token:" the"', "tokens by their own text"),
}
"""The words of the grammar."""
