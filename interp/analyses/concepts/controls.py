"""The table of controls: what each rules out, and how it is read. A new one is one function and one row."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.concepts.trial import Trial
from interp.analyses.concepts.vocabulary import concept_tokens
from interp.analyses.shuffles import SHUFFLES
from interp.tasks.protocols import Item
from probes.controls import bag_of_tokens, ordered_slots, shuffled_labels
from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.decoding import decode

__all__ = ["CONTROLS", "Control", "Stand"]

Right = Int[np.ndarray, " example"] | Int[np.ndarray, "draw example"]
"""1 for every test prompt that is read right; of a control that is drawn many times, one row a draw."""


@dataclass(frozen=True, eq=False)
class Stand:
    """Hold what a control may look at.

    Attributes:
        trial: prompts, codebook and penalty.
        states: ``[example d_model]`` at the layer, every prompt.
        probe: the probe that the control is measured against.
        untrained: ``[example d_model]`` of the untrained twin at the layer, where there is one.
        layer: the layer.
    """

    trial: Trial
    states: Float[torch.Tensor, "example d_model"]
    probe: HyperdimensionalProbe
    untrained: Float[torch.Tensor, "example d_model"] | None
    layer: int

    def refitted(self, X: Any, *, codebook: Any = None) -> list[str]:
        """Fit the same kind of probe on something else and give what it reads on the test prompts."""
        fitted = self.trial.fit(X, codebook=codebook)
        return [names[0] for names in self.trial.decode(fitted, X).names]


def _constant(stand: Stand) -> Right:
    rows = stand.trial.rows("train")
    mean = stand.probe.encode(stand.states[rows]).mean(dim=0, keepdim=True)
    name = decode(stand.probe.codebook_, mean, k=1).names[0][0]
    return stand.trial.right([name] * len(stand.trial.test))


def _bag(stand: Stand) -> Right:
    trial = stand.trial
    known = sorted({token for row in trial.rows("train") for token in trial.token_ids[row]})
    return trial.right(stand.refitted(bag_of_tokens(trial.token_ids, vocabulary=known)))


def _slots(stand: Stand) -> Right:
    trial = stand.trial
    known = ordered_slots([trial.token_ids[row] for row in trial.rows("train")])[1]
    return trial.right(stand.refitted(ordered_slots(trial.token_ids, vocabulary=known)[0]))


def _shuffled(stand: Stand) -> Right:
    return _exchanged(stand, lambda item: "")


def _shuffled_in_relation(stand: Stand) -> Right:
    """Exchange the answers among the facts of a relation, as a fixed false table."""
    return _exchanged(stand, lambda item: item.relation)


def _exchanged(stand: Stand, pool: Callable[[Item], str]) -> Right:
    """Train and test the probe on answers exchanged between facts of a pool, in every part, many times."""
    trial = stand.trial
    items = trial.drawn.items
    pools: dict[tuple[str, str], list[int]] = {}
    for row, item in enumerate(items):
        pools.setdefault((item.part, pool(item)), []).append(row)
    lists: list[list[str]] = []
    for seed in range(trial.seed * SHUFFLES, (trial.seed + 1) * SHUFFLES):
        answers = [item.answer for item in items]
        for rows in pools.values():
            facts = [items[row].fact for row in rows]
            given = shuffled_labels([answers[row] for row in rows], groups=facts, seed=seed)
            for row, answer in zip(rows, given, strict=True):
                answers[row] = answer
        lists.append(answers)
    read, test = trial.read_retrained(stand.states, lists), trial.rows("test")
    pairs = zip(read, lists, strict=True)
    return np.stack([trial.right(names, [answers[row] for row in test]) for names, answers in pairs])


def _permuted(stand: Stand) -> Right:
    codebook = stand.trial.codebook.permuted(stand.trial.seed)
    return stand.trial.right(stand.refitted(stand.states, codebook=codebook))


def _random_weights(stand: Stand) -> Right:
    assert stand.untrained is not None
    return stand.trial.right(stand.refitted(stand.untrained))


def _control_task(stand: Stand) -> Right:
    """Give every fact a fixed random answer of its relation, in both parts (Hewitt and Liang 2019)."""
    items = stand.trial.drawn.items
    known: dict[str, list[str]] = {}
    for item in items:
        if item.part == "train":
            known.setdefault(item.relation, []).append(item.answer)
    drawn: dict[str, str] = {}
    for item in items:
        rng = random.Random(f"{stand.trial.seed}:{item.fact}")
        drawn.setdefault(item.fact, rng.choice(sorted(known.get(item.relation, [item.answer]))))
    answers = [drawn[item.fact] for item in items]
    wanted = [drawn[item.fact] for item in stand.trial.test]
    return stand.trial.right(stand.trial.read_retrained(stand.states, [answers])[0], wanted)


def _ridge(stand: Stand) -> Right:
    trial = stand.trial
    fitted = HyperdimensionalProbe(trial.codebook, seed=trial.seed, encoder="ridge")
    train, held = trial.rows("train"), trial.rows("validation")
    names = [item.answer for item in trial.drawn.items]
    later = (stand.states[held], [names[i] for i in held])
    fitted.fit(stand.states[train], [names[i] for i in train], validation=later)
    return trial.right([names[0] for names in trial.decode(fitted, stand.states).names])


def _linear_classes(stand: Stand) -> Right:
    """Fit the softmax on random codes: a plain linear classifier over the concepts met in training."""
    from probes.vsa import Codebook

    trial = stand.trial
    codes = Codebook.random(trial.codebook.algebra, trial.codebook.names, seed=trial.seed)
    return trial.right(stand.refitted(stand.states, codebook=codes))


def _logit_lens(stand: Stand) -> Right:
    """Read the layer through the model's own final norm and unembedding, among the concepts' first tokens."""
    trial, model = stand.trial, stand.trial.model
    tokens = torch.tensor([ids[0] for ids in concept_tokens(model, trial.codebook.names)])
    states = stand.states[trial.rows("test")].to(model.device, model.dtype)
    with torch.no_grad():
        logits = model.unembed(states)[:, tokens.to(model.device)]
    return trial.right([trial.codebook.names[i] for i in logits.argmax(dim=1).tolist()])


@dataclass(frozen=True)
class Control:
    """Describe what the probe is measured against.

    Attributes:
        name: what users type (``--controls``).
        words: what it is, in a sentence such as "... does as well".
        description: one line.
        read: gives 1 for every test prompt it reads right.
        null: whether it is what a probe of no information scores, so that it belongs to the test of guessing.
        baseline: whether it reads the model too, so that it competes and refutes nothing.
    """

    name: str
    words: str
    description: str
    read: Callable[[Stand], Right]
    null: bool = False
    baseline: bool = False


_ROWS = (
    Control(
        "constant",
        "the mean prediction",
        "the training prompts' mean prediction, decoded",
        _constant,
    ),
    Control("bag-of-tokens", "a bag of words", "the same probe on the counts of the tokens", _bag),
    Control(
        "ordered-slots", "the prompt's words in order", "the same probe on which token stands where", _slots
    ),
    Control(
        "shuffled",
        "probes of shuffled answers",
        "the same probe, trained and tested on answers exchanged between facts, over 20 shuffles",
        _shuffled,
        null=True,
    ),
    Control(
        "shuffled-in-relation",
        "probes of answers shuffled in each relation",
        "the same probe, trained and tested on answers exchanged among facts of a relation; 20 shuffles",
        _shuffled_in_relation,
        null=True,
    ),
    Control(
        "control-task",
        "a control task",
        "the same probe on a fixed random answer for every fact",
        _control_task,
    ),
    Control(
        "permuted-codebook",
        "a permuted codebook",
        "the same probe, hypervectors exchanged among the concepts",
        _permuted,
    ),
    Control(
        "random-weights",
        "the same architecture with random weights",
        "the same probe at the same layer of the untrained twin",
        _random_weights,
    ),
    Control("ridge", "ridge regression", "least squares onto the same hypervectors", _ridge, baseline=True),
    Control(
        "linear-classifier",
        "a linear classifier",
        "softmax over the trained concepts, without a common space",
        _linear_classes,
        baseline=True,
    ),
    Control(
        "logit-lens",
        "the logit lens",
        "the model's own final norm and unembedding at this layer",
        _logit_lens,
        baseline=True,
    ),
)

CONTROLS: dict[str, Control] = {row.name: row for row in _ROWS}
FLOORS: tuple[str, ...] = ("constant", *(row.name for row in _ROWS if row.null))
"""What a reader without information scores: the hardest is the control of the finding."""
BASELINES: tuple[str, ...] = tuple(row.name for row in _ROWS if row.baseline)
