"""Claim: the probe says nothing where it does not know, and the risk that it states holds on new prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.claims.evidence import Evidence, Right, Setting
from interp.analyses.concepts.trial import Trial, concept_tokens, finals_of, trial_of
from interp.models.readout import Readout
from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.encoders import Linear
from probes.hyperdimensional.risk import Claims, claim_threshold
from probes.vsa.algebra import unit

__all__ = ["RISK", "abstention"]

RISK, CONFIDENCE = 0.1, 0.9
Read = tuple[Float[np.ndarray, " example"], Right]
"""How sure each reading is, and 1 where it is right."""


def abstention(setting: Setting) -> Evidence:
    """Set a threshold on validation prompts, one for each concept, and count the claims on new prompts.

    What is counted is a claim that is right. Readers are compared at one stated risk: each gets the lowest
    threshold of its own at which it keeps that risk.
    """
    facts = setting.facts(setting.sizes)
    drawn, states = facts.drawn, facts.states
    texts = [item.text for item in drawn.items]
    tokens = setting.model.tokenize(texts).token_ids
    given: Any = {"dimension": setting.dimension, "seed": setting.seed}
    trial = trial_of(setting.model, drawn, facts.row.codebook, tokens, facts.row.encoder, **given)
    if facts.seen is not None:
        trial = replace(trial, seen=facts.seen, finals=facts.seen.finals)
    probe, trial = trial.settled(states)
    untrained = setting.untrained.states(texts)
    exchanged = trial.codebook.permuted(setting.seed)
    own = _through(trial, probe, states)
    readers = {
        "random weights": _through(trial, trial.fit(untrained), untrained),
        "a permuted codebook": _through(trial, trial.fit(states, codebook=exchanged), states),
    }
    plain = {
        "the same map without the algebra": _among(trial, probe, states),
        "the logit lens": _by_head(trial, finals_of(setting.model, states)),
    }
    if trial.finals is not None:  # the map is to final states, which the head reads
        final = trial.finals[trial.learned("train")].mean(dim=0) + _inner(probe, states)
        plain["the same map and the model's head"] = _by_head(trial, final)
    test, held = trial.rows("test"), trial.rows("validation")
    risk, found = _claimed(trial, own)
    said = [row for row in test if own[0][row] >= risk.threshold]
    missed = trial.rows("unanswered")
    lost = sum(own[0][row] >= risk.threshold for row in missed)
    unknown = f"; of {len(missed)} that the model answers wrong {lost} were claimed" if missed else ""
    wrong = sum(1 - int(own[1][row]) for row in said)
    share = f"{wrong / len(said):.3f}" if said else "none"
    return Evidence(
        f"answers claimed and right, where at most {RISK:.0%} of the claims may be wrong",
        found,
        {name: _claimed(trial, one)[1] for name, one in readers.items()},
        {name: _claimed(trial, one)[1] for name, one in plain.items()},
        trial.facts,
        note=f"{facts.note}stated: at most {RISK:.0%} of claims wrong, with a confidence of "
        f"{CONFIDENCE:.0%}; on new prompts {len(said)} of {len(test)} were claimed, and of these {wrong} "
        f"were wrong ({share}){unknown}",
        validation={name: float(_claimed(trial, one, held)[1].mean()) for name, one in plain.items()},
    )


def _claimed(
    trial: Trial, read: Read, asked: Sequence[int] | None = None
) -> tuple[Claims, Int[np.ndarray, " asked"]]:
    """The threshold, set on one validation prompt of each concept; 1 for each prompt claimed right.

    Args:
        trial: the prompts.
        read: what was read of each.
        asked: which prompts; those of the test where left out.
    """
    sure, right = read
    first = {trial.drawn.items[row].answer: row for row in reversed(trial.rows("validation"))}
    rows = sorted(first.values())
    found = claim_threshold(sure[rows], right[rows], risk=RISK, confidence=CONFIDENCE)
    chosen = trial.rows("test") if asked is None else list(asked)
    return found, right[chosen] * (sure[chosen] >= found.threshold)


def _judged(trial: Trial, scores: Float[torch.Tensor, "example concept"], names: tuple[str, ...]) -> Read:
    best, index = scores.max(dim=1)
    gold = [item.answer for item in trial.drawn.items]
    right = [int(names[at] == name) for at, name in zip(index.tolist(), gold, strict=True)]
    return best.double().cpu().numpy(), np.array(right)


def _through(trial: Trial, probe: HyperdimensionalProbe, X: Float[torch.Tensor, "example dim"]) -> Read:
    return _judged(trial, probe.codebook_.similarities(probe.encode(X)), probe.codebook_.names)


def _inner(
    probe: HyperdimensionalProbe, X: Float[torch.Tensor, "example dim"]
) -> Float[torch.Tensor, "example axis"]:
    """What the probe's map predicts before it is projected into the algebra."""
    encoder, fitted = probe.fitted_.encoder, probe.fitted_
    assert isinstance(encoder, Linear)
    return (X - fitted.mean) / fitted.scale @ encoder.weight + encoder.offset


def _among(trial: Trial, probe: HyperdimensionalProbe, X: Float[torch.Tensor, "example dim"]) -> Read:
    rows = trial.codebook.embeddings
    assert rows is not None
    return _judged(trial, unit(_inner(probe, X)) @ rows.T, trial.codebook.names)


@torch.no_grad()
def _by_head(trial: Trial, final: Float[torch.Tensor, "example d_model"]) -> Read:
    """The probability of the likeliest concept by its first token, where the head reads final states."""
    readout, names = Readout.precise(trial.model.architecture), trial.codebook.names
    tokens, home = [ids[0] for ids in concept_tokens(trial.model, names)], readout.architecture.device
    shares = [
        readout.of_normed(final[part].to(home, readout.dtype)).softmax(dim=1)[:, tokens].float().cpu()
        for part in readout.parts(len(final))
    ]
    return _judged(trial, torch.cat(shares), names)
