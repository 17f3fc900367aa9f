"""Which token comes next: the likeliest one, or a draw by the seed, the prompt and the step alone.

Logits of a prompt differ in their last bits with the batch that they are computed in. So a choice is made
twice over: once with every bound a little wider and once a little tighter than asked. Where both agree, no
rounding can change the token; where they do not, the caller computes the prompt's logits alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import ConfigError

__all__ = ["NEAR", "Sampling", "Settled", "one_sampling", "surprise"]

NEAR = 2e-4
"""Logits that differ by less, relative to the largest, may change places between batches (in float32)."""
Ranked = tuple[Tensor, ...]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The draw of a prompt depends on the seed, its place in the list, and the step.

    The order is that of transformers: temperature, ``top_k``, ``top_p``, ``min_p``. Tokens as likely as the
    last one that is kept are kept too.

    Attributes:
        temperature: 1 draws from the model's own distribution; 0 takes the likeliest token.
        top_p: draw among the likeliest tokens that together have this probability (Holtzman et al., 2020).
        top_k: draw among so many likeliest tokens; 0 for all.
        min_p: draw among tokens that have at least this share of the likeliest one's probability.
        seed: of the draws.
        first: place of the first prompt in a longer list of which a call continues a part.

    Raises:
        ConfigError: a value out of its range, or bounds that change nothing at temperature 0.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        heat = self.temperature
        if not (_is_number(heat) and math.isfinite(heat) and heat >= 0):
            raise ConfigError(f"temperature {heat!r} asked; use 0 for the likeliest token, or more to draw.")
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigError(
                f"top_p {self.top_p!r} asked; use a probability above 0, such as 0.9; 1 for all."
            )
        if not (_is_whole(self.top_k) and self.top_k >= 0):
            raise ConfigError(f"top_k {self.top_k!r} asked; use a number of tokens, such as 50; 0 for all.")
        if not (_is_number(self.min_p) and 0 <= self.min_p <= 1):
            raise ConfigError(
                f"min_p {self.min_p!r} asked; use a share from 0 to 1, such as 0.05; 0 for all."
            )
        for name in ("seed", "first"):
            if not (_is_whole(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} {getattr(self, name)!r} asked; use a whole number from 0.")
        for name in ("seed", "first", "top_k"):  # NumPy's own numbers become Python's, which can be saved
            object.__setattr__(self, name, int(getattr(self, name)))
        if heat == 0 and self.bounds:
            raise ConfigError(
                f"temperature 0 takes the likeliest token, so {self.bounds[0]} changes nothing; leave it "
                "out, or give a temperature above 0."
            )

    @property
    def bounds(self) -> tuple[str, ...]:
        """Which bounds leave tokens out, as they are written."""
        off = {"top_p": 1, "top_k": 0, "min_p": 0}
        return tuple(
            f"{name}={getattr(self, name)}" for name, none in off.items() if getattr(self, name) != none
        )

    @property
    def words(self) -> str:
        """How tokens were chosen, for a reader."""
        if self.temperature == 0:
            return "greedily"
        bounds = "".join(f", {one}" for one in self.bounds)
        return f"by drawing at temperature {self.temperature:g}{bounds} (seed {self.seed})"

    def probabilities(self, logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
        """The distribution that is drawn from, in float64: zero for tokens that the bounds leave out."""
        flat = logits.double().reshape(-1, logits.shape[-1])
        if self.temperature == 0:
            found = torch.nn.functional.one_hot(flat.argmax(-1), flat.shape[-1]).double()
        else:
            scores = flat / self.temperature
            kept = self._kept(scores, 0.0, torch.zeros(1), self._ranked(scores))
            found = scores.masked_fill(~kept, -math.inf).softmax(-1)
        return found.reshape(logits.shape)

    def choose(self, logits: Float[Tensor, "batch vocab"], prompts: Sequence[int], step: int) -> Settled:
        """Choose the next token of some prompts.

        A draw is the token with the largest score + noise, where the noise has a Gumbel distribution (Gumbel,
        1954): two tokens change places only where their sums are as close as rounding.

        Args:
            logits: of each prompt, ``[batch vocab]``.
            prompts: their places in the list.
            step: 0 for the first new token.
        """
        # MPS knows no float64
        logits = logits.to("cpu" if logits.device.type == "mps" else logits.device, torch.float64)
        near = NEAR * logits.abs().nan_to_num(posinf=0.0).amax(-1, keepdim=True)
        if self.temperature == 0:
            best = logits.topk(min(2, logits.shape[-1]), -1)
            return Settled(best.indices[:, 0], _apart(best.values) >= near[:, 0])
        near, scores = near / self.temperature, logits / self.temperature
        race = scores + self._noise(scores, prompts, step)
        if not self.bounds:
            best = race.topk(min(2, race.shape[-1]), -1)
            return Settled(best.indices[:, 0], _apart(best.values) >= near[:, 0])
        ranked = self._ranked(scores)
        most, least, asked = (self._kept(scores, sign, near, ranked) for sign in (1.0, -1.0, 0.0))
        best = race.masked_fill(~most, -math.inf).topk(min(2, race.shape[-1]), -1)
        sure = (_apart(best.values) >= near[:, 0]) & least.gather(1, best.indices[:, :1])[:, 0]
        return Settled(race.masked_fill(~asked, -math.inf).argmax(-1), sure)

    def _noise(self, scores: Tensor, prompts: Sequence[int], step: int) -> Tensor:
        size = scores.shape[-1]
        draws = [
            np.random.default_rng([self.seed, self.first + prompt, step]).standard_exponential(size)
            for prompt in prompts
        ]
        return -torch.from_numpy(np.stack(draws)).to(scores.device).log()

    def _ranked(self, scores: Tensor) -> Ranked | None:
        """The scores from the largest down, negated, and whose they are; sorted only where it is needed."""
        return tuple(scores.neg().sort(-1)) if self.top_p < 1 else None

    def _kept(
        self, scores: Tensor, sign: float, near: Tensor, ranked: Ranked | None
    ) -> Bool[Tensor, "batch vocab"]:
        """Which tokens the bounds keep: as asked (sign 0), at most (1) or at least (-1) under rounding."""
        slack, size = sign * near.to(scores.device), scores.shape[-1]
        kept = torch.ones_like(scores, dtype=torch.bool)
        if 0 < self.top_k < size:
            top = scores.topk(self.top_k + 1, -1).values
            # surely among the k: clearly above the one after them
            kept = scores > top[:, -1:] - slack if sign < 0 else scores >= top[:, -2:-1] - slack
        if ranked is not None:
            kept &= _likelier(scores, kept, slack, ranked, tied=sign < 0) < self.top_p + 2 * slack
        if self.min_p > 0:
            kept &= scores >= scores.amax(-1, keepdim=True) + math.log(self.min_p) - 2 * slack
        return kept


@dataclass(frozen=True, eq=False)
class Settled:
    """The tokens that were chosen.

    Attributes:
        tokens: of each prompt.
        sure: whether no rounding of the logits could have changed it.
    """

    tokens: Int[Tensor, " batch"]
    sure: Bool[Tensor, " batch"]


def one_sampling(sample: Sampling | None, temperature: float, seed: int) -> Sampling:
    """The sampling that was asked for, in one of two ways.

    Raises:
        ConfigError: it was asked in both, or is no ``Sampling``.
    """
    if sample is None:
        return Sampling(temperature, seed=seed)
    if not isinstance(sample, Sampling):
        raise ConfigError(f"sample {sample!r} asked; give interp.Sampling(temperature=0.7, seed=0), or None.")
    if temperature != 0 or seed != 0:
        raise ConfigError(
            "temperature and seed were given beside sample=Sampling(...); put them into the Sampling."
        )
    return sample


def surprise(
    logits: Float[Tensor, "batch vocab"], tokens: Int[Tensor, " batch"]
) -> list[tuple[float, float, int]]:
    """Of each token in the model's own distribution: log-probability, entropy (nats), and rank from 1."""
    logs = logits.float().log_softmax(-1)
    own = logs.gather(1, tokens[:, None])
    entropy = torch.special.entr(logs.exp()).sum(-1)
    ranks = (logs > own).sum(-1) + 1
    return list(zip(own[:, 0].tolist(), entropy.tolist(), ranks.tolist(), strict=True))


def _likelier(scores: Tensor, kept: Tensor, slack: Tensor, ranked: Ranked, *, tied: bool) -> Tensor:
    """The probability of the tokens above each one; ``tied``: those as close as rounding count too."""
    shares = scores.masked_fill(~kept, -math.inf).softmax(-1)
    ordered, order = ranked
    summed = torch.nn.functional.pad(shares.gather(1, order).cumsum(-1), (1, 0))
    above = torch.searchsorted(ordered, -(scores + 2 * slack), right=tied)
    return summed.gather(1, above) - shares if tied else summed.gather(1, above)


def _apart(best: Tensor) -> Tensor:
    """How far the first is above the second."""
    return best[:, 0] - best[:, 1] if best.shape[1] > 1 else torch.full_like(best[:, 0], math.inf)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
