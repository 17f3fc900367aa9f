"""What a search is asked, checked once, and what can be measured of it whatever the mediators are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations import Activations
from interp.errors import ConfigError, counted
from interp.features.certificate import notes_of
from interp.mediation.doubts import doubts
from interp.mediation.effects import Effects
from interp.mediation.mediators import counted_from_the_end, overlapping
from interp.mediation.metrics import Metric, Targets
from interp.mediation.noise import rounding_error, smallest
from interp.mediation.replacements import Material, Replacement
from interp.mediation.steps import Steps
from interp.mediation.subspaces import Subspace
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.pairs import PairSet
from interp.results import About
from interp.sites import OF_DICTIONARIES, Site

__all__ = ["SIGNS", "Estimates", "Experiment", "Forecast", "Replaced", "Sets", "by_site", "spent"]


@dataclass(frozen=True)
class Forecast:
    """What a search would run.

    Attributes:
        search: a key of ``SEARCHES``.
        pairs: number of pairs.
        mediators: number of mediators.
        forwards: forward passes of one prompt through the whole model; parts of a prompt or of the layers
            count as such, a backward pass as one. Unpatched prompts and checks come on top.
        naive: the same if each mediator were replaced in each pair and direction by a whole pass of its own.
        walks: passes through the blocks, each of many patched copies; 0 where nothing is replaced exactly.
        skipped: cells whose effect is exactly zero and that are not run.
        exact: whether ``forwards`` is what the bill will say; where what is run depends on what is found, it
            is an estimate.
        memory: bytes that an exhaustive search holds besides the weights, roughly: the unpatched streams,
            keys and values, what is put in, and the last states and logits of some copies at a time, whatever
            the number of mediators; 0 where unknown.
    """

    search: str
    pairs: int
    mediators: int
    forwards: float
    naive: int
    walks: int = 0
    skipped: int = 0
    exact: bool = True
    memory: int = 0

    def __str__(self) -> str:
        """One line."""
        about = "" if self.exact else "about "
        asked = f"{self.search}: {counted(self.pairs, 'pair')}, {counted(self.mediators, 'mediator')}"
        cost = f"{about}{self.forwards:,.0f} forward passes of one prompt"
        beside = f"{self.naive:,} if every mediator had whole passes of its own"
        if not self.walks:
            return f"{asked}, {cost} ({beside})"
        held = f"about {self.memory / 1e9:,.2f} GB besides the weights"
        zero = f"{counted(self.skipped, 'cell')} known to be zero"
        return f"{asked}, {cost} in {self.walks} walks, {zero} ({beside}), {held}"


E = TypeVar("E", bound="Experiment")
Sets = Callable[[str], Sequence[Sequence[Any]]]
"""From a direction to sets of mediators."""
FEW = 4

SIGNS = {"denoising": 1.0, "noising": -1.0}
"""From a change of the metric to an effect that is positive where it works towards the clean answer."""
KL = (
    "kl: distances from the clean run, not a line: the two directions differ in size, so that their mean and "
    "their interaction say little, and a gradient at the clean run is 0; read the denoising direction"
)


@dataclass(frozen=True, eq=False)
class Estimates:
    """The numbers of a search.

    Attributes:
        values: direction -> effects ``[mediator pair]``.
        clean: the metric of the clean prompts.
        corrupt: likewise.
        cost: forward-equivalents and what was skipped, checked or fallen back to.
        noise: the noise floor; 0 where it was not measured.
        notes: what a reader should know about them.
    """

    values: Mapping[str, Float[np.ndarray, "mediator pair"]]
    clean: Float[np.ndarray, " pair"]
    corrupt: Float[np.ndarray, " pair"]
    cost: Mapping[str, Any]
    noise: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Replaced:
    """The metric after sets of mediators were replaced.

    Attributes:
        values: of each set, all of it replaced together.
        plain: with nothing replaced, by the same run.
        cost: the bill of the run.
    """

    values: Float[np.ndarray, "set pair"]
    plain: Float[np.ndarray, " pair"]
    cost: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Experiment(ABC):
    """What is patched, how it is measured and what with; made by :func:`interp.mediation.experiment_of`.

    Attributes:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: of sites, or edges, in order of execution.
        metric: how a run is measured.
        replacement: what a mediator's value becomes.
        directions: names in ``DIRECTIONS``.
        seed: of resampling, of the rows that are checked, and of intervals.
        steps: where whole answers are measured: ``pairs`` are then rows, of which each pair has several.
    """

    model: Model
    pairs: PairSet
    mediators: tuple[Any, ...]
    metric: Metric
    replacement: Replacement
    directions: tuple[str, ...]
    seed: int
    steps: Steps | None = field(default=None, kw_only=True)

    over: ClassVar[str]
    """What the mediators are, a word of ``Search.over``."""

    @property
    def asks(self) -> tuple[str, ...]:
        """What a search has to take, words of ``Search.over``."""
        return (self.over,)

    @property
    @abstractmethod
    def carriers(self) -> list[Site]:
        """The sites whose values are put in, in the order of execution."""

    @abstractmethod
    def replaced(self, sets: Sequence[Sequence[Any]], direction: str, *, progress: bool = False) -> Replaced:
        """Replace each set of mediators together, in every pair.

        Args:
            sets: of the experiment's mediators.
            direction: whose prompts are patched.
            progress: show a progress bar.

        Raises:
            ModelError: the fast passes differ from whole forward passes.
        """

    @abstractmethod
    def first_order(self) -> Estimates:
        """Estimate each effect from one gradient per run: ``sum (replacement - current) * dY/d(current)``.

        Raises:
            ConfigError: a metric without a gradient.
        """

    @abstractmethod
    def first_order_passes(self) -> float | int:
        """How often every pair passes through the model for :meth:`first_order`."""

    @abstractmethod
    def forecast(self, sets: Sets | None = None) -> Forecast:
        """What replacing sets of mediators would cost; runs nothing.

        Args:
            sets: from a direction to the sets; each mediator on its own where left out.
        """

    def untrained(self: E) -> E | None:
        """The same asked of the model with random weights, to stand beside; None where nothing does."""
        return None

    def floor(self) -> float:
        """The noise floor of a few mediators replaced alone, for searches that replace others besides."""
        some = self.part(range(min(FEW, len(self.mediators))), range(len(self.pairs)))
        way = self.directions[0]
        return rounding_error(some, {way: some._alone(way)[0]}, lambda part, way: part._alone(way)[0])

    def each(self, *, progress: bool = False) -> Estimates:
        """Replace each mediator on its own, in all directions, and measure the noise floor."""
        values: dict[str, np.ndarray] = {}
        cost: dict[str, Any] = {}
        for direction in self.directions:
            values[direction], cost[direction] = self._alone(direction, progress)
        noise = rounding_error(self, values, lambda part, way: part._alone(way)[0])
        return Estimates(values, self.clean, self.corrupt, cost, noise)

    def _alone(self, direction: str, progress: bool = False) -> tuple[np.ndarray, Mapping[str, Any]]:
        """Effects ``[mediator pair]`` of each mediator on its own, and the bill."""
        found = self.replaced([(one,) for one in self.mediators], direction, progress=progress)
        return SIGNS[direction] * (found.values - found.plain), found.cost

    def part(self: E, rows: Sequence[int], columns: Sequence[int]) -> E:
        """The same with some mediators and some pairs."""
        steps = self.steps if list(columns) == list(range(len(self.pairs))) else None
        chosen = tuple(self.mediators[at] for at in rows)
        return replace(self, mediators=chosen, pairs=self.pairs[columns], steps=steps)

    def per_pair(self, values: Float[np.ndarray, "*batch row"]) -> Float[np.ndarray, "*batch pair"]:
        """What was measured of each pair: the sum over its rows where it has several."""
        return values if self.steps is None else self.steps.sums(values)

    def base(self, direction: str) -> tuple[Tokens, Tokens]:
        """The prompts that are patched, and those the values come from."""
        clean, corrupt = self.pairs.clean, self.pairs.corrupt
        return (corrupt, clean) if direction == "denoising" else (clean, corrupt)

    @cached_property
    def _clean_logits(self) -> Tensor:
        return self.model.logits(self.pairs.clean)

    def ran(self, side: str, logits: Tensor) -> None:
        """Keep the logits of a side that a search ran anyway, so that nothing runs it again.

        Args:
            side: ``clean`` or ``corrupt``.
            logits: ``[pair vocab]`` after its prompts.
        """
        vars(self).setdefault(f"_{side}_logits", logits)

    @cached_property
    def targets(self) -> Targets:
        """Which tokens are right and wrong, with the logits of the clean prompts."""
        return Targets.of(self.pairs, self._clean_logits.device, self._clean_logits)

    @cached_property
    def clean(self) -> Float[np.ndarray, " pair"]:
        """The metric of the clean prompts."""
        return self.values(self._clean_logits, self.targets)

    @cached_property
    def corrupt(self) -> Float[np.ndarray, " pair"]:
        """The metric of the corrupt prompts."""
        return self.values(self._corrupt_logits, self.targets)

    @cached_property
    def _corrupt_logits(self) -> Tensor:
        return self.model.logits(self.pairs.corrupt)

    def doubts(self) -> tuple[str, ...]:
        """Where the model does not do the task of the pairs; of whole answers nothing is said."""
        if self.steps is not None:
            return ()
        return doubts(self._clean_logits.float(), self._corrupt_logits.float(), self.targets)

    def values(self, logits: Tensor, targets: Targets) -> np.ndarray:
        """The metric of each row, as float64."""
        return self.metric.values(logits.float(), targets).double().cpu().numpy()

    def sources(self, direction: str, *, read: Mapping[Site, Tensor] | None = None) -> dict[Site, Tensor]:
        """What is put in: carrier -> replacement values ``[pair pos ...]``.

        Args:
            direction: whose prompts are patched.
            read: the carriers' values on the prompts that values come from, where they are known.

        Raises:
            ConfigError: the replacement cannot be made of these prompts, or for these mediators.
        """
        base, source = self.base(direction)
        carriers = self.carriers
        names = [str(site) for site in carriers]
        other = by_site(self.model.capture(source, names, "all"), carriers) if read is None else read
        current = other
        if self.replacement.reads_current:
            current = by_site(self.model.capture(base, names, "all"), carriers)
        found: dict[Site, Tensor] = {}
        for site in carriers:
            values = other[site]
            material = Material(
                values,
                current[site],
                _inside(source.lengths, values),
                self.pairs.groups,
                self.seed,
                self.replacement.amount or 0.0,
                _one_subspace(site, self.mediators) if self.replacement.directed else None,
                SIGNS[direction],
            )
            found[site] = self.replacement.source(material)
        return found

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of these pairs, this metric and this replacement."""
        metric = (KL,) if self.metric.name == "kl" else ()
        cautions = self.replacement.cautions(self.pairs.lengths)
        said = (overlapping(self.mediators), counted_from_the_end(self.pairs, self.mediators))
        return (*metric, *cautions, *filter(None, said), *self.dictionaries())

    def dictionaries(self) -> tuple[str, ...]:
        """What is known of the dictionaries whose features are replaced."""
        return notes_of(
            self.model, [site.layer or 0 for site in self.carriers if site.kind in OF_DICTIONARIES]
        )

    def effects(self, found: Estimates, *, search: str, exact: bool) -> Effects:
        """The numbers of a search as a result."""
        pairs, most = (self.pairs, 1) if self.steps is None else (self.steps.whole, self.steps.most)
        clean, corrupt = self.per_pair(found.clean), self.per_pair(found.corrupt)
        return Effects(
            mediators=self.mediators,
            values={name: self.per_pair(values) for name, values in found.values.items()},
            clean=clean,
            corrupt=corrupt,
            groups=tuple(pairs.groups),
            search=search,
            metric=self.metric.name,
            unit=self.metric.unit,
            replacement=self.replacement.name,
            noise=max(most * found.noise, smallest(self.model, clean, corrupt)),
            cost=found.cost,
            about=About(model=self.model.described, data=pairs.described),
            seed=self.seed,
            warnings=tuple(
                dict.fromkeys(
                    (
                        *pairs.notes,
                        *self.doubts(),
                        *_fallbacks(self.model, found.cost),
                        *found.notes,
                        *self.notes(),
                    )
                )
            ),
            exact=exact,
        )


