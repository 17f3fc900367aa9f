"""Optimal ablation: the constant in place of a mediator with which the model says most nearly the same.

Zero and mean values also break what the model computes from other parts; the constant that is best on average
takes away only what the mediator tells of its prompt (Li and Janson 2024, 2409.09951). Every mediator has a
constant of its own, fitted with nothing else replaced: one vector for all tokens, or for its token. Pairs are
divided by group into two halves, and each is judged with the constants of the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.effects import Effects
from interp.mediation.experiment import Estimates, Forecast, Sets, by_site
from interp.mediation.mediators import Mediator
from interp.mediation.patches import Entry, Row, edited, entries_of, interchange
from interp.mediation.site_experiment import SiteExperiment
from interp.models.forward import gradients
from interp.models.interventions import Intervention
from interp.sites import Site

__all__ = ["Fit", "OptimalExperiment", "divergence", "fitted"]

BATCH, TOKENS, RATE = 16, 4096, 0.1
"""Pairs of a step and half, at most; tokens of a pass; the first step, in standard deviations of the site."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""From the logits ``[row vocab]`` of the intact and of the changed run to one number per row."""
P = TypeVar("P", bound="OptimalExperiment")


def divergence(wanted: Float[Tensor, "row vocab"], found: Float[Tensor, "row vocab"]) -> Tensor:
    """``KL(intact || changed)`` of the next token, in nats."""
    before, after = torch.log_softmax(wanted.float(), dim=1), torch.log_softmax(found.float(), dim=1)
    return (before.exp() * (before - after)).sum(dim=1)


@dataclass(frozen=True, eq=False)
class Fit:
    """Constants of every mediator, fitted on some pairs.

    Attributes:
        constants: of each mediator one ``[...]`` per place, shaped as its part of the site at one token.
        before: mean loss on these pairs with their mean values.
        after: likewise with the constants; never larger, as the mean stays where nothing better is found.
        passes: forward passes of one prompt that it took, a backward pass counted as one.
    """

    constants: tuple[tuple[Tensor, ...], ...]
    before: Float[np.ndarray, " mediator"]
    after: Float[np.ndarray, " mediator"]
    passes: int


@gradients()
def fitted(
    asked: SiteExperiment,
    direction: str,
    pairs: Sequence[int],
    steps: int,
    *,
    loss: Loss = divergence,
    start: float = 1.0,
) -> Fit:
    """Fit the constants of every mediator by gradient descent (Adam), each with nothing else replaced.

    Args:
        asked: whose mediators.
        direction: whose prompts are run.
        pairs: that constants are fitted on.
        steps: of Adam, whose step falls to zero in a straight line; 0 gives the mean.
        loss: what is made small, on average over pairs.
        start: the share of the mean that the fit begins at.
    """
    trainer, rng = _Trainer(asked, direction, loss), random.Random(f"constants:{asked.seed}")
    own = [trainer.own(mediator, pairs) for mediator in asked.mediators]
    means = [tuple(one.mean(dim=0) for one in parts) for parts in own]
    spreads = [
        max(float((one - one.mean(dim=0)).square().mean().sqrt()), 1e-6) for parts in own for one in parts
    ]
    trainer.values = means
    before = trainer.mean(pairs)
    trainer.values = [tuple((start * one).requires_grad_() for one in parts) for parts in means]
    every = [one for parts in trainer.values for one in parts]
    optimiser = torch.optim.Adam([{"params": [one]} for one in every])
    for step in range(steps):
        for group, spread in zip(optimiser.param_groups, spreads, strict=True):
            group["lr"] = RATE * spread * (1 - step / steps)
        slopes = trainer.slopes(rng.sample(list(pairs), min(BATCH, len(pairs))))
        for one, slope in zip(every, slopes, strict=True):
            one.grad = slope
        optimiser.step()
    trainer.values = [tuple(one.detach() for one in parts) for parts in trainer.values]
    after = trainer.mean(pairs)
    best = [new if after[at] <= before[at] else means[at] for at, new in enumerate(trainer.values)]
    backward = steps * len(asked.mediators) * min(BATCH, len(pairs))
    return Fit(tuple(best), before, np.minimum(before, after), trainer.passes + backward)


