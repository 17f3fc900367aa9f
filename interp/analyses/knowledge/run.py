"""The analysis ``recall``: are facts known, and which neurons and layers say so?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp.activations import Activations
from interp.analyses.curves import curve
from interp.analyses.knowledge.attribution import Attribution, attribute, neuron_facts, neuron_findings
from interp.analyses.knowledge.neurons import SITES, neuron_writes
from interp.analyses.knowledge.questions import OwnFacts, Questions, ask
from interp.analyses.knowledge.sublayers import Sublayers, sublayer_gains
from interp.analyses.measured import Measured
from interp.analyses.readout import Readout
from interp.errors import ConfigError, ModelError, SiteError
from interp.findings import Finding
from interp.models.accept import ModelLike, as_model
from interp.models.model import Model

__all__ = ["recall"]

THRESHOLDS = ("per-prompt", "pooled")
ENOUGH = 15
"""Questions from which a relation has a finding of its own."""
SATURATED = 0.9
MOST_OF_ALL = 0.1
"""The largest part of all neurons that can be called the top."""


@dataclass(frozen=True)
class _Asked:
    """Hold the options of one run."""

    threshold: str
    top: int
    prompts: int
    seed: int


def recall(
    model: ModelLike,
    *,
    reference: Measured | None = None,
    n: int = 200,
    seed: int = 0,
    data: OwnFacts | None = None,
    relations: Sequence[str] | None = None,
    threshold: str = "per-prompt",
    top: int = 300,
    prompts: int = 24,
) -> Measured:
    """Ask one-hop facts, and find what raises the log-probability of the answers.

    A neuron's importance is ``log p(w | base + v) - log p(w | base)``, read through the final norm and head,
    with ``v`` what the neuron writes and ``base`` the stream that enters the FFN (Yu and Ananiadou 2024,
    arXiv 2312.12141; Wang et al. 2025, arXiv 2505.13963, knowledge memorization analysis).

    Args:
        model: what is run.
        reference: the same analysis of another model, whose top neurons and threshold are taken; itself where
            left out.
        n: how many questions, relations in equal parts.
        seed: of the draw, and of the wrong answers that serve as control.
        data: your own questions: prompts labelled with their answers, or (prompt, answer[, relation]).
        relations: which of the bundled relations; ten of them where left out.
        threshold: the k-th best neuron of each prompt, or ``pooled`` over prompts.
        top: k, at most a tenth of all neurons.
        prompts: for how many of the questions neurons are measured.

    Returns:
        Accuracy (against always saying the relation's most frequent answer), log-probability of the answer in
        nats (against other answers to the relation), neurons above the threshold, overlap and rank
        correlation of neurons, accuracy by relation, and what attention and FFN of each layer add, in nats
        (against what they add for a wrong answer).

    Raises:
        ConfigError: an option out of range, or a reference that asked other questions.
        DataError: no question can be asked of this tokenizer.
        SiteError: the model's final norm is unknown.
    """
    model, asked = as_model(model), _checked(threshold, top, prompts, seed)
    questions = ask(model, data, relations, n=n, seed=seed)
    if reference is not None:
        _check_same(reference, questions, asked)
    readout = Readout.of(model)
    answers, extra = _answers(model, questions, seed)
    layers, attribution, read, missing = _inside(model, readout, questions, asked, reference)
    state = {
        "questions": questions.fingerprint,
        "options": asked,
        "right": answers[0].values,
        "log_probability": answers[1].values,
        "layers": layers,
        "attribution": attribution,
    }
    known: Mapping[str, Any] = state if reference is None else reference.state
    found = [*answers]
    facts: dict[str, Any] = {
        "base of FFN neurons": "resid_pre" if model.anatomy.parallel else "resid_mid",
        "relations": _by_relation(questions, state, known),
        **extra,
    }
    if attribution is not None and known["attribution"] is not None:
        groups = [questions.asked[row].group for row in _rows(questions, asked.prompts)]
        found += neuron_findings(attribution, known["attribution"], groups, asked.threshold)
        facts["neurons"] = neuron_facts(attribution, model.d_mlp, asked.threshold)
    found += _relations(questions, answers[0])
    if layers is not None:
        found += _curves(questions, layers)
        facts["layers"] = _layer_facts(layers, known["layers"])
    facts_of_model = {
        "name": model.name,
        "weights": model.weights,
        "fingerprint": model.fingerprint,
        "tokenizer_fingerprint": model.tokenizer_fingerprint,
        "scheme": read.scheme,
    }
    notes = (*model.warnings, *questions.notes, *missing)
    return Measured("recall", tuple(found), facts_of_model, facts, state, seed, notes)
