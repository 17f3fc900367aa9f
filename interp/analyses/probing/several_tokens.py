"""Several tokens of each prompt, read by one probe: their states with a mask, and what is kept of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.activations import Activations
from interp.errors import ConfigError
from probes.base import Probe
from probes.pooling import POOLINGS, Sequences, read_pooling
from probes.sequences import SequenceProbe

__all__ = ["check_pooling", "last_read", "mean_states", "read_at", "sequence_probe", "sequences_of"]


def check_pooling(pooling: str, kind: str, *, reference: bool) -> None:
    """Refuse a pooling that there is not, a kind of probe that cannot learn through it, and a reference.

    Raises:
        ConfigError: naming what is allowed.
    """
    if not pooling:
        return
    try:
        read_pooling(pooling)
        SequenceProbe(pooling=pooling, base=kind).check()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if reference:
        raise ConfigError("a reference is compared at one token; leave pooling out, or the reference.")


def sequence_probe(pooling: str, kind: str, *, seed: int) -> SequenceProbe:
    """An unfitted probe of several tokens."""
    return SequenceProbe(pooling=pooling, base=kind, seed=seed)


def read_at(position: str | int, pooling: str) -> tuple[str, str]:
    """Which tokens are read, and how their scores become one, in words for a sentence."""
    if not pooling:
        return ("the last token" if position == "last" else f"token {position}"), ""
    what = POOLINGS[pooling.partition(":")[0]].description
    return f"the tokens {str(position)!r}", f"; the scores of its tokens became one by {pooling} ({what})"


def sequences_of(acts: Activations, site: str) -> Sequences:
    """The states of the tokens that were captured, prompt by prompt."""
    states = acts[site]
    if acts.single:
        return Sequences.of(states[:, None])
    lengths = torch.tensor([len(row) for row in acts.positions])
    return Sequences.of(states, torch.arange(states.shape[1]) < lengths[:, None])


def last_read(acts: Activations) -> list[int]:
    """The last token of each prompt that was read."""
    return [at if isinstance(at, int) else max(at) for at in acts.positions]


def mean_states(probe: Probe, data: Sequences) -> Tensor:
    """``[prompt d_model]``: the mean states with the weights that the probe's pooling gave to the tokens."""
    assert isinstance(probe, SequenceProbe)
    scores, keys = probe.token_scores(data)
    weights: Any = read_pooling(probe.pooling).weights(scores, keys, data.valid).mean(axis=2)
    return torch.from_numpy(np.einsum("ntd,nt->nd", data.states, weights)).float()
