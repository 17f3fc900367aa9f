"""Searches by learned masks: which mediators have to be kept, all at once, for the run to stay as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp.errors import ConfigError
from interp.mediation.experiment import Estimates, Experiment
from interp.mediation.masks.gates import GATES, Gate
from interp.mediation.masks.training import MaskTraining, agreement, hard, learned, schedule
from interp.mediation.searches.search import GradientSearch

__all__ = ["LearnedMask"]

SCORES = (
    "learned mask: a score is the mediator's gate (0 shut, 1 kept) times the pair's total effect, so that "
    "its share is the gate; it says what the mask keeps, not how large an effect is, and so has no interval "
    "and no q"
)
NOISE = "bottleneck: noise is put in while the mask is learned, not the replacement, which the hard mask gets"


@dataclass(frozen=True, kw_only=True)
class LearnedMask(GradientSearch):
    """Train one gate per mediator, shared by all pairs (subnetwork probing; Cao et al. 2021, 2104.03514).

    Over edges this is edge pruning (Bhaskar et al. 2024, 2406.16778). What the mask keeps is measured on the
    hard mask (gates above 1/2, or the density asked), exactly: ``cost[direction]["hard"]`` has its size, its
    metric and its faithfulness; nothing is reported of the soft one.

    Attributes:
        gate: a row of ``GATES``.
        training: steps, batch, rate, price or density.
        runs: masks trained with other noise, whose gates are averaged; their agreement is in the cost.

    Raises:
        ConfigError: numbers that cannot be trained with.
    """

    gate: Gate = GATES["hard-concrete"]
    training: MaskTraining = field(default_factory=MaskTraining)
    runs: int = 1

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        self.training.check(self.gate)
        if self.runs < 1:
            raise ConfigError(f"runs={self.runs} asked; at least one mask has to be trained.")

    @property
    def name(self) -> str:
        """That of the gate."""
        return self.gate.name

    @property
    def description(self) -> str:
        """One line."""
        return self.gate.description

    @property
    def over(self) -> tuple[str, ...]:
        """What the gates mask."""
        return self.gate.over

    def passes(self, experiment: Experiment) -> float | int:
        """Both sides plain, what is put in, and a pass with its gradient per copy of every step."""
        apart = experiment.over == "edges" and experiment.model.architecture.parallel
        rows = sum(map(len, schedule(experiment, self.training))) * self.runs * (1 + apart)
        each = 1 + 2 * rows / len(experiment.pairs)
        return 2 + len(experiment.directions) * each

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Train masks in every direction, and run the hard ones."""
        clean, corrupt = experiment.clean, experiment.corrupt
        total = clean - corrupt
        values: dict[str, np.ndarray] = {}
        cost: dict[str, Any] = {"forwards": 2.0}
        for direction in experiment.directions:
            masks = [
                learned(experiment, direction, self.gate, self.training, 1000 * at + experiment.seed)
                for at in range(self.runs)
            ]
            gates = np.mean([one.gates for one in masks], axis=0)
            values[direction] = gates[:, None] * total
            cost["forwards"] += 1 + 2 * sum(one.rows for one in masks) / len(experiment.pairs)
            cost[direction] = {
                "hard": _exact(experiment, direction, hard(gates, self.training)),
                "curve": masks[0].curve,
            }
            if self.runs > 1:
                cost[direction]["agreement"] = agreement([hard(one.gates, self.training) for one in masks])
        notes = (SCORES, NOISE) if self.gate.noisy else (SCORES,)
        return Estimates(values, clean, corrupt, cost, notes=notes)


def _exact(experiment: Experiment, direction: str, inside: Sequence[int]) -> Mapping[str, Any]:
    """What the hard mask does, by exact runs: its size, its metric and its faithfulness."""
    members, noising, chosen = experiment.mediators, direction == "noising", set(inside)
    kept = [members[at] for at in inside]
    rest = [one for at, one in enumerate(members) if at not in chosen]
    ran = experiment.replaced([rest, members] if noising else [kept, members], direction)
    found, every = ran.values.mean(axis=1)
    plain = float(ran.plain.mean())
    none, whole = (float(every), plain) if noising else (plain, float(every))
    share = (float(found) - none) / (whole - none) if abs(whole - none) > 1e-9 else None
    names = [str(one) for one in kept]
    return {
        "kept": len(kept),
        "members": names,
        "metric": float(found),
        "faithfulness": share,
        "bill": ran.cost,
    }
