"""What a probe's causal test is about: its test prompts, their labels, and the other label of each."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyses.concepts.result import ConceptResult
from interp.analyses.probing.result import ProbeResult
from interp.errors import ConfigError, DataError, counted
from interp.models.model import Model
from probes.base import Probe
from probes.hyperdimensional import HyperdimensionalProbe

__all__ = ["Probed", "Subject", "paired", "sampled", "subject_of", "training_mean"]

Probed = ProbeResult | ConceptResult
TRAINING = 512
"""Training prompts whose mean is taken, at most."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The prompts that a probe was tested on, and how to read it.

    Attributes:
        texts: the prompts: texts, or messages of conversations.
        labels: what the probe should read from each.
        groups: over which intervals are drawn.
        kinds: prompts are compared with others of their kind, where there are any.
        names: every label that the probe was trained to tell apart, or every concept it may name.
        probe: the fitted probe.
        layer: the block whose ``resid_post`` it reads.
        position: the token it reads.
        others: for each prompt the number of the one that it is compared with; empty before that is drawn.
    """

    texts: tuple[Any, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    probe: Probe
    layer: int
    position: str | int
    others: tuple[int, ...] = ()

    def __getitem__(self, rows: Sequence[int]) -> Subject:
        """Some of the prompts, in that order."""
        columns = {
            name: tuple(getattr(self, name)[row] for row in rows)
            for name in ("texts", "labels", "groups", "kinds")
        }
        return replace(self, **columns)

    @property
    def other_labels(self) -> tuple[str, ...]:
        """The label of each prompt's counterpart."""
        return tuple(self.labels[at] for at in self.others)


def subject_of(found: Probed) -> Subject:
    """The test prompts of a probing result.

    Args:
        found: what ``probe`` or ``probe_concepts`` returned.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(found, ProbeResult):
        rows, data = found.split.test.tolist(), found.data
        texts, labels, groups = (
            tuple(column[row] for row in rows) for column in (data.prompts, data.labels, data.groups)
        )
        names = tuple(sorted({data.labels[row] for row in found.split.train.tolist()}))
        probe = found.probes[found.layer]
        return Subject(texts, labels, groups, ("",) * len(rows), names, probe, found.layer, found.position)
    if isinstance(found, ConceptResult):
        items = found.items
        return Subject(
            tuple(item.text for item in items),
            tuple(item.answer for item in items),
            tuple(item.fact for item in items),
            tuple(item.relation for item in items),
            found.probe.codebook_.names,
            found.probe,
            found.layer,
            "last",
        )
    raise ConfigError(
        f"a {type(found).__name__} was given; give what interp.analyses.probe or probe_concepts returned."
    )


def training_mean(model: Model, found: Probed) -> Float[Tensor, " d_model"]:
    """The mean state over prompts that the probe was trained on."""
    if isinstance(found, ConceptResult):
        return _scaled(found.probe)
    rows = found.split.train.tolist()
    chosen = random.Random(f"mean:{found.seed}").sample(rows, min(TRAINING, len(rows)))
    site = f"resid_post.{found.layer}"
    prompts = [found.data.prompts[row] for row in chosen]
    acts = model.capture(prompts, site, found.position, device="cpu", dtype=torch.float32)
    return acts[site].flatten(0, -2).mean(dim=0)


def _scaled(probe: HyperdimensionalProbe) -> Tensor:
    return probe.fitted_.mean.float().cpu()


def sampled(subject: Subject, most: int, seed: int) -> Subject:
    """So many prompts at most, drawn at random, in their order."""
    n = len(subject.texts)
    rows = sorted(random.Random(f"prompts:{seed}").sample(range(n), min(n, most)))
    return subject[rows]


def paired(subject: Subject, words: Mapping[str, int], seed: int) -> Subject:
    """Draw for each prompt one with another label (of its kind where there is any), and drop what has none.

    Args:
        subject: the prompts.
        words: first token per label, where those are compared: the other label must begin with another.
        seed: of the draw.

    Raises:
        DataError: fewer than two labels.
    """
    rng = random.Random(f"others:{seed}")
    marks = [(label, words.get(label, label)) for label in subject.labels]
    found: list[int] = []
    for at, (label, word) in enumerate(marks):
        fit = [n for n, (other, said) in enumerate(marks) if other != label and said != word]
        near = [n for n in fit if subject.kinds[n] == subject.kinds[at]]
        if not fit:
            raise DataError(
                f"all {counted(len(marks), 'test prompt')} have the label {label!r}, or one that begins "
                "with the same "
                "token; exchanging it needs prompts of two labels."
            )
        found.append(rng.choice(near or fit))
    return replace(subject, others=tuple(found))
