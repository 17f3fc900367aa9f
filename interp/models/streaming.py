"""New text as it grows: pieces of whole characters, and texts that end it, wherever tokens divide them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.errors import ConfigError

__all__ = ["NewToken", "OnToken", "Speech", "Stops", "read_stops"]

HALF = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character yet."""
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
"""A token of one byte. The decoder of such tokens writes a row of them as characters only where all of it is
characters: the next byte may undo those before it."""
TIDIED = re.compile(r" (n'?|'[vr]?)?$")
"""What may lose its blank by what follows, where a tokenizer tidies its text (``n't``, ``'ve``, ``.``)."""


@dataclass(frozen=True, eq=False)
class NewToken:
    """One token that has just been chosen.

    Attributes:
        prompt: which prompt it continues, by its place in the call.
        step: 0 for the first new token.
        token_id: its id.
        text: what can be printed now; "" while a character, or what may become a stop, is not complete. All
            pieces joined are the new text.
        logprob: of the token in the model's own distribution (nats).
        entropy: of that distribution (nats).
        ends: why the text ends here: "end token", "stop" or "length"; "" where it goes on.
        states: per captured site what was read in the pass that chose the token, at the token before it.
    """

    prompt: int
    step: int
    token_id: int
    text: str
    logprob: float
    entropy: float
    ends: str = ""
    states: Mapping[str, Tensor] = field(default_factory=dict)


OnToken = Callable[[NewToken], object]


@dataclass(frozen=True)
class Stops:
    """What ends a text.

    Attributes:
        ids: tokens that end it, kept as its last.
        texts: texts that end it, left out with all that follows.
    """

    ids: frozenset[int]
    texts: tuple[str, ...] = ()


def read_stops(
    given: str | int | np.integer | Sequence[str | int | np.integer],
    own: frozenset[int],
    tokenizer: PreTrainedTokenizerBase | None,
    vocab_size: int,
) -> Stops:
    """What ends a text: the model's own end tokens, and what was asked for.

    Args:
        given: texts, token ids, or one of them.
        own: the model's end tokens.
        tokenizer: of the model; texts need one.
        vocab_size: tokens that the model has.

    Raises:
        ConfigError: an empty text, a text without a tokenizer, or what is neither a text nor a token id.
    """
    items = [given] if isinstance(given, str | int | np.integer) else list(given)
    texts = tuple(item for item in items if isinstance(item, str))
    ids = [int(item) for item in items if isinstance(item, int | np.integer) and not isinstance(item, bool)]
    if len(texts) + len(ids) < len(items):
        bad = next(
            item for item in items if isinstance(item, bool) or not isinstance(item, str | int | np.integer)
        )
        raise ConfigError(f"stop {bad!r} asked; give texts such as '\\n\\n', or token ids.")
    if "" in texts:
        raise ConfigError("stop '' asked, which every text holds; give at least one character.")
    if texts and tokenizer is None:
        raise ConfigError(
            f"stop {texts[0]!r} asked, but this model has no tokenizer to write text with; give token ids, "
            "or load with tokenizer=FOLDER or tokenizer=OBJECT."
        )
    if bad := [token for token in ids if not 0 <= token < vocab_size]:
        raise ConfigError(
            f"stop {bad[0]} asked, but the model has token ids 0..{vocab_size - 1}; give one of them."
        )
    special = _special(tokenizer)
    ids += [special[text] for text in texts if text in special]
    return Stops(own | set(ids), tuple(text for text in texts if text not in special))


def _special(tokenizer: PreTrainedTokenizerBase | None) -> dict[str, int]:
    """Special tokens, which no new text shows: given as a stop, they are end tokens."""
    if tokenizer is None:
        return {}
    return {one.content: number for number, one in tokenizer.added_tokens_decoder.items() if one.special}


@dataclass(eq=False)
class Speech:
    """Follow the new text of one prompt, token by token.

    Attributes:
        tokenizer: None where there is no text.
        stops: texts that end it.
        text: so far, without what ended it.
        stopped: whether one of them came.
        sure: how many of its characters no further token changes.
        printed: how many were given out.
    """

    tokenizer: PreTrainedTokenizerBase | None
    stops: tuple[str, ...] = ()
    text: str = ""
    stopped: bool = False
    sure: int = 0
    printed: int = 0

    def read(self, ids: Sequence[int]) -> None:
        """Look at all new tokens so far."""
        self.text = decoded(self.tokenizer, ids)
        self.sure = self._lasting(ids)
        places = [at for stop in self.stops if (at := self.text.find(stop)) >= 0]
        if places:
            self.text, self.stopped = self.text[: min(places)], True

    def piece(self, *, last: bool) -> str:
        """What can be printed that was not yet; all of it where no token follows."""
        end = len(self.text)
        if not last:
            end = min(self.sure, end)
            end = min((self._begun(stop, end) for stop in self.stops), default=end)
        new = self.text[self.printed : end]
        self.printed = max(self.printed, end)
        return new

    @cached_property
    def _silent(self) -> frozenset[int]:
        return frozenset(_special(self.tokenizer).values())

    def _lasting(self, ids: Sequence[int]) -> int:
        """How many characters stay as they are, whatever token follows."""
        words = self.tokenizer
        if words is None:
            return 0
        settled = len(ids)
        while settled and (
            ids[settled - 1] in self._silent or BYTE.fullmatch(_name(words, ids[settled - 1]))
        ):
            settled -= 1
        text = self.text if settled == len(ids) else decoded(words, ids[:settled])
        if getattr(words, "clean_up_tokenization_spaces", False):
            text = TIDIED.sub("", text)
        return len(text.rstrip(HALF))

    def _begun(self, stop: str, end: int) -> int:
        """Where a stop may have begun at the end of the text."""
        sizes = range(min(len(stop) - 1, end), 0, -1)
        return next((end - size for size in sizes if self.text[:end].endswith(stop[:size])), end)

    def needed(self, ids: Sequence[int]) -> int:
        """How many tokens it takes to write the text, where a stop has cut it."""
        if not self.stopped:
            return len(ids)
        counts = range(len(ids) + 1)
        return next(n for n in counts if decoded(self.tokenizer, ids[:n]).startswith(self.text))


def _name(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token))


def decoded(tokenizer: PreTrainedTokenizerBase | None, ids: Sequence[int]) -> str:
    """The text of tokens, without special ones; "" without a tokenizer."""
    return "" if tokenizer is None else str(tokenizer.decode(list(ids), skip_special_tokens=True))
