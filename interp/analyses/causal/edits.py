"""The table of edits: how a state is moved, of which only the part along some directions is applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyses.causal.directions import Directions

__all__ = ["EDITS", "Edit", "States", "matched"]

Shift = Float[Tensor, "example d_model"]


@dataclass(frozen=True, eq=False)
class States:
    """Hold the states that are moved, and what they are moved to.

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
        """Give how far prompts lie from their donors along ``towards``, on average."""
        return abs(float(((self.donors - self.current) * self.towards).sum(dim=1).mean()))


@dataclass(frozen=True)
class Edit:
    """Describe an edit.

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
    """Give the part of a shift along other directions, made as long, prompt by prompt, as that along its own.

    Zero where the shift has no part there at all.
    """
    wanted, found = own.along(shift).norm(dim=1, keepdim=True), other.along(shift)
    length = found.norm(dim=1, keepdim=True)
    unit = torch.where(length > 0, found / length.clamp_min(1e-30), torch.zeros_like(found))
    return wanted * unit
