"""How surprising each token of a prompt is to the model, beside the same words before it in other orders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyses.looking.reading import Prompt, fixed_start, read, shuffled
from interp.errors import ConfigError, counted
from interp.lenses.words import words_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About, Figure, Number, Result, Table
from probes.statistics import mean_intervals

__all__ = ["Surprise", "surprise"]

WIDTH = 10
"""Tokens of a line of the picture."""
MOST = 512
"""Tokens of a prompt, at most."""
COMPARED = 24
"""Tokens that are compared with other orders: the last ones of a longer prompt."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Surprise(Result):
    """How surprising each token of a prompt is.

    Attributes:
        prompt: its text.
        tokens: as words; the first is given, and has no surprise.
        nats: minus the log-probability of each token but the first, given those before it.
        entropy: of the model's distribution there (nats): the surprise that it expects.
        rank: of the token among all; 1 is the likeliest.
        expected: the likeliest token there.
        shuffled: ``[draw, token]``: its surprise after the same tokens in another order; NaN where there is
            no other order, and for the first tokens of a long prompt.
    """

    schema: ClassVar[str] = "interp.surprise/1"

    prompt: str
    tokens: tuple[str, ...]
    nats: Float[np.ndarray, " pos"]
    entropy: Float[np.ndarray, " pos"]
    rank: Int[np.ndarray, " pos"]
    expected: tuple[str, ...]
    shuffled: Float[np.ndarray, "draw pos"]

    def redacted(self) -> Surprise:
        """The same without words."""
        none = ("",) * len(self.tokens)
        return replace(self, prompt="", tokens=none, expected=none[1:])

    @property
    def compared(self) -> np.ndarray:
        """Which tokens have a control."""
        return np.asarray(np.isfinite(self.shuffled).all(axis=0))

    def question(self) -> str:
        """What is asked."""
        return f"How surprising is each token of \u201c{self.prompt}\u201d?"

    def verdict(self) -> str:
        """The most surprising token, and whether the order before it matters."""
        at = int(self.nats.argmax())
        said = (
            f"The most surprising token is {self.tokens[at + 1]!r} ({self.nats[at]:.2f} nats; place "
            f"{self.rank[at]:,}, the model expected {self.expected[at]!r})."
        )
        if not self.compared.any():
            return f"{said} The prompt is too short to be compared with other orders of its words."
        gain, low, high = self._gain()
        word = "lower than" if low > 0 else "higher than" if high < 0 else "not told from what it is"
        by = f"(by {gain:.2f} nats [{low:.2f}, {high:.2f}])"
        return f"{said} The mean surprise is {word} after the same words in other orders {by}."

    def _gain(self) -> tuple[float, float, float]:
        """By how much less surprising tokens are in this order: mean and interval over orders."""
        each = (self.shuffled[:, self.compared] - self.nats[self.compared]).mean(axis=1)
        found = mean_intervals(each)
        return float(found.value[0]), float(found.low[0]), float(found.high[0])

    def lead(self) -> tuple[str, ...]:
        """What the numbers are."""
        orders = counted(len(self.shuffled), "random order")
        return (
            "Surprise is minus the log-probability (nats) that the model gives to the token that comes, from "
            f"those before it. The control is the same token after the same tokens before it in {orders}: "
            "what is left there comes from which words there are, not from how they are put together.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """Means over tokens."""
        mean, expects = float(self.nats.mean()), float(self.entropy.mean())
        found = [
            Number("surprise", mean, unit="nats", meaning="mean over all tokens but the first"),
            Number("expected", expects, unit="nats", meaning="mean entropy: what it expects"),
        ]
        if self.compared.any():
            gain, low, high = self._gain()
            meaning = "less than after the same words in other orders; interval over orders"
            found.append(Number("order-gain", gain, low, high, "nats", meaning))
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """Every token."""
        columns = (
            "position",
            "token",
            "nats",
            "expects",
            "rank",
            "shuffled",
            "shuffled_low",
            "shuffled_high",
        )
        rows = []
        for at in range(len(self.nats)):
            control: tuple[Any, ...] = (None, None, None)
            if self.compared[at]:
                one = mean_intervals(self.shuffled[:, at])
                control = (float(one.value[0]), float(one.low[0]), float(one.high[0]))
            token, rank = repr(self.tokens[at + 1]), int(self.rank[at])
            rows.append((at + 1, token, float(self.nats[at]), float(self.entropy[at]), rank, *control))
        note = (
            "nats: the surprise; expects: the entropy (nats); shuffled: the surprise after the same tokens "
            "in other orders, mean with its 95% interval."
        )
        return (Table("tokens", "Token by token", columns, rows, note, private=("token",), shown=COMPARED),)

    def figures(self) -> tuple[Figure, ...]:
        """The text, each token coloured by how improbable it was."""
        size = min(len(self.tokens), MOST)
        order = sorted(range(size), key=lambda at: (-(at // WIDTH), at))  # the last line is the lowest
        data = {
            "x": [at % WIDTH for at in order],
            "y": [at // WIDTH * WIDTH for at in order],
            "column": ["" for _ in order],
            "text": [self.tokens[at] for at in order],
            "value": [0.0 if not at else float(-np.expm1(-self.nats[at - 1])) for at in order],
            "rank": [0 if not at else int(self.rank[at - 1]) for at in order],
            "tip": [self._tip(at) for at in order],
        }
        caption = (
            f"{WIDTH} tokens a line; the stronger the colour the less probable the token was (one minus its "
            "probability; the first is given). Framed where no other was likelier."
        )
        return (
            Figure("surprise", "grid", data, "How surprising each token is", caption, "token", "position"),
        )

    def _tip(self, at: int) -> str:
        told = "given" if not at else f"{self.nats[at - 1]:.2f} nats, place {self.rank[at - 1]:,}"
        return f"token {at} ({self.tokens[at]!r}): {told}"

    def cautions(self) -> tuple[str, ...]:
        """What one prompt does not show."""
        return ("This is one prompt: intervals are over orders of its words, not over prompts.",)


def surprise(
    model: ModelLike, prompt: Prompt, *, draws: int = 16, compared: int = COMPARED, seed: int = 0
) -> Surprise:
    """Measure how surprising each token of a prompt is, beside the same words before it in other orders.

    Args:
        model: what reads.
        prompt: a text, a conversation, or token ids; at least two tokens.
        draws: random orders.
        compared: how many tokens have the control, counted from the end; each costs ``draws`` passes.
        seed: of the orders.

    Raises:
        DataError: the prompt is too short or too long.
        ConfigError: ``draws`` is below 2, or ``compared`` below 1.
    """
    if draws < 2 or compared < 1:
        raise ConfigError(
            f"draws={draws} random orders for {counted(compared, 'token')} asked; an interval needs at "
            "least 2 orders, of at least 1 token."
        )
    model = as_model(model)
    tokens = read(model, prompt, least=2, most=MOST)
    ids = tokens.token_ids[0]
    logits = model.run(tokens, logits="all").logits
    assert logits is not None
    logs = logits[0, :-1].double().log_softmax(dim=-1).cpu()
    own = _of(logs, torch.tensor(ids[1:]))
    words = words_of(model, ids)
    return Surprise(
        prompt=tokens.texts[0],
        tokens=words,
        nats=-own.numpy(),
        entropy=-(logs.exp() * logs).nansum(dim=-1).numpy(),
        rank=1 + (logs > own[:, None]).sum(dim=-1).numpy(),
        expected=words_of(model, logs.argmax(dim=-1).tolist()),
        shuffled=_shuffled(model, ids, draws, compared, seed),
        about=About(model=model.described),
        seed=seed,
        warnings=(*model.warnings, *tokens.warnings),
    )


def _of(logs: Float[Tensor, "pos vocab"], ids: Int[Tensor, " pos"]) -> Float[Tensor, " pos"]:
    return logs.gather(1, ids[:, None])[:, 0]


def _shuffled(model: Model, ids: tuple[int, ...], draws: int, compared: int, seed: int) -> np.ndarray:
    """``[draw, token]``: the surprise of each token after those before it in other orders."""
    rng, start = np.random.default_rng(seed), fixed_start(model, ids)
    found = np.full((draws, len(ids) - 1), np.nan)
    places = [at for at in range(1, len(ids)) if len(set(ids[start:at])) > 1 and at >= len(ids) - compared]
    for at in places:
        prefixes = [shuffled(ids[:at], start, rng) for _ in range(draws)]
        found[:, at - 1] = -model.logits(prefixes).double().log_softmax(dim=-1)[:, ids[at]].cpu().numpy()
    return found
