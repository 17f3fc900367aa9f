"""What every search shares: the checked arguments, the source values and the wrapping of effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.activations import Activations
from interp.errors import ConfigError, DataError
from interp.mediation.edges.graph import Edge
from interp.mediation.effects import DIRECTIONS, Effects
from interp.mediation.mediators import Mediator, counted_from_the_end, mediators_of
from interp.mediation.metrics import METRICS, Metric, Targets
from interp.mediation.noise import smallest
from interp.mediation.replacements import Material, Replacement, replacement_of
from interp.mediation.subspaces import Subspace
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import PairSet
from interp.results import About
from interp.sites import Site

__all__ = ["Job", "Mediators", "by_site"]

KL = (
    "kl: distances from the clean run, not a line: the two directions differ in size, so that their mean and "
    "their interaction say little, and a gradient at the clean run is 0; read the denoising direction"
)

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
        model: ModelLike,
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
        model = as_model(model)
        if not isinstance(pairs, PairSet) or not len(pairs):
            found = "an empty PairSet" if isinstance(pairs, PairSet) else f"a {type(pairs).__name__}"
            raise DataError(
                f"{found} given; give a PairSet of at least one pair, such as interp.tasks.sample."
            )
        if metric not in METRICS:
            raise ConfigError(f"metric {metric!r} asked; there are: {', '.join(METRICS)}.")
        rule = replacement_of(replacement)
        if directions not in (*DIRECTIONS, "both"):
            raise ConfigError(f"directions {directions!r} asked; use 'both', {' or '.join(DIRECTIONS)}.")
        chosen = tuple(DIRECTIONS) if directions == "both" else (directions,)
        given: Any = mediators
        found = mediators_of(model, pairs, given, positions=positions)
        return cls(model, pairs, found, METRICS[metric], rule, chosen, seed)

    def part(self, rows: Sequence[int], columns: Sequence[int]) -> Job:
        """The same search over some mediators and some pairs."""
        return replace(self, mediators=tuple(self.mediators[at] for at in rows), pairs=self.pairs[columns])

    def base(self, direction: str) -> tuple[Tokens, Tokens]:
        """Give the prompts that are patched, and those the values come from."""
        clean, corrupt = self.pairs.clean, self.pairs.corrupt
        return (corrupt, clean) if direction == "denoising" else (clean, corrupt)

    @property
    def carriers(self) -> list[Site]:
        """Give the sites that carry the mediators, in the order of execution."""
        return sorted({site for mediator in self.mediators for site in mediator.carriers})

    def sources(
        self, tokens: Tokens, mediators: Sequence[Mediator], *, read: Mapping[Site, Tensor] | None = None
    ) -> dict[Site, Tensor]:
        """Read every carrier on the source prompts, ``[pair pos ...]``, and make replacement values of it.

        Args:
            tokens: the source prompts.
            mediators: whose carriers.
            read: the carriers' values on these prompts, where they are known.
        """
        carriers = sorted({site for mediator in mediators for site in mediator.carriers})
        return self.values_of(tokens, carriers, mediators, read=read)

    def values_of(
        self,
        tokens: Tokens,
        carriers: Sequence[Site],
        mediators: Sequence[Mediator] = (),
        *,
        read: Mapping[Site, Tensor] | None = None,
    ) -> dict[Site, Tensor]:
        """Make replacement values of some sites ``[pair pos ...]``, as these mediators need them."""
        names = [str(site) for site in carriers]
        other = by_site(self.model.capture(tokens, names, "all"), carriers) if read is None else read
        clean = tokens is self.pairs.clean
        base = self.pairs.corrupt if clean else self.pairs.clean
        current = other
        if self.replacement.reads_current:
            current = by_site(self.model.capture(base, names, "all"), carriers)
        found: dict[Site, Tensor] = {}
        for site in carriers:
            values = other[site]
            material = Material(
                values,
                current[site],
                _inside(tokens.lengths, values),
                self.pairs.groups,
                self.seed,
                self.replacement.amount or 0.0,
                _one_subspace(site, mediators) if self.replacement.directed else None,
                1.0 if clean else -1.0,
            )
            found[site] = self.replacement.source(material)
        return found

    def unpatched(self) -> tuple[Targets, np.ndarray, np.ndarray]:
        """Give the targets, and the metric of the clean and of the corrupt prompts."""
        clean, corrupt = self.model.logits(self.pairs.clean), self.model.logits(self.pairs.corrupt)
        targets = Targets.of(self.pairs, clean.device, clean)
        return targets, self.values(clean, targets), self.values(corrupt, targets)

    def values(self, logits: Tensor, targets: Targets) -> np.ndarray:
        """Give the metric of each row, as float64."""
        return self.metric.values(logits.float(), targets).double().cpu().numpy()

    def effects(
        self,
        values: dict[str, np.ndarray],
        clean: np.ndarray,
        corrupt: np.ndarray,
        *,
        noise: float = 0.0,
        warnings: tuple[str, ...] = (),
        **facts: Any,
    ) -> Effects:
        """Wrap the numbers of a search."""
        notes = [*self.pairs.notes, *warnings]
        if self.metric.name == "kl":
            notes.append(KL)
        notes += self.replacement.cautions(self.pairs.lengths)
        if note := counted_from_the_end(self.pairs, self.mediators):
            notes.append(note)
        return Effects(
            mediators=self.mediators,
            values=values,
            clean=clean,
            corrupt=corrupt,
            groups=tuple(self.pairs.groups),
            metric=self.metric.name,
            unit=self.metric.unit,
            replacement=self.replacement.name,
            noise=max(noise, smallest(self.model, clean, corrupt)),
            about=About(model=self.model.described, data=self.pairs.described),
            seed=self.seed,
            warnings=tuple(notes),
            **facts,
        )


def by_site(read: Activations, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Give what was captured, by site.

    Args:
        read: what was captured.
        sites: which of it.
    """
    return {site: read[str(site)] for site in sites}


def _inside(lengths: Sequence[int], values: Tensor) -> Tensor:
    """Say which positions a prompt has: ``[example pos]``."""
    ends = torch.tensor(lengths, device=values.device)
    return torch.arange(values.shape[1], device=values.device) < ends[:, None]


def _one_subspace(site: Site, mediators: Sequence[Mediator]) -> Subspace | None:
    """Give the subspace that all mediators of a site share; None where they have none.

    Raises:
        ConfigError: they have several.
    """
    places = [place for mediator in mediators for place in mediator.places if place.carrier == site]
    known = list(dict.fromkeys(place.subspace for place in places))
    if len(known) > 1:
        raise ConfigError(
            f"steering adds one direction at a site, and the mediators at '{site}' have {len(known)} "
            "subspaces. Search them one at a time."
        )
    return known[0]
