"""The table of controls: what each rules out, and how it is read. A new one is one function and one row."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.concepts.trial import Trial, by_lens, by_translator, encoder_of, subject_embeddings
from interp.analyses.controls import SHUFFLES
from interp.tasks.protocols import Item
from probes.controls import bag_of_tokens, ordered_slots, shuffled_labels
from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.decoding import decode

__all__ = ["CONTROLS", "Control", "ControlContext"]

Right = Int[np.ndarray, " example"] | Int[np.ndarray, "draw example"]
"""1 for every test prompt that is read right; of a control that is drawn many times, one row a draw."""


@dataclass(frozen=True, eq=False)
class ControlContext:
    """What a control may look at.

    Attributes:
        trial: prompts, codebook and penalty.
        states: ``[example d_model]`` at the layer, every prompt.
        probe: the probe that the control is measured against.
        untrained: ``[example d_model]`` of the model with random weights at the layer, where there is one.
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


def _constant(context: ControlContext) -> Right:
    rows = context.trial.rows("train")
    mean = context.probe.encode(context.states[rows]).mean(dim=0, keepdim=True)
    name = decode(context.probe.codebook_, mean, k=1).names[0][0]
    return context.trial.right([name] * len(context.trial.test))


def _bag(context: ControlContext) -> Right:
    trial = context.trial
    known = sorted({token for row in trial.rows("train") for token in trial.token_ids[row]})
    return trial.right(context.refitted(bag_of_tokens(trial.token_ids, vocabulary=known)))


def _slots(context: ControlContext) -> Right:
    trial = context.trial
    known = ordered_slots([trial.token_ids[row] for row in trial.rows("train")])[1]
    return trial.right(context.refitted(ordered_slots(trial.token_ids, vocabulary=known)[0]))


def _subject(context: ControlContext) -> Right:
    return context.trial.right(context.refitted(subject_embeddings(context.trial)))


def _shuffled(context: ControlContext) -> Right:
    return _exchanged(context, lambda item: "")


def _shuffled_in_relation(context: ControlContext) -> Right:
    """Exchange the answers among the facts of a relation, as a fixed false table."""
    return _exchanged(context, lambda item: item.relation)


def _exchanged(context: ControlContext, pool: Callable[[Item], str]) -> Right:
    """Train and test the probe on answers exchanged between facts of a pool, in every part, many times."""
    trial = context.trial
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
    read, test = trial.read_retrained(context.states, lists), trial.rows("test")
    pairs = zip(read, lists, strict=True)
    return np.stack([trial.right(names, [answers[row] for row in test]) for names, answers in pairs])


def _permuted(context: ControlContext) -> Right:
    codebook = context.trial.codebook.permuted(context.trial.seed)
    return context.trial.right(context.refitted(context.states, codebook=codebook))


def _random_weights(context: ControlContext) -> Right:
    assert context.untrained is not None
    return context.trial.right(context.refitted(context.untrained))


def _control_task(context: ControlContext) -> Right:
    """Every fact has a fixed random answer of its relation, in both parts (Hewitt and Liang 2019)."""
    items = context.trial.drawn.items
    known: dict[str, list[str]] = {}
    for item in items:
        if item.part == "train":
            known.setdefault(item.relation, []).append(item.answer)
    drawn: dict[str, str] = {}
    for item in items:
        rng = random.Random(f"{context.trial.seed}:{item.fact}")
        drawn.setdefault(item.fact, rng.choice(sorted(known.get(item.relation, [item.answer]))))
    answers = [drawn[item.fact] for item in items]
    wanted = [drawn[item.fact] for item in context.trial.test]
    return context.trial.right(context.trial.read_retrained(context.states, [answers])[0], wanted)


def _ridge(context: ControlContext) -> Right:
    return _learned_by(context, "ridge")


def _linear_classes(context: ControlContext) -> Right:
    """Fit the softmax on random codes: a plain linear classifier over the concepts met in training."""
    from probes.vsa import Codebook

    trial = context.trial
    codes = Codebook.random(trial.codebook.algebra, trial.codebook.names, seed=trial.seed)
    if trial.encoder != "linear":
        trial = replace(trial, encoder="linear", regularisation=None)
    fitted = trial.fit(context.states, codebook=codes)
    return trial.right([names[0] for names in trial.decode(fitted, context.states).names])


def _labelled(context: ControlContext) -> Right:
    """Learn the answers as labels, where the probe itself learns none."""
    return _learned_by(context, encoder_of(context.trial.codebook))


def _learned_by(context: ControlContext, encoder: str) -> Right:
    trial = replace(context.trial, encoder=encoder, regularisation=None)
    return trial.right([names[0] for names in trial.decode(trial.fit(context.states), context.states).names])


def _logit_lens(context: ControlContext) -> Right:
    """Read the layer by the model's own last step, among the concepts' first tokens."""
    trial = context.trial
    return trial.right(by_lens(trial.model, context.states[trial.rows("test")], trial.codebook.names))


def _translator(context: ControlContext) -> Right:
    trial = context.trial
    return trial.right(by_translator(trial, context.states[trial.rows("test")], context.layer))


@dataclass(frozen=True)
class Control:
    """What the probe is measured against.

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
    read: Callable[[ControlContext], Right]
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
        "subject-embedding",
        "the subject's own embedding",
        "the same probe on the model's embedding of the subject, without any layer",
        _subject,
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
        "the same probe at the same layer of the architecture with random weights",
        _random_weights,
    ),
    Control("ridge", "ridge regression", "least squares onto the same hypervectors", _ridge, baseline=True),
    Control(
        "labelled",
        "the labelled encoder",
        "a probe that learns the answers of the training prompts, where this one learns none",
        _labelled,
        baseline=True,
    ),
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
    Control(
        "translator",
        "a translator",
        "a linear map to the model's own final state, fitted on the training prompts without labels",
        _translator,
        baseline=True,
    ),
)

CONTROLS: dict[str, Control] = {row.name: row for row in _ROWS}
FLOORS: tuple[str, ...] = ("constant", *(row.name for row in _ROWS if row.null))
"""What a reader without information scores: the hardest is the control of the finding."""
BASELINES: tuple[str, ...] = tuple(row.name for row in _ROWS if row.baseline)
