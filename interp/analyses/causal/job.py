"""One causal test at work: what every edit of it shares, and how its numbers are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyses.causal.directions import Directions
from interp.analyses.causal.edits import Edit, States, matched
from interp.analyses.causal.measures import Measure
from interp.analyses.causal.result import Dose, Effect
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.sites import Site
from probes.statistics import bootstrap, paired_difference, permutation_p

__all__ = ["RANDOM", "Changes", "Job"]

Changes = Float[Tensor, "dose arm example"]
"""The output's change: the probe's directions first, then the whole state, then every random draw."""
RANDOM = 2
"""Where the random draws begin among the arms."""
ROWS = 1024
"""Rows whose logits are held at once."""


@dataclass(frozen=True, eq=False)
class Job:
    """Hold what every edit shares.

    Attributes:
        model: what is run.
        tokens: the prompts.
        site: whose states are changed.
        position: at which token of each prompt.
        states: what is changed.
        own: the probe's directions.
        others: the random ones.
        measure: what is watched.
        groups: of the prompts.
        seed: of the intervals.
        batch_size: prompts per forward pass; "auto" chooses.
    """

    model: Model
    tokens: Tokens
    site: Site
    position: str | int
    states: States
    own: Directions
    others: Sequence[Directions]
    measure: Measure
    groups: Sequence[str]
    seed: int
    batch_size: str | int

    def changes(self, edit: Edit) -> Changes:
        """Apply an edit along the probe's directions, to the whole state and along random directions."""
        found = [self._arms(edit.shift(self.states, dose)) for dose in edit.doses]
        return torch.stack(found)

    def _arms(self, shift: Tensor) -> Tensor:
        moves = [self.own.along(shift), shift, *(matched(shift, self.own, other) for other in self.others)]
        states = self.states.current + torch.stack(moves)
        arms = max(1, ROWS // states.shape[1])
        return torch.cat([self._run(part) for part in states.split(arms)])

    def _run(self, states: Float[Tensor, "arm example d_model"]) -> Float[Tensor, "arm example"]:
        """Run every prompt once per arm, its state replaced, and give the change of the output."""
        arms, n = states.shape[:2]
        prompts = [list(ids) for ids in self.tokens.token_ids] * arms
        edit = Intervention(self.site, states.flatten(0, 1), self.position)
        logits = self.model.run(prompts, interventions=[edit], batch_size=self.batch_size).logits
        assert logits is not None
        change = self.measure.change(logits.float(), torch.arange(n).repeat(arms))
        return change.double().cpu().reshape(arms, n)

    def effect(self, edit: Edit, changes: Changes) -> Effect:
        """Compare the probe's directions with random ones, over prompts and over draws."""
        arms = [self.measure.fold(changes[:, arm], edit.doses).numpy() for arm in range(changes.shape[1])]
        own, whole, table = arms[0], arms[1], np.stack(arms[RANDOM:])
        means = table.mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        given = {"groups": self.groups, "seed": self.seed}
        return Effect(
            edit.name,
            bootstrap(own, support="real", **given),
            float(means.mean()),
            float(low),
            float(high),
            paired_difference(own, table.mean(axis=0), support="real", **given),
            permutation_p(float(own.mean()), means),
            None if np.allclose(own, whole) else bootstrap(whole, support="real", **given),
            self._size(edit),
            tuple(own.tolist()),
            tuple(table.mean(axis=0).tolist()),
            tuple(self.groups),
        )

    def _size(self, edit: Edit) -> float:
        """Give the mean length of the edit at dose 1, as a share of that of the states."""
        move = self.own.along(edit.shift(self.states, 1.0))
        return float(move.norm(dim=1).mean() / self.states.current.norm(dim=1).mean())

    def response(self, edit: Edit, changes: Changes) -> tuple[Dose, ...]:
        """Give the measure by dose, the unchanged run at 0."""
        rows = [self._dose(dose, table.numpy()) for dose, table in zip(edit.doses, changes, strict=True)]
        rest = self.measure.level(0.0)
        return tuple(sorted([*rows, Dose(0.0, *[rest] * 6)], key=lambda row: row.dose))

    def _dose(self, dose: float, table: np.ndarray) -> Dose:
        found = bootstrap(table[0], groups=self.groups, seed=self.seed, support="real")
        means = table[RANDOM:].mean(axis=1)
        level = self.measure.level
        low, high = sorted(map(level, (found.interval.low, found.interval.high)))
        below, above = sorted(level(float(at)) for at in np.quantile(means, [0.025, 0.975]))
        return Dose(dose, level(found.value), low, high, level(float(means.mean())), below, above)
