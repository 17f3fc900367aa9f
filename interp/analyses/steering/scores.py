"""The table of scores: what steering is to move, prompt by prompt. A new one is a class and a row."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyses.steering.measuring import Change, Row, log_probabilities, rows_of
from interp.errors import ConfigError, DataError, counted
from interp.models.model import Model
from interp.models.sampling import Sampling
from interp.models.tokens import continuations
from interp.sites import Site
from interp.steering.fitting import Prompt, under
from interp.steering.vector import Vector, hashed
from probes import MeanDifferenceProbe, Probe

__all__ = ["SCORES", "Lexicon", "LogOdds", "ProbeScore", "Score", "Texts", "Words"]

Values = Float[np.ndarray, " item"]
FEWEST = 4
OPENING = 6
"""Words of a text with which a continuation to look at begins."""
WORD = r"[^\W\d_]+"


class Score(ABC):
    """What is measured of each item, with and without a vector.

    Attributes:
        kind: the name that users type.
        unit: of the values.
        share: whether values lie between 0 and 1.
    """

    kind: ClassVar[str]
    unit: ClassVar[str]
    share: ClassVar[bool] = False

    @property
    @abstractmethod
    def items(self) -> tuple[Prompt, ...]:
        """What is measured: none of it may have been fitted on."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What it is, in a sentence such as "... rises by"."""

    @abstractmethod
    def values(self, model: Model, change: Change = (), *, instruction: str = "") -> Values:
        """The score of every item.

        Args:
            model: what is run.
            change: what is written meanwhile.
            instruction: what every prompt is put under; "" for none.
        """

    @property
    def openings(self) -> tuple[Prompt, ...]:
        """What texts to look at begin with."""
        return self.items

    @property
    def compared(self) -> tuple[Any, ...]:
        """What each value is of: two that are the same would count as independent."""
        return self.items

    def check(self, model: Model, vector: Vector) -> None:
        """Refuse what this score cannot tell of a vector, too few items, and items that are repeated.

        Raises:
            DataError: fewer than 4 different items, or one of them twice.
        """
        n, different = len(self.compared), len(_once(self.compared))
        if different < FEWEST:
            raise DataError(
                f"{counted(different, 'different prompt')} to evaluate on; {FEWEST} are the fewest that an "
                "interval can be had from. Give more."
            )
        if different < n:
            raise DataError(
                f"{n} prompts to evaluate on, of which {different} are different; a prompt that is repeated "
                "would count as two independent ones. Give each once."
            )


