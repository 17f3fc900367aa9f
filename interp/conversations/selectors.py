"""The grammar of positions: ``role:assistant & content``, ``answer[-1]``, ``text:"Paris"#2 | last``.

    either   = both ("|" both)*
    both     = without ("&" without)*
    without  = some ("-" some)*
    some     = one ("[" number "]" | "[" start? ":" stop? (":" step)? "]")*
    one      = "(" either ")" | number | slice | word | word ":" value ("#" number)?

Signs bind as they do between Python's sets. Words and their values: ``interp.conversations.nodes.ATOMS``.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from interp.conversations.nodes import ATOMS, Combined, Index, Node, Part, Prompt, Sliced
from interp.errors import ConfigError, DataError, counted

__all__ = ["Selection", "Selector", "parse", "select"]

SHOWN = 5
"""Prompts of a selection that are printed."""
CONTEXT = 240
"""Characters that are printed on each side of what was not selected."""
MARKED = ("#ffe066", "#ffb84d")
"""Colours of tokens in turn, so that the border between two is seen."""
TEXT = "text-align:left;white-space:pre-wrap;overflow-wrap:anywhere"
NUMBER = re.compile(r"[+-]?\d+")
WORD = re.compile(r"[A-Za-z_]\w*")
VALUE = re.compile(r"[\w.]+")
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
REGEX = re.compile(r"/((?:[^/\\]|\\.)*)/", re.DOTALL)
SLICE = re.compile(r"([+-]?\d+)?\s*:\s*([+-]?\d+)?(?:\s*:\s*([+-]?\d+)?)?")


@dataclass(frozen=True)
class Selector:
    """A set of tokens of each prompt, in words.

    Attributes:
        node: what it is made of.
    """

    node: Node

    def __str__(self) -> str:
        """The shortest text that parses to the same selector."""
        return str(self.node)

    @property
    def single(self) -> bool:
        """Whether it names one token of each prompt: a number, ``last``, or ``...[number]``."""
        node = self.node
        return isinstance(node, Index) or node == Part("last") or (isinstance(node, Sliced) and node.one)

    def resolve(
        self,
        tokens: Any,
        tokenizer: Any,
        *,
        rows: Sequence[int] | None = None,
        new: Sequence[int] = (),
    ) -> tuple[tuple[int, ...], ...]:
        """Per prompt the positions of the selected tokens, in order.

        Args:
            tokens: of ``interp.models.tokens``.
            tokenizer: the model's.
            rows: of which prompts; None for all.
            new: per prompt how many tokens will follow it, which ``all``, ``content``, ``answer``,
                ``role:assistant`` and open slices of them reach; () for none.

        Raises:
            DataError: it selects nothing in a prompt; the message shows the text.
        """
        numbers = range(len(tokens)) if rows is None else rows
        return tuple(self._row(prompt_of(tokens, n, tokenizer, new[n] if new else 0)) for n in numbers)

    def _row(self, prompt: Prompt) -> tuple[int, ...]:
        found = self.node.ordered(prompt)
        if not found:
            notes = "".join(f" ({note})" for note in list(dict.fromkeys(prompt.notes))[:2])
            raise DataError(
                f"the selector {str(self)!r} selects no token of {prompt.name}{notes}: {prompt.shown}. "
                "Choose other words, or leave the prompt out."
            )
        return tuple(found)


@dataclass(frozen=True)
class Selection:
    """What a selector selects in some prompts.

    Attributes:
        selector: as text.
        texts: per prompt its text.
        positions: per prompt the positions of the selected tokens.
        characters: per prompt and token its first character and the one after its last.
    """

    selector: str
    texts: tuple[str, ...]
    positions: tuple[tuple[int, ...], ...]
    characters: tuple[tuple[tuple[int, int], ...], ...]

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self.texts)

    def pieces(self, number: int) -> list[tuple[str, bool]]:
        """A prompt's text in pieces, and whether each is a selected token; long ones between are cut."""
        text, at = self.texts[number], 0
        found: list[tuple[str, bool]] = []
        for start, stop in self.characters[number]:
            start = max(start, at)
            if start > at:
                found.append((_cut(text[at:start]), False))
            if stop > start:
                found.append((text[start:stop], True))
            at = max(at, stop)
        return [*found, (_cut(text[at:]), False)] if at < len(text) else found

    def marked(self, number: int, opening: str = "\u27e6", closing: str = "\u27e7") -> str:
        """A prompt's text with every selected token between two marks."""
        return "".join(f"{opening}{text}{closing}" if own else text for text, own in self.pieces(number))

    def __str__(self) -> str:
        """The first prompts, selected tokens between double brackets."""
        lines = [f"{number}: {self.marked(number)}" for number in range(min(len(self), SHOWN))]
        more = [f"and {counted(len(self) - SHOWN, 'prompt')} more"] if len(self) > SHOWN else []
        tokens = counted(sum(map(len, self.positions)), "token")
        head = f"{self.selector}: {tokens} of {counted(len(self), 'prompt')}"
        return "\n".join([head, *lines, *more])

    def _repr_html_(self) -> str:
        """The first prompts for notebooks, selected tokens marked."""
        rows = []
        for number in range(min(len(self), SHOWN)):
            cells = "".join(
                f"<mark style='background:{MARKED[at % 2]}'>{escape(text)}</mark>" if own else escape(text)
                for at, (text, own) in enumerate(self.pieces(number))
            )
            rows.append(
                f"<tr style='vertical-align:top'><td>{number}</td><td style='{TEXT}'>{cells}</td></tr>"
            )
        caption = escape(str(self).split("\n", 1)[0])
        table = f"<table>{''.join(rows)}</table>"
        return f"<figure style='margin:0'>{table}<figcaption>{caption}</figcaption></figure>"


