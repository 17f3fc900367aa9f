"""What a model and another made of it say and hold: facts that are asked, and text that the base writes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.layer_profiles import Layers, depths
from interp.analyses.predictions import Predictions, divergence, predictions
from interp.analyses.prompts import Own, PromptSet, prompt_set
from interp.analyses.training_changes.weights import WeightChange, weight_changes
from interp.lenses.texts import drawn
from interp.models.model import Model
from interp.tasks import load_world, one_hop
from interp.tasks.prompts import Example
from interp.tasks.relations import RELATIONS

__all__ = ["FIRST", "Against", "Read", "decoded"]

MOST_LAYERS = 6
TEXTS, LENGTH = 32, 20
"""Unrelated texts that the base draws, and their tokens."""
FIRST = 1
"""Tokens of a text whose states are left out: every text begins alike."""


def decoded(model: Model, layers: Sequence[int] | None = None) -> tuple[int]:
    """The layer at which the mean difference is put into words: the middle one of those that are read."""
    at = depths(model, None, MOST_LAYERS) if layers is None else layers
    return (at[len(at) // 2],)


@dataclass(frozen=True, eq=False)
class Against:
    """What one model says and holds, beside the base.

    Attributes:
        facts: ``KL(base || model)`` after each prompt, nats.
        tokens: the same at places of the texts, in the order of ``Read.owner``.
        states: layer -> ``[token, d_model]`` of the texts.
        said: the token said after each prompt.
        weights: what differs in the weights; None where they cannot be laid beside each other.
    """

    facts: Float[np.ndarray, " item"]
    tokens: Float[np.ndarray, " place"]
    states: dict[int, np.ndarray]
    said: Int[np.ndarray, " item"]
    weights: tuple[WeightChange, ...] | None = None


@dataclass(frozen=True, eq=False)
class Read:
    """What every model reads, and what the base makes of it.

    Attributes:
        base: the model that was trained.
        asked: prompts, facts where the user gave none.
        texts: that the base draws.
        at: layers whose states are read.
        logs: log-probabilities of the base after each prompt.
        words: its predictions in the texts.
        states: as in ``Against``.
    """

    base: Model
    asked: PromptSet
    texts: PromptSet
    at: tuple[int, ...]
    logs: Float[torch.Tensor, "item vocab"]
    words: Predictions
    states: dict[int, np.ndarray]

    @classmethod
    def of(cls, base: Model, n: int, seed: int, layers: Layers | None, prompts: Own | None) -> Read:
        """Draw prompts and texts, and read the base."""
        asked = prompt_set(base, n, seed, _facts(n, seed) if prompts is None else prompts)
        written = drawn(base, n_tokens=TEXTS * LENGTH, length=LENGTH, seed=seed)
        own = list(dict.fromkeys(ids for ids in written if len(ids) > FIRST + 1))
        texts = prompt_set(base, len(own), seed, own)
        at = depths(base, layers, MOST_LAYERS)
        words = predictions(base, texts.tokens)
        return cls(base, asked, texts, at, _last(base, asked), words, _states(base, texts, at))

    @property
    def owner(self) -> Int[np.ndarray, " token"]:
        """The text of each state."""
        lengths = self.texts.tokens.lengths
        return np.repeat(np.arange(len(lengths)), [size - FIRST for size in lengths])

    @property
    def read_tokens(self) -> list[int]:
        """The token that stands at each place at which the texts' predictions are compared."""
        ids, words = self.texts.tokens.token_ids, self.words
        pairs = zip(words.owner.tolist(), words.offset.tolist(), strict=True)
        return [ids[row][len(ids[row]) - 1 - back] for row, back in pairs]

    def per_text(self, tokens: Float[np.ndarray, " place"]) -> Float[np.ndarray, " text"]:
        """The mean over the places of each text."""
        return np.array([float(tokens[self.words.owner == row].mean()) for row in range(len(self.texts))])

    def against(self, model: Model, *, weights: bool = True) -> Against:
        """Read a model beside the base."""
        logs, words = _last(model, self.asked), predictions(model, self.texts.tokens)
        self.words.check(words)
        return Against(
            facts=divergence(self.logs, logs),
            tokens=divergence(self.words.log_p, words.log_p),
            states=_states(model, self.texts, self.at),
            said=logs.argmax(dim=-1).numpy(),
            weights=weight_changes(self.base, model) if weights else None,
        )


def _facts(n: int, seed: int) -> list[Example]:
    """So many facts of all relations, each in one of its sentences."""
    rng, facts = random.Random(f"difference:{seed}"), load_world().all_facts
    chosen = rng.sample(facts, min(n, len(facts)))
    return [one_hop.example(fact, rng.randrange(len(RELATIONS[fact.relation].templates))) for fact in chosen]


def _last(model: Model, asked: PromptSet) -> Float[torch.Tensor, "item vocab"]:
    return model.logits(list(asked.tokens.token_ids)).cpu().double().log_softmax(dim=-1).float()


def _states(model: Model, texts: PromptSet, at: Sequence[int]) -> dict[int, np.ndarray]:
    """The residual stream of every token but the first, ``[token, d_model]`` for each layer."""
    ids = list(texts.tokens.token_ids)
    acts = model.capture(
        ids, [f"resid_post.{layer}" for layer in at], "all", device="cpu", dtype=torch.float32
    )
    lengths = texts.tokens.lengths
    return {
        layer: np.concatenate(
            [acts[f"resid_post.{layer}"][row, FIRST:size].numpy() for row, size in enumerate(lengths)]
        ).astype(np.float64)
        for layer in at
    }