def _once(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts in their order, each of them once."""
    return tuple({hashed(one): one for one in prompts}.values())


def _instructed(prompts: Sequence[Prompt], instruction: str) -> list[Prompt]:
    return [under(instruction, one) for one in prompts] if instruction else list(prompts)


@final
@dataclass(frozen=True, eq=False)
class Texts(Score):
    """How much likelier held-out texts of one side are than those of the other, by token.

    The mean log-probability of a token of the positive text, less that of the negative one.

    Attributes:
        positive: texts that have what is steered towards; or conversations whose last message has it.
        negative: one for each that has not.
    """

    kind: ClassVar[str] = "texts"
    unit: ClassVar[str] = "nats per token"
    positive: tuple[Prompt, ...]
    negative: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        """Refuse sides of two lengths.

        Raises:
            DataError: saying how many there are.
        """
        if len(self.positive) != len(self.negative):
            raise DataError(
                f"{counted(len(self.positive), 'positive text')} and {len(self.negative)} negative; the "
                "score 'texts' compares pairs: give one for each."
            )

    @property
    def items(self) -> tuple[Prompt, ...]:
        """The positive texts."""
        return self.positive

    @property
    def words(self) -> str:
        """What it is."""
        return "the log-probability of held-out positive texts less that of negative ones"

    @property
    def openings(self) -> tuple[Prompt, ...]:
        """The first words of the negative texts, each once; of conversations all but the answer."""
        return _once(
            [
                " ".join(one.split()[:OPENING]) if isinstance(one, str) else list(one[:-1])
                for one in self.negative
            ]
        )

    @property
    def compared(self) -> tuple[Any, ...]:
        """The pairs."""
        return tuple(zip(self.positive, self.negative, strict=True))

    def values(self, model: Model, change: Change = (), *, instruction: str = "") -> Values:
        """The difference of each pair."""
        rows = rows_of(model, (*self.positive, *self.negative), instruction)
        means = [float(one.mean()) for one in log_probabilities(model, rows, change)]
        n = len(self.positive)
        return np.array(means[:n]) - np.array(means[n:])


@final
@dataclass(frozen=True, eq=False)
class LogOdds(Score):
    """The log-odds of some next words over others.

    Attributes:
        prompts: texts or conversations.
        targets: words whose first tokens are wanted; with the blank before them where one belongs there.
        against: words that are not; every other token where there are none.
    """

    kind: ClassVar[str] = "log-odds"
    unit: ClassVar[str] = "nats"
    prompts: tuple[Prompt, ...]
    targets: tuple[str, ...]
    against: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[Prompt, ...]:
        """The prompts."""
        return self.prompts

    @property
    def words(self) -> str:
        """What it is."""
        other = f" over {_listed(self.against)}" if self.against else ""
        return f"the log-odds of {_listed(self.targets)}{other} as the next word"

    def values(self, model: Model, change: Change = (), *, instruction: str = "") -> Values:
        """The log-odds after each prompt."""
        given = model.tokenize(_instructed(self.prompts, instruction))
        logits = model.run(given, interventions=change).logits
        assert logits is not None
        logs = logits.double().log_softmax(dim=1).cpu()
        found = [
            self._odds(model, logs[at], text, ids)
            for at, (text, ids) in enumerate(zip(given.texts, given.token_ids, strict=True))
        ]
        return np.array(found)

    def _odds(self, model: Model, logs: Tensor, text: str, ids: Sequence[int]) -> float:
        """The log-odds after one prompt: words are turned into tokens as they follow it."""
        up = {one[0] for one in _tokens(model, text, ids, self.targets)}
        down = {one[0] for one in _tokens(model, text, ids, self.against)} - up if self.against else set()
        if self.against and not down:
            raise DataError(
                f"{_listed(self.targets)} and {_listed(self.against)} begin with the same tokens; give other "
                "words."
            )
        wanted = logs[sorted(up)].logsumexp(dim=0)
        rest = torch.log1p(-wanted.exp().clamp(max=1 - 1e-15))
        return float(wanted - (logs[sorted(down)].logsumexp(dim=0) if down else rest))


@final
@dataclass(frozen=True, eq=False)
class Words(Score):
    """The log-probability that one of some whole words comes next.

    Attributes:
        prompts: texts.
        targets: the words.
    """

    kind: ClassVar[str] = "words"
    unit: ClassVar[str] = "nats"
    prompts: tuple[Prompt, ...]
    targets: tuple[str, ...]

    @property
    def items(self) -> tuple[Prompt, ...]:
        """The prompts."""
        return self.prompts

    @property
    def words(self) -> str:
        """What it is."""
        return f"the log-probability that {_listed(self.targets)} comes next"

    def values(self, model: Model, change: Change = (), *, instruction: str = "") -> Values:
        """The log-probability after each prompt."""
        given = model.tokenize(_instructed(self.prompts, instruction))
        rows: list[Row] = []
        for text, ids in zip(given.texts, given.token_ids, strict=True):
            rows += [((*ids, *more), len(ids)) for more in _tokens(model, text, ids, self.targets)]
        found = torch.tensor([float(one.sum()) for one in log_probabilities(model, rows, change)])
        return found.double().reshape(len(given), -1).logsumexp(dim=1).numpy()


@final
@dataclass(frozen=True, eq=False)
class Lexicon(Score):
    """The share of the words of sampled continuations that are in a lexicon.

    Attributes:
        prompts: texts or conversations.
        lexicon: words, in any case.
        max_new_tokens: of each continuation.
        temperature: of the draws; 0 takes the likeliest token.
        seed: of the draws.
    """

    kind: ClassVar[str] = "lexicon"
    unit: ClassVar[str] = ""
    share: ClassVar[bool] = True
    prompts: tuple[Prompt, ...]
    lexicon: tuple[str, ...]
    max_new_tokens: int = 24
    temperature: int | float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no word of a text can equal: it would score 0 without a word.

        Raises:
            DataError: an entry that is not one word of letters, or no entry.
        """
        if not self.lexicon:
            raise DataError("the lexicon is empty; give words, such as ('sea', 'ship').")
        if bad := [one for one in self.lexicon if not re.fullmatch(WORD, _folded(one))]:
            raise DataError(
                f"the lexicon holds {_listed(bad)}; texts are counted word by word, and a word is letters "
                "alone. Give single words, such as 'high' and 'tide' for 'high tide'."
            )

    @property
    def items(self) -> tuple[Prompt, ...]:
        """The prompts."""
        return self.prompts

    @property
    def words(self) -> str:
        """What it is."""
        return f"the share of words of sampled text that are among {_listed(self.lexicon)}"

    def values(self, model: Model, change: Change = (), *, instruction: str = "") -> Values:
        """The share in the continuation of each prompt; 0 of a text without a word."""
        made = model.generate(
            _instructed(self.prompts, instruction),
            max_new_tokens=self.max_new_tokens,
            interventions=change,
            sample=Sampling(float(self.temperature), seed=self.seed) if self.temperature else None,
        )
        known = set(map(_folded, self.lexicon))
        found = [re.findall(WORD, text.casefold()) for text in made.texts]
        return np.array([sum(word in known for word in row) / max(1, len(row)) for row in found])


@final
@dataclass(frozen=True, eq=False)
class ProbeScore(Score):
    """What a probe of a later layer says: its score of the second class, at the last token.

    Attributes:
        prompts: texts or conversations.
        probe: fitted, of two classes or with one output.
        site: where it reads; later than every site of the vector.
    """

    kind: ClassVar[str] = "probe"
    unit: ClassVar[str] = ""
    prompts: tuple[Prompt, ...]
    probe: Probe
    site: str

    @classmethod
    def fitted(
        cls,
        model: Model,
        positive: Sequence[Prompt],
        negative: Sequence[Prompt],
        prompts: Sequence[Prompt],
        *,
        site: str = "",
    ) -> ProbeScore:
        """A mean-difference probe of the two sides, at the last token.

        Args:
            model: whose states.
            positive: prompts of the class that is steered towards.
            negative: prompts of the other.
            prompts: those that are scored, none of which is among them.
            site: where it reads; the last ``resid_post`` where left out.
        """
        place = site or f"resid_post.{model.n_layers - 1}"
        given = [*negative, *positive]
        states = model.capture(given, place, "last", device="cpu", dtype=torch.float32)[place]
        labels = [0] * len(negative) + [1] * len(positive)
        return cls(tuple(prompts), MeanDifferenceProbe().fit(states.numpy(), labels), place)

    @property
    def items(self) -> tuple[Prompt, ...]:
        """The prompts."""
        return self.prompts

    @property
    def words(self) -> str:
        """What it is."""
        return f"the score of a probe at {self.site}"

    def check(self, model: Model, vector: Vector) -> None:
        """Refuse a probe that reads where the vector is added, or before the last of its sites.

        Raises:
            ConfigError: naming both sites.
        """
        super().check(model, vector)
        last = max(map(Site.parse, vector.sites))
        if last < Site.parse(self.site):
            return
        end = Site.parse(f"resid_post.{model.n_layers - 1}")
        remedy = (
            f"Fit a probe at a later layer, such as {end}."
            if last < end
            else "After that block no layer follows that a probe could read: take an earlier layer for the "
            "vector, or another score."
        )
        raise ConfigError(
            f"the probe reads {self.site}, and the vector is added at {last}: there it would read the vector "
            f"itself. {remedy}"
        )

    def values(self, model: Model, change: Change = (), *, instruction: str = "") -> Values:
        """The score at each prompt."""
        run = model.run(
            _instructed(self.prompts, instruction),
            interventions=change,
            capture=self.site,
            logits="none",
            device="cpu",
            dtype=torch.float32,
        )
        assert run.activations is not None
        reader: Any = self.probe
        found = np.asarray(reader.decision_function(run.activations[self.site].numpy()), dtype=np.float64)
        if found.ndim == 2:
            found = found[:, -1] - found[:, 0] if found.shape[1] > 1 else found[:, 0]
        return found


SCORES: dict[str, type[Score]] = {row.kind: row for row in (Texts, LogOdds, Words, Lexicon, ProbeScore)}
"""Name -> class."""


def _folded(word: str) -> str:
    return word.strip().casefold()


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(repr(word.strip()) for word in words[:3])
    return shown + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _tokens(model: Model, text: str, ids: Sequence[int], words: Sequence[str]) -> list[tuple[int, ...]]:
    if model.tokenizer is None:
        raise DataError(f"words were given, but {model.name!r} has no tokenizer.")
    if not words:
        raise DataError("no words to score; give some, such as (' sea', ' ship').")
    return continuations(text, ids, list(words), model.tokenizer, vocab_size=model.vocab_size)