def _cut(text: str) -> str:
    """A text that was not selected, without its middle where it is long."""
    return text if len(text) <= 2 * CONTEXT + 9 else f"{text[:CONTEXT]} [...] {text[-CONTEXT:]}"


def select(selector: Selector | str, tokens: Any, tokenizer: Any) -> Selection:
    """The tokens that a selector selects, and the characters that they cover.

    Raises:
        ConfigError: it is not written as one.
        DataError: it selects nothing in a prompt; the message shows the text.
    """
    found = parse(selector) if isinstance(selector, str) else selector
    rows = found.resolve(tokens, tokenizer)
    prompts = [prompt_of(tokens, number, tokenizer) for number in range(len(tokens))]
    characters = tuple(
        tuple(prompt.offsets[at] for at in row) for prompt, row in zip(prompts, rows, strict=True)
    )
    return Selection(str(found), tuple(tokens.texts), rows, characters)


def prompt_of(tokens: Any, number: int, tokenizer: Any, new: int = 0) -> Prompt:
    """One of some prompts, as selectors look at it."""
    spans = tokens.spans[number] if tokens.spans else None
    offsets = tokens.offsets[number] if tokens.offsets else None
    ids, text = tokens.token_ids[number], tokens.texts[number]
    return Prompt(f"prompt {number}", ids, text, tokenizer, spans, offsets, new)


def parse(text: str) -> Selector:
    """Read a selector.

    Raises:
        ConfigError: saying where in the text, and what may stand there.
    """
    reader = _Reader(text)
    node = reader.either()
    if reader.rest:
        raise reader.wrong("expected '&', '|', '-', '[' or the end")
    return Selector(node)


