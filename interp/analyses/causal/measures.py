"""How states are edited, and what is watched: how right the next word is, or how far it moves at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyses.causal.directions import Directions
from interp.analyses.concepts.trial import concept_tokens
from interp.errors import DataError
from interp.models.model import Model

__all__ = ["EDITS", "Divergence", "Edit", "Measure", "Preference", "States", "matched", "say", "spoken"]

Shift = Float[Tensor, "example d_model"]


@dataclass(frozen=True, eq=False)
class States:
    """The states that are moved, and what they are moved to.

    Attributes:
        current: ``[example d_model]``, at the token that was read.
        donors: ``[example d_model]``, of a prompt with the other label.
        mean: ``[d_model]``, over the prompts that the probe was trained on.
        towards: ``[example d_model]``, the unit vector from a prompt's label to the other.
    """

    current: Shift
    donors: Shift
    mean: Float[Tensor, " d_model"]
    towards: Shift

    @property
    def distance(self) -> float:
        """How far prompts lie from their donors along ``towards``, on average."""
        return abs(float(((self.donors - self.current) * self.towards).sum(dim=1).mean()))


@dataclass(frozen=True)
class Edit:
    """An edit.

    Attributes:
        name: of the row.
        verb: in tables.
        words: what it does, in a sentence such as "... it".
        description: one line.
        shift: from the states and a dose to where a whole state would go.
        doses: multiples that are tried; 0 is the unchanged run.
    """

    name: str
    verb: str
    words: str
    description: str
    shift: Callable[[States, float], Tensor]
    doses: tuple[float, ...] = (1.0,)


_ROWS = (
    Edit(
        "ablate",
        "erase",
        "erasing",
        "what lies along it is set to the mean of the training prompts, so that it tells nothing",
        lambda states, dose: states.mean - states.current,
    ),
    Edit(
        "patch",
        "exchange",
        "exchanging",
        "what lies along it is taken from a prompt with another label",
        lambda states, dose: states.donors - states.current,
    ),
    Edit(
        "steer",
        "push",
        "pushing along",
        "the state is pushed along it towards another label; dose 1 is the mean distance between prompts",
        lambda states, dose: dose * states.distance * states.towards,
        doses=(-2.0, -1.0, 1.0, 2.0),
    ),
)

EDITS: dict[str, Edit] = {row.name: row for row in _ROWS}


def matched(shift: Shift, own: Directions, other: Directions) -> Shift:
    """The part of a shift along other directions, made as long, prompt by prompt, as that along its own.

    Zero where the shift has no part there at all.
    """
    wanted, found = own.along(shift).norm(dim=1, keepdim=True), other.along(shift)
    length = found.norm(dim=1, keepdim=True)
    unit = torch.where(length > 0, found / length.clamp_min(1e-30), torch.zeros_like(found))
    return wanted * unit


SPOKEN = 0.1
"""The least share of the next token's probability that the labels' words must hold to be the measure."""


@dataclass(frozen=True, eq=False)
class Preference:
    """Watch the log-probability of the right label's first token less another label's.

    Attributes:
        right: ``[example]``, token of the prompt's label.
        other: ``[example]``, token of the label it is compared with.
        before: ``[example]``, the difference in the unchanged run.
    """

    right: Int[Tensor, " example"]
    other: Int[Tensor, " example"]
    before: Float[Tensor, " example"]
    name: str = "preference"
    words: str = "the log-probability of the right label's word over another label's"

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, "example vocab"],
        right: Int[Tensor, " example"],
        other: Int[Tensor, " example"],
    ) -> Preference:
        """Measure the unchanged run."""
        return cls(right, other, _gap(logits, right, other))

    def change(self, logits: Float[Tensor, "row vocab"], rows: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        """The fall of the difference; negative where it rose."""
        at = rows.to(self.before.device)
        return (self.before[at] - _gap(logits, self.right[at], self.other[at])).to(logits.device)

    def level(self, change: float) -> float:
        """The mean difference of log-probabilities."""
        return float(self.before.mean()) - change

    def fold(
        self, changes: Float[Tensor, "dose example"], doses: Sequence[float]
    ) -> Float[Tensor, " example"]:
        """The fall per dose: the slope of a line through the unchanged run."""
        at = torch.tensor(doses, dtype=changes.dtype)[:, None]
        return (at * changes).sum(dim=0) / (at**2).sum()


@dataclass(frozen=True, eq=False)
class Divergence:
    """Watch the whole distribution of the next token.

    Attributes:
        before: ``[example vocab]``, log-probabilities in the unchanged run.
    """

    before: Float[Tensor, "example vocab"]
    name: str = "divergence"
    words: str = "how far the distribution of the next token moves (KL divergence)"

    @classmethod
    def of(cls, logits: Float[Tensor, "example vocab"]) -> Divergence:
        """Keep the unchanged run."""
        return cls(torch.log_softmax(logits, dim=1))

    def change(self, logits: Float[Tensor, "row vocab"], rows: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        """The divergence of the changed run from the unchanged one."""
        before = self.before[rows.to(self.before.device)].to(logits.device)
        return (before.exp() * (before - torch.log_softmax(logits, dim=1))).sum(dim=1)

    def level(self, change: float) -> float:
        """The mean divergence."""
        return change

    def fold(
        self, changes: Float[Tensor, "dose example"], doses: Sequence[float]
    ) -> Float[Tensor, " example"]:
        """The mean over doses."""
        return changes.mean(dim=0)


Measure = Preference | Divergence
"""Both give the change of a run (nats, 0 where nothing changed), and the level after it."""


def _gap(logits: Tensor, right: Tensor, other: Tensor) -> Tensor:
    """Subtract logits, which is to subtract log-probabilities."""
    pair = torch.stack([right, other], dim=1).to(logits.device)
    return torch.diff(logits.gather(1, pair).flip(1), dim=1)[:, 0].cpu()


def say(model: Model, labels: Sequence[str]) -> dict[str, int]:
    """The first token of each label as it stands after another word; {} where one cannot be said."""
    if model.tokenizer is None:
        return {}
    try:
        found = [ids[0] for ids in concept_tokens(model, labels)]
    except DataError:
        return {}
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    return {} if unknown in found else dict(zip(labels, found, strict=True))


def spoken(logits: Float[Tensor, "example vocab"], tokens: Mapping[str, int]) -> float:
    """The share of the next token's probability that the labels' words hold, on average."""
    chosen = torch.tensor(sorted(set(tokens.values())), device=logits.device)
    return float(torch.softmax(logits, dim=1)[:, chosen].sum(dim=1).mean())
