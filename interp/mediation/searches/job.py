"""What every search shares: the checked arguments, the source values and the wrapping of effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.edges.graph import Edge
from interp.mediation.effects import DIRECTIONS, Effects
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.metrics import METRICS, Metric, Targets
from interp.mediation.replacements import REPLACEMENTS, Replacement
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["Job", "Mediators"]

Mediators = str | Site | Mediator | Edge | Sequence[str | Site | Mediator | Edge]


@dataclass(frozen=True, eq=False)
class Job:
    """Hold what every search shares.

    Attributes:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: in order of execution.
        metric: how a run is measured.
        replacement: what a mediator's value becomes.
        directions: names in ``DIRECTIONS``.
        seed: of resampling, of the rows that are checked, and of intervals.
    """

    model: Model
    pairs: PairSet
    mediators: tuple[Mediator, ...]
    metric: Metric
    replacement: Replacement
    directions: tuple[str, ...]
    seed: int

    @classmethod
    def of(
        cls,
        model: Model,
        pairs: PairSet,
        mediators: Mediators,
        metric: str,
        replacement: str,
        directions: str,
        positions: str | int,
        seed: int,
    ) -> Job:
        """Check the arguments of a search.

        Raises:
            ConfigError: an unknown metric, replacement, direction or position.
            SiteError: a mediator that the model does not have.
        """
        for name, asked, known in (
            ("metric", metric, METRICS),
            ("replacement", replacement, REPLACEMENTS),
        ):
            if asked not in known:
                raise ConfigError(f"{name} {asked!r} asked; there are: {', '.join(known)}.")
        if directions not in (*DIRECTIONS, "both"):
            raise ConfigError(f"directions {directions!r} asked; use 'both', {' or '.join(DIRECTIONS)}.")
        chosen = tuple(DIRECTIONS) if directions == "both" else (directions,)
        found = mediators_of(model, pairs, mediators, positions=positions)
        return cls(model, pairs, found, METRICS[metric], REPLACEMENTS[replacement], chosen, seed)

    def base(self, direction: str) -> tuple[Tokens, Tokens]:
        """Give the prompts that are patched, and those the values come from."""
        clean, corrupt = self.pairs.clean, self.pairs.corrupt
        return (corrupt, clean) if direction == "denoising" else (clean, corrupt)

    def sources(self, tokens: Tokens, mediators: Sequence[Mediator]) -> dict[Site, Tensor]:
        """Read every carrier on the source prompts, ``[pair pos ...]``, and make replacement values of it."""
        carriers = sorted({site for mediator in mediators for site in mediator.carriers})
        read = self.model.capture(tokens, [str(site) for site in carriers], "all")
        generator = torch.Generator().manual_seed(self.seed)
        return {site: self.replacement.source(read[str(site)], generator) for site in carriers}

    def unpatched(self) -> tuple[Targets, np.ndarray, np.ndarray]:
        """Give the targets, and the metric of the clean and of the corrupt prompts."""
        clean, corrupt = self.model.logits(self.pairs.clean), self.model.logits(self.pairs.corrupt)
        targets = Targets.of(self.pairs, clean.device, clean)
        return targets, self.values(clean, targets), self.values(corrupt, targets)

    def values(self, logits: Tensor, targets: Targets) -> np.ndarray:
        """Give the metric of each row, as float64."""
        return self.metric.values(logits.float(), targets).double().cpu().numpy()

    def effects(
        self, values: dict[str, np.ndarray], clean: np.ndarray, corrupt: np.ndarray, **facts: Any
    ) -> Effects:
        """Wrap the numbers of a search."""
        notes = list(self.pairs.notes)
        if self.replacement.off_distribution:
            notes.append(
                f"replacement {self.replacement.name}: values that the model never has; read with care"
            )
        model = {
            "name": self.model.name,
            "weights": self.model.weights,
            "fingerprint": self.model.fingerprint,
        }
        return Effects(
            mediators=self.mediators,
            values=values,
            clean=clean,
            corrupt=corrupt,
            groups=tuple(self.pairs.groups),
            metric=self.metric.name,
            unit=self.metric.unit,
            replacement=self.replacement.name,
            model=model,
            seed=self.seed,
            warnings=tuple(notes),
            **facts,
        )
