"""Claim: the probe says nothing where it does not know, and the risk that it states holds on new prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.claims.evidence import Evidence, Right, Setting
from interp.analyses.concepts.trial import Trial, codebook_of, concept_tokens, encoder_of
from interp.tasks.protocols import PROTOCOLS
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
    row = PROTOCOLS["concept-disjoint"]
    drawn = row.items(seed=setting.seed, sizes=setting.sizes)
    texts = [item.text for item in drawn.items]
    book = codebook_of(
        setting.model, drawn.concepts, row.codebook, dimension=setting.dimension, seed=setting.seed
    )
    tokens = setting.model.tokenize(texts).token_ids
    trial = Trial(setting.model, drawn, book, tokens, encoder_of(book), setting.seed)
    states = setting.states(texts)
    probe, trial = trial.settled(states)
    untrained = setting.untrained.states(texts)
    exchanged = book.permuted(setting.seed)
    own = _through(trial, probe, states)
    readers = {
        "random weights": _through(trial, trial.fit(untrained), untrained),
        "a permuted codebook": _through(trial, trial.fit(states, codebook=exchanged), states),
    }
    plain = {
        "the same map without the algebra": _among(trial, probe, states),
        "the logit lens": _lens(trial, states),
    }
    test, held = trial.rows("test"), trial.rows("validation")
    risk, found = _claimed(trial, own)
    said = [row for row in test if own[0][row] >= risk.threshold]
    wrong = sum(1 - int(own[1][row]) for row in said)
    share = f"{wrong / len(said):.3f}" if said else "none"
    return Evidence(
        f"answers claimed and right, where at most {RISK:.0%} of the claims may be wrong",
        found,
        {name: _claimed(trial, one)[1] for name, one in readers.items()},
        {name: _claimed(trial, one)[1] for name, one in plain.items()},
        trial.facts,
        note=f"stated: at most {RISK:.0%} of claims wrong, with a confidence of {CONFIDENCE:.0%}; on new "
        f"prompts {len(said)} of {len(test)} were claimed, and of these {wrong} were wrong ({share})",
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


def _among(trial: Trial, probe: HyperdimensionalProbe, X: Float[torch.Tensor, "example dim"]) -> Read:
    encoder, fitted, rows = probe.fitted_.encoder, probe.fitted_, trial.codebook.embeddings
    assert isinstance(encoder, Linear) and rows is not None
    inner = (X - fitted.mean) / fitted.scale @ encoder.weight + encoder.offset
    return _judged(trial, unit(inner) @ rows.T, trial.codebook.names)


def _lens(trial: Trial, states: Float[torch.Tensor, "example d_model"]) -> Read:
    """The logit lens: the probability of the likeliest concept by its first token."""
    tokens = [ids[0] for ids in concept_tokens(trial.model, trial.codebook.names)]
    logits = trial.model.unembed(states.to(trial.model.dtype)).float()
    return _judged(trial, logits.softmax(dim=1)[:, tokens], trial.codebook.names)