@dataclass
class _Reader:
    """Read a text from left to right."""

    text: str
    at: int = 0
    depth: list[int] = field(default_factory=list)

    @property
    def rest(self) -> str:
        """What is still to be read, from the next character that is no blank."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at :]

    def wrong(self, why: str, at: int | None = None) -> ConfigError:
        """The error, with the place in the text."""
        at = self.at if at is None else at
        place = f"at character {at} ({self.text[at : at + 12]!r})" if at < len(self.text) else "at its end"
        return ConfigError(
            f"the selector {self.text!r} is wrong {place}: {why}. Examples: 'last', '-3', 'role:assistant & "
            "content', 'answer[-1]', 'text:\"Paris\"#2'."
        )

    def takes(self, sign: str) -> bool:
        """Read a sign if it comes next."""
        found = self.rest.startswith(sign)
        self.at += len(sign) * found
        return found

    def matches(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read what a pattern matches next."""
        if not self.rest or (found := pattern.match(self.text, self.at)) is None:
            return None
        self.at = found.end()
        return found

    def either(self) -> Node:
        """``|``, which binds least."""
        node = self.both()
        while self.takes("|"):
            node = Combined("|", node, self.both())
        return node

    def both(self) -> Node:
        """``&``."""
        node = self.without()
        while self.takes("&"):
            node = Combined("&", node, self.without())
        return node

    def without(self) -> Node:
        """``-``, which binds most."""
        node = self.some()
        while self.takes("-"):
            node = Combined("-", node, self.some())
        return node

    def some(self) -> Node:
        """A part with what is picked from it."""
        node = self.one()
        while self.rest.startswith("["):
            node = self.picked(node)
        return node

    def picked(self, node: Node) -> Node:
        """``[number]`` or ``[start:stop:step]``."""
        begun = self.at
        self.takes("[")
        if self.rest and (found := SLICE.match(self.text, self.at)):
            self.at = found.end()
            made = self.sliced(node, found, begun)
        elif found := self.matches(NUMBER):
            made = Sliced(node, int(found[0]), one=True)
        else:
            raise self.wrong("expected a number or a slice such as [-3:]")
        if not self.takes("]"):
            raise self.wrong("expected ']'")
        return made

    def sliced(self, node: Node, found: re.Match[str], at: int) -> Node:
        """A slice, whose step must go forward."""
        start, stop, step = (None if end is None else int(end) for end in found.groups())
        if step is not None and step < 1:
            raise self.wrong(f"the step {step} goes nowhere forward; use 1 or more", at)
        return Sliced(node, start, stop, step)

    def one(self) -> Node:
        """A bracket, a number, a slice of all tokens, or a word with its value."""
        begun = self.at if self.rest else len(self.text)
        if self.takes("("):
            node = self.either()
            if not self.takes(")"):
                raise self.wrong(f"the bracket at character {begun} is never closed; expected ')'")
            return node
        if self.rest.startswith("["):
            return self.picked(Part("all"))
        if self.rest and (found := SLICE.match(self.text, self.at)):
            self.at = found.end()
            return self.sliced(Part("all"), found, begun)
        if found := self.matches(NUMBER):
            return Index(int(found[0]))
        if found := self.matches(WORD):
            return self.word(found[0], begun)
        raise self.wrong("expected a word, a number or '('")

    def word(self, word: str, at: int) -> Node:
        """A word of the table, with its value where it takes one."""
        if word not in ATOMS:
            near = difflib.get_close_matches(word, ATOMS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self.wrong(f"{word!r} is no word of it; words: {', '.join(ATOMS)}{hint}", at)
        atom = ATOMS[word]
        colon = self.text.startswith(":", self.at)
        if not atom.takes:
            if colon:
                raise self.wrong(f"{word!r} takes no value; write {atom.example}")
            return Part(word)
        if not colon:
            raise self.wrong(f"{word!r} needs a value; write {atom.example}")
        self.at += 1
        value = self.value(word)
        return Part(
            word, value, self.which() if atom.takes in ("text", "regex") and word != "token" else None
        )

    def value(self, word: str) -> Any:
        """The value of a word."""
        atom, begun = ATOMS[word], self.at
        if atom.takes == "number" and (found := self.matches(NUMBER)):
            return int(found[0])
        if atom.takes == "regex" and (found := self.matches(REGEX)):
            return self.compiled(found[1].replace("\\/", "/"), begun)
        if atom.takes in ("text", "word") and (found := self.matches(QUOTED)):
            return self.unquoted(found[0], begun)
        if atom.takes == "word" and (found := self.matches(VALUE)):
            return found[0]
        needs = {"text": 'a text in "quotation marks"', "regex": "an expression between two /"}
        raise self.wrong(
            f"{word!r} needs {needs.get(atom.takes, f'a {atom.takes}')}; write {atom.example}", begun
        )

    def compiled(self, pattern: str, at: int) -> str:
        """A regular expression that Python accepts."""
        try:
            re.compile(pattern)
        except re.error as error:
            raise self.wrong(f"/{pattern}/ is no regular expression: {error}", at) from None
        return pattern

    def unquoted(self, quoted: str, at: int) -> str:
        r"""A text in its marks, where ``\"`` is a mark and ``\n`` a line break."""
        try:
            found = json.loads(quoted, strict=False)
        except ValueError:
            raise self.wrong(r"a backslash is written \\ in a text, and a quotation mark \"", at) from None
        if not found:
            raise self.wrong("an empty text is everywhere; give at least one character", at)
        return found

    def which(self) -> int | None:
        """``#2``: the second occurrence; ``#-1``: the last."""
        if not self.text.startswith("#", self.at):
            return None
        self.at += 1
        found = self.matches(NUMBER)
        if found is None or int(found[0]) == 0:
            raise self.wrong("expected the number of an occurrence: #1 is the first, #-1 the last")
        return int(found[0])