def _fallbacks(model: Model, cost: Mapping[str, Any]) -> tuple[str, ...]:
    """How the model was patched where the quick way gave other logits, each way once."""
    parts = [value for value in cost.values() if isinstance(value, Mapping)]
    texts = [part["fallback"] for part in parts if part.get("fallback")]
    ways = {text.partition(":")[0]: text for text in reversed(texts)}  # both directions give the same reason
    return tuple(f"{model.name!r} is {text}: the same numbers, more slowly" for text in ways.values())


def spent(cost: Mapping[str, Any], pairs: int) -> float:
    """Forward passes of every pair that a search took, its verification with them.

    Args:
        cost: ``Effects.cost``.
        pairs: how many there were.
    """
    parts = {name: part for name, part in cost.items() if isinstance(part, dict) and "forwards" in part}
    exact = sum(part["forwards"] for part in parts.values()) / pairs
    more = spent(cost["verified"], pairs) if "verified" in cost else 0.0
    return round(float(cost.get("forwards", 0.0)) + exact + more, 2)


def by_site(read: Activations, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """What was captured, by site."""
    return {site: read[str(site)] for site in sites}


def _inside(lengths: Sequence[int], values: Tensor) -> Tensor:
    """Which positions a prompt has: ``[example pos]``."""
    ends = torch.tensor(lengths, device=values.device)
    return torch.arange(values.shape[1], device=values.device) < ends[:, None]


def _one_subspace(site: Site, mediators: Sequence[Any]) -> Subspace | None:
    """The subspace that all mediators of a site share; None where they have none.

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