class _Trainer:
    """Run every mediator replaced by its constant, in many pairs at a time."""

    def __init__(self, asked: SiteExperiment, direction: str, loss: Loss) -> None:
        self.asked, self.loss, self.base = asked, loss, asked.base(direction)[0]
        self.read = by_site(
            asked.model.capture(self.base, [str(site) for site in asked.carriers], "all"), asked.carriers
        )
        self.wanted = asked.model.logits(self.base)
        self.values: list[tuple[Tensor, ...]] = []
        self.passes = 0

    def own(self, mediator: Mediator, pairs: Sequence[int]) -> list[Tensor]:
        """What each part of a mediator is at its tokens of some pairs, ``[token ...]``."""
        found: list[Tensor] = []
        for place in mediator.places:
            rows = [self.read[place.carrier][pair, : self.base.lengths[pair]] for pair in pairs]
            at = mediator.position
            there = torch.cat(rows if at is None else [row[at % len(row)][None] for row in rows]).float()
            found.append(there if place.index is None else there[:, _part(place.index)])
        return found

    def chunks(self, pairs: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
        """Mediators and pairs, one entry for each copy of a pass; prompts of a pass have one length."""
        for length in sorted({self.base.lengths[pair] for pair in pairs}):
            same = [pair for pair in pairs if self.base.lengths[pair] == length]
            cells = [(at, pair) for at in range(len(self.values)) for pair in same]
            step = max(1, TOKENS // length)
            for part in (cells[at : at + step] for at in range(0, len(cells), step)):
                yield [at for at, _ in part], [pair for _, pair in part]

    def losses(self, mediators: Sequence[int], pairs: Sequence[int]) -> Tensor:
        """The loss of each copy, in which one mediator is replaced."""
        members, length = self.asked.mediators, self.base.lengths[pairs[0]]
        entries = entries_of([Row(at, (members[at],)) for at in mediators], length)
        edits = [
            Intervention(site, partial(self._written, site, found, (len(pairs), length)))
            for site, found in entries.items()
        ]
        self.passes += len(pairs)
        prompts = [list(self.base.token_ids[pair]) for pair in pairs]
        logits = self.asked.model.run(prompts, interventions=edits, grad=True).logits
        assert logits is not None
        return self.loss(self.wanted[list(pairs)].to(logits.device), logits)

    def _written(
        self, site: Site, entries: Sequence[Entry], shape: tuple[int, int], current: Tensor
    ) -> Tensor:
        """Put constants into a carrier's values ``[row*pos ...]``."""
        value = current.unflatten(0, shape)
        used = sorted({entry[1] for entry in entries})
        place = {at: number for number, at in enumerate(used)}
        rows = [self._spread(site, at, value[0]) for at in used]
        short = [(row, place[at], position, part) for row, at, position, part in entries]
        return edited(value, torch.stack(rows), short, rule=interchange).flatten(0, 1)

    def _spread(self, site: Site, mediator: int, like: Tensor) -> Tensor:
        """One mediator's constant at every token, zero where its parts are not: ``[pos ...]``."""
        found = torch.zeros_like(like, dtype=torch.float32)
        for place, constant in zip(self.asked.mediators[mediator].places, self.values[mediator], strict=True):
            if place.carrier == site:
                found = put(found, place.index, constant)
        return found

    def mean(self, pairs: Sequence[int]) -> np.ndarray:
        """The mean loss of each mediator over some pairs."""
        found = np.zeros(len(self.values))
        with torch.no_grad():
            for mediators, some in self.chunks(pairs):
                np.add.at(found, mediators, self.losses(mediators, some).double().cpu().numpy() / len(pairs))
        return found

    def slopes(self, pairs: Sequence[int]) -> list[Tensor]:
        """The slope of each mediator's mean loss at each of its constants."""
        every = [one for parts in self.values for one in parts]
        found = [torch.zeros_like(one) for one in every]
        for mediators, some in self.chunks(pairs):
            loss = self.losses(mediators, some).sum() / len(pairs)
            for total, slope in zip(found, torch.autograd.grad(loss, every, allow_unused=True), strict=True):
                if slope is not None:
                    total += slope
        return found


def _part(index: int | tuple[int, ...]) -> Any:
    return list(index) if isinstance(index, tuple) else index


def put(values: Tensor, index: int | tuple[int, ...] | None, constant: Tensor) -> Tensor:
    """Values ``[... part ...]`` with a constant at a part of the axis after the first, or at all of it."""
    found = values.clone()
    if index is None:
        found[:] = constant.to(found)
    else:
        found[:, _part(index)] = constant.to(found)
    return found


@dataclass(frozen=True, eq=False)
class OptimalExperiment(SiteExperiment):
    """An experiment whose mediators are replaced by the constants that are best on pairs of other groups."""

    @property
    def asks(self) -> tuple[str, ...]:
        """What a search has to take: constants are fitted with one mediator replaced at a time."""
        return (*super().asks, "fitted constants")

    @property
    def steps_of_fit(self) -> int:
        """Steps of Adam."""
        return int(self.replacement.amount or 0)

    @cached_property
    def halves(self) -> np.ndarray:
        """Which half each pair is of, 0 or 1, by groups.

        Raises:
            ConfigError: all pairs are of one group.
        """
        groups = list(dict.fromkeys(self.pairs.groups))
        if len(groups) < 2:
            raise ConfigError(
                f"replacement {self.replacement.name!r} is fitted on other groups of pairs than it is judged "
                f"on, and all pairs are of the group {groups[0]!r}. Give several groups, or use zero."
            )
        random.Random(f"constants:{self.seed}").shuffle(groups)
        first = set(groups[: len(groups) // 2])
        return np.array([int(group in first) for group in self.pairs.groups])

    def part(self: P, rows: Sequence[int], columns: Sequence[int]) -> P:
        """The same with some mediators and some pairs, and the constants that they have here."""
        found = super().part(rows, columns)
        known = {way: {s: v[list(columns)] for s, v in one.items()} for way, one in self._kept.items()}
        vars(found)["_kept"] = known
        return found

    @cached_property
    def _kept(self) -> dict[str, dict[Site, Tensor]]:
        """Direction -> carrier -> what was put in."""
        return {}

    @cached_property
    def _fits(self) -> dict[str, list[Fit]]:
        """Direction -> the fit that each half is judged with."""
        return {}

    def sources(self, direction: str, *, read: Any = None) -> dict[Site, Tensor]:
        """The constants, at the tokens of their mediators; elsewhere zero, which nothing reads."""
        if direction not in self._kept:
            self._kept[direction] = self._fitted(direction)
        return {site: self._kept[direction][site] for site in self.carriers}

    def _fitted(self, direction: str) -> dict[Site, Tensor]:
        _refuse_shared(self.mediators, max(self.pairs.lengths))
        base, halves = self.base(direction)[0], self.halves
        read = by_site(self.model.capture(base, [str(s) for s in self.carriers], "all"), self.carriers)
        found = {site: torch.zeros_like(values) for site, values in read.items()}
        self._fits[direction] = []
        for half in (0, 1):
            fit = fitted(self, direction, np.flatnonzero(halves != half).tolist(), self.steps_of_fit)
            self._fits[direction].append(fit)
            for pair in np.flatnonzero(halves == half).tolist():
                for mediator, constants in zip(self.mediators, fit.constants, strict=True):
                    for place, constant in zip(mediator.places, constants, strict=True):
                        values, at = found[place.carrier][pair], mediator.position
                        some = slice(None) if at is None else [at % base.lengths[pair]]
                        values[some] = put(values[some], place.index, constant)
        return found

    def forecast(self, sets: Sets | None = None) -> Forecast:
        """What replacing costs, and the fit before it: its passes with their gradients, and two without."""
        found = super().forecast(sets)
        counts = [int((self.halves != half).sum()) for half in (0, 1)]
        each = sum(2 * n + 2 * self.steps_of_fit * min(BATCH, n) for n in counts)
        fit = len(self.directions) * len(self.mediators) * each
        return replace(found, forwards=found.forwards + fit)

    def effects(self, found: Estimates, *, search: str, exact: bool) -> Effects:
        """The numbers of a search as a result, with what the fit cost and gained."""
        result, cost, said = super().effects(found, search=search, exact=exact), dict(found.cost), []
        for direction, fits in self._fits.items():
            before, after = (float(np.mean([getattr(f, w) for f in fits])) for w in ("before", "after"))
            cost[direction] = {**cost[direction], "forwards": cost[direction]["forwards"] + _spent(fits)}
            cost[direction] |= {"nats_of_mean": before, "nats_of_optimal": after}
            said.append(
                f"{self.replacement.name}, {direction}: on the pairs they were fitted on, constants move the "
                f"next token by {after:.3g} nats on average over mediators, means by {before:.3g}; effects "
                "are of pairs of other groups"
            )
        return replace(result, cost=cost, warnings=(*result.warnings, *said))


def _spent(fits: Sequence[Fit]) -> int:
    return sum(fit.passes for fit in fits)


def _refuse_shared(mediators: Sequence[Mediator], length: int) -> None:
    """Refuse two mediators that would have two constants at one place.

    Raises:
        ConfigError: names both.
    """
    seen: dict[tuple[Site, int, int | None], Mediator] = {}
    wide: dict[tuple[Site, int], Mediator] = {}
    for one in mediators:
        tokens = range(length) if one.position is None else [one.position % length]
        for place in one.places:
            parts = place.index if isinstance(place.index, tuple) else (place.index,)
            for token in tokens:
                at = (place.carrier, token)
                clash = [seen[(*at, part)] for part in parts if (*at, part) in seen]
                if place.index is None and at in wide:
                    clash.append(wide[at])
                if clash or (place.index is not None and (*at, None) in seen):
                    other = clash[0] if clash else seen[(*at, None)]
                    raise ConfigError(
                        f"'{one}' and '{other}' share a part of '{place.carrier}', and each has a constant "
                        "of its own. Ask for mediators that do not overlap."
                    )
                seen |= {(*at, part): one for part in parts}
                wide[at] = one
