"""The table of edits: concept surgery, and what it is measured against. A new one is a function and a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyses.surgery.swaps import Role, Swap, part_of
from interp.analyses.surgery.writers import Writer
from interp.tasks.protocols import Item

__all__ = ["ARMS", "Arm", "Bench"]

Change = Float[Tensor, "example d_model"]
OURS = "concept"


@dataclass(frozen=True, eq=False)
class Bench:
    """What an edit may look at.

    Attributes:
        writer: what reads and writes concepts.
        swaps: what is exchanged.
        states: ``[example d_model]``, of the prompts, at the layer.
        donors: ``[example d_model]``, of the donors.
        pool: prompts whose mean states are taken, with their items: those of the swaps and others.
        pool_states: ``[item d_model]``, at the layer.
        seed: of random edits.
    """

    writer: Writer
    swaps: tuple[Swap, ...]
    states: Change
    donors: Change
    pool: Sequence[Item]
    pool_states: Float[Tensor, "item d_model"]
    seed: int

    @cached_property
    def _rows(self) -> dict[tuple[Role, str], list[int]]:
        found: dict[tuple[Role, str], list[int]] = {}
        roles: list[Role] = list(dict.fromkeys(swap.role for swap in self.swaps))
        for at, item in enumerate(self.pool):
            for role in roles:
                found.setdefault((role, part_of(item, role)), []).append(at)
        return found

    def mean_state(self, swap: Swap, name: str) -> Float[Tensor, " d_model"] | None:
        """The mean state of other prompts about a concept than the swap's two; None where there are none.

        Where the subject is exchanged, they are of the swap's relation, as the answer follows from both.
        """
        apart = (swap.item.text, swap.donor.text)
        rows = [
            at
            for at in self._rows.get((swap.role, name), [])
            if self.pool[at].text not in apart
            and (swap.role == "answer" or self.pool[at].relation == swap.item.relation)
        ]
        return self.pool_states[rows].mean(dim=0) if rows else None


def _concept(bench: Bench, dose: float) -> Change:
    return bench.writer.edit(bench.states, [swap.pair for swap in bench.swaps], dose) - bench.states


def _mean_difference(bench: Bench, dose: float) -> Change:
    """Missing where no other prompt has the old or the new answer: then not a number, and left out."""
    rows = []
    for swap in bench.swaps:
        old, new = (bench.mean_state(swap, name) for name in swap.pair)
        missing = torch.full_like(bench.states[0], torch.nan)
        rows.append(missing if old is None or new is None else dose * (new - old))
    return torch.stack(rows)


def _interchange(bench: Bench, dose: float) -> Change:
    return dose * (bench.donors - bench.states)


def _none(bench: Bench, dose: float) -> Change:
    return torch.zeros_like(bench.states)


@dataclass(frozen=True)
class Arm:
    """A way to edit a state.

    Attributes:
        name: in tables.
        words: what it is, in a sentence such as "... makes the new answer the first".
        change: from the bench and a dose to the change of each state.
        doses: what is tried; one is chosen on half of the facts and measured on the other half.
    """

    name: str
    words: str
    change: Callable[[Bench, float], Change]
    doses: tuple[float, ...] = (1.0,)


_ROWS = (
    Arm("unchanged", "no edit", _none, (0.0,)),
    Arm(OURS, "exchanging the two concepts in the state", _concept, (0.5, 1.0, 1.5, 2.0, 3.0)),
    Arm(
        "mean-difference",
        "adding the difference of the mean states of other prompts with the two answers",
        _mean_difference,
        (0.5, 1.0, 1.5, 2.0, 3.0),
    ),
    Arm("interchange", "putting in the state of a real prompt with the new answer", _interchange),
)
ARMS: dict[str, Arm] = {row.name: row for row in _ROWS}
RANDOM = "random"
"""Beside them: random directions, in every prompt as long as the concept edit at its dose; several draws."""


def random_like(change: Change, seed: int) -> Change:
    """Random directions, each as long as the change of its prompt."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(change.shape, generator=generator, dtype=torch.float64).to(change)
    return drawn / drawn.norm(dim=1, keepdim=True) * change.norm(dim=1, keepdim=True)
