"""Each token of a prompt with a number: what it does to the next word, or what a probe reads at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import probes
from interp.analyses.concepts.trial import concept_tokens
from interp.analyses.looking.reading import Prompt, fixed_start, read, shuffled
from interp.errors import ConfigError, DataError, counted
from interp.lenses.words import words_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About, Figure, Number, Result, Table
from probes.cards import ProbeCard
from probes.statistics import mean_intervals

__all__ = ["TokenScores", "token_effects", "token_scores"]

WIDTH = 10
"""Tokens of a line of the picture."""
MOST = 512
"""Tokens of a prompt, at most."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TokenScores(Result):
    """A number for each token of a prompt, with its control.

    Attributes:
        prompt: its text.
        tokens: as words.
        what: ``effect`` (by how many nats the answer is likelier with this token than with others in its
            place) or ``probe`` (the probability that a probe gives to a label at this token).
        name: the answer, or the label.
        source: of a probe: its site and kind.
        values: of each token; NaN where there is none.
        drawn: ``[draw, token]``: of an effect, that against each replacement (its mean is the value); of a
            probe, what it says at the same token after the same words in other orders.
        floor: of an effect: what rounding alone changes (nats).
    """

    schema: ClassVar[str] = "interp.token-scores/1"

    prompt: str
    tokens: tuple[str, ...]
    what: Literal["effect", "probe"]
    name: str
    source: str
    values: Float[np.ndarray, " pos"]
    drawn: Float[np.ndarray, "draw pos"]
    floor: float

    def redacted(self) -> TokenScores:
        """The same without words."""
        name = self.name if self.what == "probe" else ""
        return replace(self, prompt="", tokens=("",) * len(self.tokens), name=name)

    @property
    def there(self) -> list[int]:
        """The tokens that have a number."""
        return [int(at) for at in np.flatnonzero(np.isfinite(self.values))]

    def control(self, at: int) -> tuple[float, float, float] | None:
        """Mean and 95% interval over draws, of the token's effect, or of the probe after other orders."""
        drawn = self.drawn[:, at]
        if not np.isfinite(drawn).all():
            return None
        found = mean_intervals(drawn, limits=(0.0, 1.0) if self.what == "probe" else None)
        return float(found.value[0]), float(found.low[0]), float(found.high[0])

    def told(self, at: int) -> bool:
        """Whether a number is more than its control.

        An effect is where its interval excludes rounding, a probe's probability where it lies outside of what
        it says after every other order.
        """
        found = self.control(at)
        if found is None:
            return False
        if self.what == "effect":
            return found[1] > self.floor or found[2] < -self.floor
        return not self.drawn[:, at].min() <= self.values[at] <= self.drawn[:, at].max()

    def question(self) -> str:
        """What is asked."""
        if self.what == "effect":
            return f"Which tokens of \u201c{self.prompt}\u201d make {self.name!r} likely?"
        return f"At which tokens of \u201c{self.prompt}\u201d does the probe read {self.name!r}?"

    def verdict(self) -> str:
        """The token with the largest number, beside its control."""
        there = self.there
        sizes = [abs(float(self.values[at])) for at in there]
        at = there[int(np.argmax(sizes))]
        value, found, told = float(self.values[at]), self.control(at), sum(map(self.told, there))
        control = "" if found is None else f" [{found[1]:.2f}, {found[2]:.2f}]"
        if self.what == "effect":
            if not told:
                return f"No token is told from others in its place: {self.name!r} stays as likely."
            return (
                f"{self.tokens[at]!r} (token {at}) does most: with other words in its place {self.name!r} "
                f"is less likely by {value:.2f} nats{control}. {counted(told, 'token')} of {len(there)} "
                f"{'is' if told == 1 else 'are'} told from others in their place."
            )
        beside = f"; after the same words in other orders {found[0]:.2f}{control}" if found else ""
        return (
            f"The probe reads {self.name!r} most at {self.tokens[at]!r} (token {at}; {value:.2f}{beside}). "
            f"At {counted(told, 'token')} it says what no other order of the words before makes it say."
        )

    def lead(self) -> tuple[str, ...]:
        """What the numbers are, and their control."""
        n = counted(len(self.drawn), "draw")
        if self.what == "effect":
            return (
                "Each token but the first is replaced by others that the model itself would put there "
                f"({n}); the effect is the log-probability of the answer (nats) as it is, less that with the "
                f"other token; intervals over draws. Rounding alone changes {self.floor:.1e} nats.",
            )
        return (
            f"A probe of {self.source} is read at every token: the probability it gives to the label. The "
            f"control is the same token after the same words before it in other orders ({n}): what is left "
            "there comes from which words there are, not from how they are put together.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The largest, and how many are told."""
        there = self.there
        at = max(there, key=lambda one: abs(float(self.values[one])))
        found, unit = self.control(at), "nats" if self.what == "effect" else ""
        ends = found[1:] if found is not None and self.what == "effect" else (None, None)
        told = sum(map(self.told, there))
        return (
            Number("largest", float(self.values[at]), *ends, unit=unit, meaning=f"at token {at}"),
            Number("told", told, meaning=f"of {counted(len(there), 'token')}: more than their control"),
        )

    def tables(self) -> tuple[Table, ...]:
        """Every token, the largest first."""
        rows = []
        for at in sorted(self.there, key=lambda one: -abs(float(self.values[one]))):
            found = self.control(at) or (None, None, None)
            word = repr(self.tokens[at])
            rows.append((at, word, float(self.values[at]), *found, "yes" if self.told(at) else ""))
        columns = ("position", "token", "value", "control", "control_low", "control_high", "told")
        note = (
            "control: of an effect its own mean and 95% interval over replacements; of a probe its "
            "probability after other orders. told: more than the control."
        )
        return (Table("tokens", "Token by token", columns, rows, note, private=("token",), shown=10),)

    def figures(self) -> tuple[Figure, ...]:
        """The text, each token coloured by its number; blank where it is not told from its control."""
        order = sorted(range(len(self.tokens)), key=lambda at: (-(at // WIDTH), at))
        shown = [abs(float(self.values[at])) if self.told(at) else 0.0 for at in range(len(self.tokens))]
        most = max(*shown, 1e-12) if self.what == "effect" else 1.0
        data = {
            "x": [at % WIDTH for at in order],
            "y": [at // WIDTH * WIDTH for at in order],
            "column": ["" for _ in order],
            "text": [self.tokens[at] for at in order],
            "value": [shown[at] / most for at in order],
            "rank": [int(self._above(at)) for at in order],
            "tip": [self._tip(at) for at in order],
        }
        unit = f"the effect (full: {most:.2f} nats)" if self.what == "effect" else "the probability"
        caption = (
            f"{WIDTH} tokens a line; the stronger the colour the larger {unit}. Blank: not told from the "
            "control, or without a number. Framed: for the answer or label, and told."
        )
        title = f"What each token does to {self.name!r}"
        title = title if self.what == "effect" else f"Where the probe reads {self.name!r}"
        return (Figure("tokens", "grid", data, title, caption, "token", "position"),)

    def _above(self, at: int) -> bool:
        """Whether a number speaks for the answer or label: told, and above zero or above its control."""
        found = self.control(at)
        least = 0.0 if self.what == "effect" or found is None else found[0]
        return self.told(at) and bool(self.values[at] > least)

    def _tip(self, at: int) -> str:
        found = self.control(at)
        beside = "" if found is None else f", control {found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"
        value = "no number" if at not in self.there else f"{self.values[at]:.2f}{beside}"
        return f"token {at} ({self.tokens[at]!r}): {value}"

    def cautions(self) -> tuple[str, ...]:
        """What one prompt does not show."""
        return ("This is one prompt: intervals are over draws, not over prompts.",)


def token_effects(
    model: ModelLike, prompt: Prompt, *, answer: str = "", draws: int = 8, seed: int = 0
) -> TokenScores:
    """Measure what each token does to the next word: replaced by others that the model would put there.

    Args:
        model: what reads.
        prompt: a text, a conversation, or token ids; at least two tokens.
        answer: the word (its first token); the likeliest next one where left out.
        draws: replacements of each token, drawn from the model's own prediction there without the token.
        seed: of the draws.

    Raises:
        DataError: the prompt is too short or too long.
        ConfigError: ``draws`` is below 2.
    """
    _at_least_two(draws)
    model = as_model(model)
    tokens = read(model, prompt, least=2, most=MOST)
    ids, rng = tokens.token_ids[0], np.random.default_rng(seed)
    logits = model.run(tokens, logits="all").logits
    assert logits is not None
    logs = logits[0].double().log_softmax(dim=-1).cpu()
    word = concept_tokens(model, [answer.strip()])[0][0] if answer.strip() else int(logs[-1].argmax())
    base, drawn = float(logs[-1, word]), np.full((draws, len(ids)), np.nan)
    same = _log_of(model, [list(ids)] * draws, word)
    for at in range(max(1, fixed_start(model, ids)), len(ids)):
        chances = logs[at - 1].exp().numpy().copy()
        chances[ids[at]] = 0.0
        others = rng.choice(len(chances), size=draws, p=chances / chances.sum())
        changed = [[*ids[:at], int(one), *ids[at + 1 :]] for one in others]
        drawn[:, at] = base - _log_of(model, changed, word)
    return TokenScores(
        prompt=tokens.texts[0],
        tokens=words_of(model, ids),
        what="effect",
        name=words_of(model, [word])[0].strip(),
        source="",
        values=drawn.mean(axis=0),
        drawn=drawn,
        floor=float(np.abs(same - base).max()),
        about=About(model=model.described),
        seed=seed,
        warnings=(*model.warnings, *tokens.warnings),
    )


def token_scores(
    model: ModelLike,
    prompt: Prompt,
    probe: str | Path | probes.Probe,
    *,
    label: str = "",
    draws: int = 8,
    compared: int = 24,
    seed: int = 0,
) -> TokenScores:
    """Read a saved probe at each token of a prompt, beside the same token after its words in other orders.

    Args:
        model: what the probe was trained on.
        prompt: a text, a conversation, or token ids; at least two tokens.
        probe: a folder of a saved probe with probabilities, or such a probe with its card.
        label: of the probe; what it says at the last token where left out.
        draws: random orders.
        compared: how many tokens have the control, counted from the end.
        seed: of the orders.

    Raises:
        ProbeFileError: the probe is of another model, or its files are damaged.
        DataError: the prompt is too short or too long.
        ConfigError: ``draws`` is below 2, an unknown label, or a probe without probabilities or site.
    """
    _at_least_two(draws)
    model = as_model(model)
    reader, card = _reader(model, probe)
    tokens = read(model, prompt, least=2, most=MOST)
    ids, rng = tokens.token_ids[0], np.random.default_rng(seed)
    start = fixed_start(model, ids)
    states = model.capture([list(ids)], [card.site], "all", device="cpu", dtype=torch.float32)[card.site]
    own, classes = _probabilities(reader, states.reshape(len(ids), -1)), [str(one) for one in reader.classes_]
    if label and label not in classes:
        raise ConfigError(f"label {label!r} asked; the probe has: {', '.join(classes)}.")
    row = classes.index(label) if label else int(own[-1].argmax())
    drawn = np.full((draws, len(ids)), np.nan)
    for at in range(max(start, len(ids) - compared), len(ids)):
        if len(set(ids[start:at])) > 1:
            orders = [[*shuffled(ids[:at], start, rng), ids[at]] for _ in range(draws)]
            acts = model.capture(orders, [card.site], "last", device="cpu", dtype=torch.float32)
            drawn[:, at] = _probabilities(reader, acts[card.site])[:, row]
    return TokenScores(
        prompt=tokens.texts[0],
        tokens=words_of(model, ids),
        what="probe",
        name=classes[row],
        source=f"{card.site} ({type(reader).__name__})",
        values=own[:, row],
        drawn=drawn,
        floor=0.0,
        about=About(model=model.described),
        seed=seed,
        warnings=(*model.warnings, *tokens.warnings),
    )


def _reader(model: Model, probe: str | Path | probes.Probe) -> tuple[Any, ProbeCard]:
    """A probe that gives probabilities, and its card."""
    if isinstance(probe, str | Path):
        probe = probes.load(probe, fingerprint=model.fingerprint, scheme=model.scheme, width=model.d_model)
    card = getattr(probe, "card_", None)
    if card is None or not card.site or not callable(getattr(probe, "predict_proba", None)):
        raise ConfigError(
            "the probe gives no probabilities or names no site. Give one such as `--kind logistic`."
        )
    return probe, card


def _at_least_two(draws: int) -> None:
    if draws < 2:
        raise ConfigError(f"draws={draws} asked; an interval needs at least 2.")


def _log_of(model: Model, rows: Sequence[Sequence[int]], word: int) -> np.ndarray:
    """``[row]``: the log-probability of a token after each row of ids."""
    return model.logits(rows).double().log_softmax(dim=-1)[:, word].cpu().numpy()


def _probabilities(probe: Any, states: Float[Tensor, "pos d_model"]) -> np.ndarray:
    found = np.asarray(probe.predict_proba(states), dtype=float)
    if found.ndim != 2:
        raise DataError("the probe gives no probability for each label.")
    return found
