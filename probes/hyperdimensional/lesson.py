"""What an encoder learns from: features, and for every slot of the target which concept fills it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from probes.vsa.algebra import unit
from probes.vsa.codebook import Codebook, Targets

__all__ = ["HeldOut", "Lesson", "Settings", "Slot", "reciprocal_ranks", "slot_vectors", "slots_of"]


@dataclass(frozen=True)
class Settings:
    """How an encoder is trained; the fields are the probe's own parameters of the same names.

    Attributes:
        regularisation: penalties to choose from.
        rank: axes the prediction may use; None for all.
        hidden: width of a hidden layer.
        learning_rate: of AdamW at the start; it falls to 0 on a cosine.
        batch_size: examples per step.
        epochs: at most.
        patience: epochs without a better validation score before training stops.
        temperature: factor on the similarities before the softmax.
        published: whether the losses and the selection of the published probe are used.
        seed: of the order of the examples and of initial weights.
        progress: show a progress bar.
    """

    regularisation: tuple[float, ...]
    rank: int | None
    hidden: int
    learning_rate: float
    batch_size: int
    epochs: int
    patience: int
    temperature: float
    published: bool
    seed: int
    progress: bool = False


@dataclass(frozen=True, eq=False)
class Slot:
    """One place in the target that a concept fills: a role, or the bare answer.

    Attributes:
        role: its name, ``""`` for a bare concept or the members of a set.
        codes: ``[example member]``, rows of the codebook; -1 where an example has fewer members.
    """

    role: str
    codes: Int64[Tensor, "example member"]

    def __getitem__(self, rows: Sequence[int] | Tensor) -> Slot:
        """Some of the examples."""
        return Slot(self.role, self.codes[rows])


def slots_of(codebook: Codebook, targets: Targets) -> tuple[Slot, ...]:
    """The slots that a concept can be read from; none for a published analogy or a sequence."""
    if targets.kind == "set":
        return (Slot("", _padded(codebook, targets.members)),)
    if targets.kind not in ("names", "record"):
        return ()
    return tuple(Slot(role, codebook.index(list(names))[:, None]) for role, names in targets.fillers.items())


def _padded(codebook: Codebook, members: Sequence[Sequence[str]]) -> Int64[Tensor, "example member"]:
    most = max(map(len, members))
    rows = [codebook.index(list(row)).tolist() + [-1] * (most - len(row)) for row in members]
    return torch.tensor(rows, dtype=torch.int64, device=codebook.vectors.device)


def slot_vectors(codebook: Codebook, role: str) -> Float[Tensor, "concept width"]:
    """The vector of every concept in a role, of length 1: what a prediction is compared with."""
    if not role:
        return unit(codebook.matrix)
    bound = codebook.algebra.bind(codebook.vectors, codebook.role(role))
    return unit(codebook.algebra.as_real(bound).float())


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The examples on which everything is chosen: never those of the test.

    Attributes:
        codebook: the concepts.
        features: ``[held_out dim]``, scaled as those of training.
        targets: what they should be mapped to.
        slots: which concepts fill the targets.
    """

    codebook: Codebook
    features: Float[Tensor, "held_out dim"]
    targets: Targets
    slots: tuple[Slot, ...]

    @functools.cached_property
    def vectors(self) -> Float[Tensor, "held_out width"]:
        """The targets as real numbers; made when asked for, since a softmax over concepts needs none."""
        return self.codebook.algebra.as_real(self.targets.vectors).float()


@dataclass(frozen=True, eq=False)
class Lesson:
    """What an encoder learns from.

    Attributes:
        codebook: the concepts.
        features: ``[example dim]``, standardised.
        targets: what they should be mapped to.
        slots: which concepts fill the targets.
        held: validation examples.
    """

    codebook: Codebook
    features: Float[Tensor, "example dim"]
    targets: Targets
    slots: tuple[Slot, ...]
    held: HeldOut

    @functools.cached_property
    def vectors(self) -> Float[Tensor, "example width"]:
        """The targets as real numbers."""
        return self.codebook.algebra.as_real(self.targets.vectors).float()


def reciprocal_ranks(
    scores: Float[Tensor, "example concept"], codes: Int64[Tensor, "example member"]
) -> Float[Tensor, " example"]:
    """One over the rank of the best placed right concept; concepts that tie with it count half."""
    picked = scores.gather(1, codes.clamp_min(0)).masked_fill(codes < 0, float("-inf"))
    best = picked.max(dim=1, keepdim=True).values
    count = torch.int32  # several times faster than counting in 64 bits
    above = (scores > best).sum(dim=1, dtype=count)
    level = (scores == best).sum(dim=1, dtype=count) - (picked == best).sum(dim=1, dtype=count)
    return 1 / (1 + above + level.clamp_min(0) / 2)
