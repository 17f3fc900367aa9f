"""What a model wrote: the new text of every prompt, how sure the model was of it, and the states it had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from interp.activations import Activations
from interp.errors import DataError, counted
from interp.models.finished import Conversation
from interp.models.generation import Continued
from interp.models.sampling import Sampling
from interp.models.tokens import Tokens
from interp.results import About, Figure, Number, Result, Table

__all__ = ["Generation", "labelled"]

SHOWN = 80
"""Letters of a prompt in a table: the last ones of a longer one."""
WIDTH, LINES = 16, 20
"""Words in a line of the picture, and lines at most."""
ENDS = {
    "end token": "ended at an end token",
    "stop": "ended at a stop",
    "length": "reached the largest number of tokens",
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Generation(Result):
    """Continuations.

    Attributes:
        texts: per prompt the new text, special tokens left out; "" without a tokenizer.
        token_ids: per prompt the new ids; an end token is the last of them. Where a stop has cut the text
            they are the fewest first ids that hold all of it.
        prompts: the texts that were continued.
        pieces: the new tokens, each as text.
        logprobs: of every new token in the model's own distribution (nats), whatever it was drawn by.
        entropies: of that distribution (nats).
        ranks: the token's place in it; 1 is the likeliest.
        ends: why each text ends: "end token", "stop" or "length".
        sampling: how tokens were chosen.
        messages: the conversations with the answer as their last message, thinking apart as
            ``reasoning_content``; None for prompts that are none, () where no prompt is one.
        activations: states: ``[prompt pos ...]`` with zeros beyond a prompt's own, or ``[prompt ...]``; None
            if not asked.
    """

    schema: ClassVar[str] = "interp.text/1"

    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    prompts: tuple[str, ...]
    pieces: tuple[tuple[str, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]
    entropies: tuple[tuple[float, ...], ...]
    ranks: tuple[tuple[int, ...], ...]
    ends: tuple[str, ...]
    sampling: Sampling
    messages: tuple[tuple[Mapping[str, Any], ...] | None, ...] = ()
    activations: Activations | None = None

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self.texts)

    @staticmethod
    def concatenate(parts: Sequence[Generation]) -> Generation:
        """Join the continuations of several lists of prompts, one after the other.

        Raises:
            DataError: there is nothing to join, or the parts differ in how tokens were chosen.
        """
        if not parts:
            raise DataError("no continuations to join. Give at least one.")
        if len({replace(part.sampling, first=0) for part in parts}) > 1:
            raise DataError("the continuations were drawn in several ways. Join those of one Sampling.")
        rows = ("texts", "token_ids", "prompts", "pieces", "logprobs", "entropies", "ranks", "ends")
        joined = {name: tuple(one for part in parts for one in getattr(part, name)) for name in rows}
        if any(part.messages for part in parts):
            given = (part.messages or (None,) * len(part) for part in parts)
            joined["messages"] = tuple(one for part in given for one in part)
        states = [part.activations for part in parts if part.activations is not None]
        whole = Activations.concatenate(states) if len(states) == len(parts) else None
        warnings = tuple(dict.fromkeys(text for part in parts for text in part.warnings))
        return replace(parts[0], **joined, activations=whole, warnings=warnings)

    def redacted(self) -> Generation:
        """The same without texts: of the tokens, the numbers alone."""
        none = ("",) * len(self)
        return replace(
            self,
            texts=none,
            prompts=none,
            messages=(),
            token_ids=tuple((-1,) * len(ids) for ids in self.token_ids),
            pieces=tuple(("",) * len(ids) for ids in self.token_ids),
            activations=None if self.activations is None else self.activations.redacted(),
        )

    @property
    def n_tokens(self) -> int:
        """New tokens of all prompts together."""
        return sum(map(len, self.token_ids))

    def question(self) -> str:
        """What was asked for."""
        return f"How does {self.about.model_name} go on after {counted(len(self), 'prompt')}?"

    def verdict(self) -> str:
        """How much was written, how it was chosen, and why it ended."""
        counts = {end: self.ends.count(end) for end in ENDS if end in self.ends}
        ended = "; ".join(f"{count:,} {ENDS[end]}" for end, count in counts.items())
        return (
            f"{counted(len(self), 'prompt')} went on by {counted(self.n_tokens, 'token')}, chosen "
            f"{self.sampling.words}: {ended}."
        )

    def lead(self) -> tuple[str, ...]:
        """What the numbers of a token are of."""
        return (
            "Log-probability, entropy and rank are of the model's own distribution at temperature 1, before "
            "any bound on what is drawn.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Counts, and how sure the model was."""
        logs = [value for row in self.logprobs for value in row]
        entropies = [value for row in self.entropies for value in row]
        first = [rank == 1 for row in self.ranks for rank in row]
        return (
            Number("prompts", len(self)),
            Number("tokens", self.n_tokens, meaning="New ones, of all prompts."),
            Number("logprob", _mean(logs), unit="nats", meaning="Of a new token, averaged over tokens."),
            Number(
                "entropy", _mean(entropies), unit="nats", meaning="Of the model's distribution, averaged."
            ),
            Number("likeliest", _mean(first), meaning="Share of new tokens that were the likeliest."),
            Number("ended", self.ends.count("end token") / len(self), meaning="Share at an end token."),
        )

    def tables(self) -> tuple[Table, ...]:
        """Every prompt with its text, and every token."""
        rows = [
            (number, _last(prompt), text, len(ids), ends, _mean(logs), _mean(entropies))
            for number, (prompt, text, ids, ends, logs, entropies) in enumerate(
                zip(
                    self.prompts,
                    self.texts,
                    self.token_ids,
                    self.ends,
                    self.logprobs,
                    self.entropies,
                    strict=True,
                )
            )
        ]
        columns = ("row", "prompt", "text", "tokens", "ends", "logprob", "entropy")
        note = "logprob and entropy: means over the new tokens (nats)."
        texts = Table("texts", "What was written", columns, rows, note, private=("prompt", "text"))
        return (texts, self._tokens())

    def _tokens(self) -> Table:
        columns = ("row", "step", "id", "token", "logprob", "entropy", "rank")
        rows = [
            (number, step, *one)
            for number in range(len(self))
            for step, one in enumerate(
                zip(
                    self.token_ids[number],
                    map(repr, self.pieces[number]),
                    self.logprobs[number],
                    self.entropies[number],
                    self.ranks[number],
                    strict=True,
                )
            )
        ]
        return Table("tokens", "Token by token", columns, rows, private=("id", "token"), folded=True)

    def figures(self) -> tuple[Figure, ...]:
        """The first text, word by word, coloured by the probability that the model gave to each."""
        number = next((at for at, ids in enumerate(self.token_ids) if ids), None)
        if number is None:
            return ()
        size = min(len(self.token_ids[number]), WIDTH * LINES)
        steps = sorted(range(size), key=lambda step: (-(step // WIDTH), step))  # the last line is the lowest
        data = {
            "x": [step % WIDTH for step in steps],
            "y": [step // WIDTH * WIDTH for step in steps],
            "column": ["" for _ in steps],
            "text": [self.pieces[number][step] for step in steps],
            "value": [float(np.exp(self.logprobs[number][step])) for step in steps],
            "rank": [self.ranks[number][step] for step in steps],
        }
        of = f"prompt {number}" if len(self) > 1 else "the prompt"
        return (
            Figure(
                "words",
                "grid",
                data,
                f"What was written after {of}",
                f"{counted(size, 'token')}, {WIDTH} a line; the colour is the probability that the model "
                "gave to the token, framed where no other was likelier.",
                x="token",
                y="step",
            ),
        )


def labelled(
    made: Continued,
    prompts: Tokens,
    sampling: Sampling,
    activations: Activations | None,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    messages: tuple[Conversation | None, ...],
    model: Mapping[str, str],
    warnings: tuple[str, ...],
) -> Generation:
    """What the loop gave, with its prompts and the model it came from."""
    lines = made.lines
    return Generation(
        about=About(model, {"name": "prompts", "n": len(prompts)}),
        seed=sampling.seed,
        warnings=(*prompts.warnings, *made.warnings, *warnings),
        texts=made.texts,
        token_ids=tuple(tuple(line.new) for line in lines),
        prompts=prompts.texts,
        pieces=tuple(tuple(_words(tokenizer, line.new)) for line in lines),
        logprobs=tuple(tuple(line.logprobs) for line in lines),
        entropies=tuple(tuple(line.entropies) for line in lines),
        ranks=tuple(tuple(line.ranks) for line in lines),
        ends=tuple(line.ends for line in lines),
        sampling=sampling,
        messages=messages,
        activations=activations,
    )


def _words(tokenizer: PreTrainedTokenizerBase | None, ids: Sequence[int]) -> list[str]:
    return [str(token) if tokenizer is None else str(tokenizer.decode([token])) for token in ids]


def _mean(values: Sequence[float | bool]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _last(text: str) -> str:
    return text if len(text) <= SHOWN else f"\u2026{text[1 - SHOWN :]}"
