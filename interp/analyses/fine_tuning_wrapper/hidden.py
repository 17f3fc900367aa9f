"""Can the lacking answers still be read inside? A linear reader of each layer, on facts that it has not seen.

The reader is a ridge regression from the state at a question's last token to the output embedding of the
answer, fitted in the model that it reads; it names the answer, among all answers, whose embedding is most
like what it gives. So it can name answers that it was never shown, also where each fact has its own.

On a real model few hundred facts teach no reader that: it fails in the base already. There the base's
translator reads both models: a linear map to the base's own final states that was fitted on text which the
base drew, without any answer (``TranslatorLens``). It reads no layer after which nothing is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.concepts.known import protocol_of
from interp.analyses.fine_tuning_wrapper.capability import KNOWN, Capability, last_states
from interp.lenses.base import Lens
from interp.models.model import Model

__all__ = ["Hidden", "Layer", "late", "needed", "read_inside", "translated"]

LATE = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Depths at which a translator reads."""
PENALTIES = tuple(10.0**at for at in range(-3, 5))
"""Of the ridge regression, over the mean square of the states; chosen by leaving one out."""


@dataclass(frozen=True)
class Layer:
    """What can be read at one layer of one model.

    Attributes:
        layer: which.
        fitted: accuracy on the lacking facts that it learned from, each left out in turn.
        unseen: right or wrong on each unseen fact.
        shuffled: accuracy on them of the same reader fitted on exchanged answers; of a translator, which is
            fitted on none, how often it names an exchanged answer.
    """

    layer: int
    fitted: float
    unseen: tuple[float, ...]
    shuffled: float

    @property
    def accuracy(self) -> float:
        """On unseen facts."""
        return float(np.mean(self.unseen))


@dataclass(frozen=True)
class Hidden:
    """The layers of one model, for one division of the facts."""

    layers: tuple[Layer, ...]

    @property
    def best(self) -> Layer:
        """The layer that reads best what was learned from: unseen facts have no say in it."""
        return max(self.layers, key=lambda one: one.fitted)


def read_inside(model: Model, found: Capability, layers: Sequence[int], seed: int) -> Hidden:
    """Fit readers on all else that the base answers and on a part of what is lacking, and read the rest.

    Args:
        model: which is read.
        found: the questions.
        layers: which are read.
        seed: of the division, and of the exchange of answers.
    """
    held = {found.lacking[row].group for row in found.divided(seed)[1]}
    others = [one for one in (*found.kept, *found.spare) if one.group not in held]
    questions = [*others, *found.lacking]
    states = last_states(model, questions, layers)
    output: Any = model.hf.get_output_embeddings()
    head = output.weight.detach().cpu().double().numpy()
    tokens = np.array([one.token for one in questions])
    among = np.unique(tokens)
    train, test = (len(others) + np.array(rows, dtype=np.int64) for rows in found.divided(seed))
    fit = np.concatenate([np.arange(len(others)), train])
    exchanged = np.random.default_rng(seed).permutation(tokens[fit])
    made = []
    for layer in layers:
        rows = states[layer]
        left_out, unseen = _readings(rows[fit], tokens[fit], rows[test], head, among)
        _, luck = _readings(rows[fit], exchanged, rows[test], head, among)
        made.append(
            Layer(
                layer,
                float(np.mean((left_out == tokens[fit])[len(others) :])),
                tuple((unseen == tokens[test]).astype(float).tolist()),
                float(np.mean(luck == tokens[test])),
            )
        )
    return Hidden(tuple(made))


def late(model: Model) -> tuple[int, ...]:
    """The layers that a translator reads: five of the last 40%, and not the last one of all."""
    last = model.n_layers - 1
    return tuple(sorted({min(round(last * part), last - 1) for part in LATE} - {-1}))


def needed(model: Model) -> tuple[int, ...]:
    """The layers whose translators are likely to be needed: a linear reader reads the bundled model."""
    return late(model) if protocol_of(model) == KNOWN else ()


def translated(model: Model, found: Capability, lens: Lens, seed: int, layers: Sequence[int]) -> Hidden:
    """Read the lacking answers with a lens that learned from no answer, such as a translator.

    Args:
        model: which is read.
        found: the questions.
        lens: of the base.
        seed: of the division, and of the exchange of answers that its luck is measured on.
        layers: which are read.
    """
    states = last_states(model, found.lacking, layers)
    tokens = np.array([one.token for one in found.lacking])
    among = np.unique([one.token for one in (*found.lacking, *found.kept, *found.spare)])
    train, test = (np.array(rows, dtype=np.int64) for rows in found.divided(seed))
    exchanged = np.random.default_rng(seed).permutation(tokens[test])
    made = []
    for layer in layers:
        logits = lens.logits(torch.from_numpy(states[layer]).float(), layer)[:, torch.from_numpy(among)]
        said = among[logits.argmax(dim=-1).cpu().numpy()]
        right = said == tokens
        made.append(
            Layer(
                layer,
                float(right[train].mean()),
                tuple(right[test].astype(float).tolist()),
                float(np.mean(said[test] == exchanged)),
            )
        )
    return Hidden(tuple(made))


def _readings(
    states: Float[np.ndarray, "item dim"],
    tokens: Int[np.ndarray, " item"],
    others: Float[np.ndarray, "other dim"],
    head: Float[np.ndarray, "vocab embedding"],
    among: Int[np.ndarray, " answer"],
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Int[np.ndarray, " item"], Int[np.ndarray, " other"]]:
    """What is read in each state that was fitted on, itself left out, and in others."""
    mean, targets = states.mean(axis=0), head[tokens]
    goal, middle = targets - targets.mean(axis=0), targets.mean(axis=0)
    rows, new = states - mean, others - mean
    scale = np.sqrt((rows**2).mean()) or 1.0
    rows, new = rows / scale, new / scale
    values, vectors = np.linalg.eigh(rows @ rows.T)
    turned, best = vectors.T @ goal, None
    for penalty in len(rows) * np.asarray(penalties):
        shrink = np.clip(values, 0, None) / (np.clip(values, 0, None) + penalty)
        fitted = vectors @ (shrink[:, None] * turned)
        lever = np.einsum("ij,j,ij->i", vectors, shrink, vectors) + 1 / len(rows)
        left = goal - (goal - fitted) / np.clip(1 - lever, 1e-6, None)[:, None]
        error = float(((goal - left) ** 2).mean())
        if best is None or error < best[0]:
            best = (error, penalty, left)
    assert best is not None
    weights = vectors @ (turned / (np.clip(values, 0, None) + best[1])[:, None])
    return _named(best[2] + middle, head, among), _named(new @ rows.T @ weights + middle, head, among)


def _named(
    given: Float[np.ndarray, "item dim"], head: Float[np.ndarray, "vocab dim"], among: Int[np.ndarray, " a"]
) -> Int[np.ndarray, " item"]:
    """The answer whose embedding is nearest in direction, both less the mean of all answers."""
    known = head[among] - head[among].mean(axis=0)
    given = given - head[among].mean(axis=0)
    unit = known / np.linalg.norm(known, axis=1, keepdims=True)
    return among[(given @ unit.T).argmax(axis=1)]
