"""Which pairs both models are patched on: chosen by seed and tokenizer alone, never by what a model says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp.analyses.patching import SAME, PairsFor, pairs_for
from interp.errors import DataError
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.shapes import Table
from interp.tasks.pairs import PAIR_TASKS, lined_up, sample

__all__ = ["ENOUGH", "Drawn", "drawn"]

ENOUGH = 0.5
"""The share of a task's pairs that must line up for it to be taken before later ones are looked at."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Hold the pairs of one analysis.

    Attributes:
        parts: those for the ranking, and those of other groups for the circuit.
        task: its name; "" for the user's own pairs.
        shares: task -> the share of its pairs that lines up, of the tasks that were looked at.
        notes: what a reader should know.
    """

    parts: PairsFor
    task: str
    shares: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def held(self) -> PairSet:
        """Give the pairs that the circuit is evaluated on."""
        return self.parts.ranking if self.parts.held_out is None else self.parts.held_out

    def facts(self) -> dict[str, Any]:
        """What was drawn, as JSON types."""
        return {
            "name": self.task or "own pairs",
            "n_ranking": len(self.parts.ranking),
            "n_held_out": 0 if self.parts.held_out is None else len(self.parts.held_out),
            "share_that_lines_up": dict(self.shares),
        }

    def example(self) -> Table:
        """One pair."""
        columns = ("clean", "corrupt")
        pair = self.parts.ranking.pairs[0]
        return Table("example", "One pair", columns, [(pair.clean, pair.corrupt)], private=columns)


def drawn(model: Model, pairs: PairSet | str | None, n: int, seed: int) -> Drawn:
    """Draw pairs of a task, or divide the user's own; pairs that the model gets wrong stay in.

    Args:
        model: whose tokenizer decides what lines up.
        pairs: a task, pairs, or None for the first task of which half of the pairs line up; where there is
            none, the one of which most do.
        n: how many for the ranking, and as many for the circuit (a task only).
        seed: of the draw and of the division.

    Raises:
        DataError: no task has pairs that line up.
    """
    if isinstance(pairs, PairSet):
        return _divided(model, pairs, "", {}, seed)
    shares: dict[str, float] = {}
    task = _task(model, n, seed, shares) if pairs is None else pairs
    return _divided(model, sample(model, task, 2 * n, seed=seed, only_correct=False), task, shares, seed)


def _divided(model: Model, found: PairSet, task: str, shares: Mapping[str, float], seed: int) -> Drawn:
    parts = pairs_for(model, found, seed=seed)
    notes = [SAME] if parts.held_out is None else []
    if len(shares) > 1:
        first, share = next(iter(shares.items()))
        notes.append(
            f"task {task!r} was chosen by the tokenizer alone: {shares[task]:.0%} of its pairs line up, and "
            f"{share:.0%} of those of {first!r}; a model that cannot do it shows effects all the same"
        )
    return Drawn(parts, task, shares, tuple(notes))


def _task(model: Model, n: int, seed: int, shares: dict[str, float]) -> str:
    """Choose a task, and note the share of pairs that lines up of each that was looked at."""
    for name in PAIR_TASKS:
        shares[name] = lined_up(model, name, 2 * n, seed=seed)
        if shares[name] >= ENOUGH:
            return name
    best = max(shares, key=lambda name: shares[name])
    if not shares[best]:
        raise DataError(
            f"no pairs of any task line up for the tokenizer of {model.name!r} ({', '.join(shares)}). Give "
            "pairs of your own, pairs=PairSet.build(model, ...)."
        )
    return best
