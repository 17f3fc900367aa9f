"""A search as a value: from an experiment to its effects, exact or estimated and then held to exact ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from interp.errors import ConfigError
from interp.mediation.effects import Effects
from interp.mediation.experiment import Estimates, Experiment, Forecast
from interp.mediation.gradients import need_gradient
from interp.mediation.verified import Verified, VerifiedEffect

__all__ = ["SAMPLE", "TOP", "Exhaustive", "GradientSearch", "Search", "by_direction"]

Estimate = Callable[[Experiment, str], tuple[np.ndarray, Mapping[str, Any]]]
TOP, SAMPLE = 10, 24
"""Mediators that are replaced exactly: the largest, unless asked otherwise, and a random sample."""


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """How effects are found: a frozen value with its options, called with an experiment.

    Attributes:
        name: what users type (``--search``), and what the effects say.
        description: one line.
        exact: whether its effects are those of real replacements.
        over: what it takes: ``sites`` (and parts of them), ``edges``; of sites also ``windows`` of layers,
            ``noised tokens`` for corrupt runs, and ``fitted constants`` for values.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    exact: ClassVar[bool] = True
    over: ClassVar[tuple[str, ...]] = ("sites",)

    @abstractmethod
    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Measure or estimate the effect of each mediator.

        Args:
            experiment: what is asked; its mediators are of ``over``.
            progress: show a progress bar.
        """

    def passes(self, experiment: Experiment) -> float | int | None:
        """How often every pair passes through the model, a backward pass counted as one.

        None where each mediator is replaced on its own, which the experiment plans.
        """
        return None

    def forecast(self, experiment: Experiment) -> Forecast:
        """What the search would cost, its control with it; runs nothing."""
        each, passes = experiment.forecast(), self.passes(experiment)
        if passes is None:
            return replace(each, search=self.name)
        forwards = passes * each.pairs + self._checks(each)
        return Forecast(self.name, each.pairs, each.mediators, forwards, each.naive, exact=self.exact)

    def _checks(self, each: Forecast) -> float:
        """What exact checks cost, given what it costs to replace each mediator."""
        return 0.0

    def __call__(self, experiment: Experiment, *, progress: bool = False) -> Effects:
        """Find the effects of an experiment's mediators, and of its untrained twin where it has one."""
        asked: Any = {"search": self.name, "exact": self.exact}
        found = experiment.effects(self.estimates(experiment, progress=progress), **asked)
        twin = experiment.untrained()
        if twin is None:
            return found
        beside = twin.effects(self.estimates(twin, progress=progress), **asked)
        bill = {f"untrained, {name}": part for name, part in beside.cost.items()}
        return replace(found, untrained=beside, cost={**found.cost, **bill})


@dataclass(frozen=True, kw_only=True)
class Exhaustive(Search):
    """Replace each mediator on its own, exactly (activation patching; Vig et al. 2020, Meng et al. 2022)."""

    name = "exhaustive"
    description = "replace each mediator on its own"
    over = ("sites", "edges", "windows", "noised tokens", "fitted constants")

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Replace each mediator, and measure the noise floor."""
        return experiment.each(progress=progress)


@dataclass(frozen=True, kw_only=True)
class GradientSearch(Search):
    """A search whose effects are estimated from gradients, and the largest of them verified.

    The largest are replaced exactly, with a random sample of all; ``verified`` holds those effects and the
    rank correlation on the sample.

    Attributes:
        verify: how many of the largest to verify; 0 for none.
    """

    verify: int = TOP
    exact = False

    def __post_init__(self) -> None:
        """Refuse a negative count."""
        if self.verify < 0:
            raise ConfigError(
                f"verify={self.verify} asked; it is how many of the largest to verify, 0 for none."
            )

    def _checks(self, each: Forecast) -> float:
        asked = self.verify and self.verify + SAMPLE
        return each.forwards * min(1.0, asked / each.mediators)

    def __call__(self, experiment: Experiment, *, progress: bool = False) -> Effects:
        """Estimate the effects, and verify the largest.

        Raises:
            ConfigError: a metric without a gradient.
            ModelError: kernels whose gradients are wrong or were not measured.
        """
        need_gradient(experiment)
        if experiment.model.quantization is not None:
            experiment.model.quantization.check_gradients(experiment.model.name)
        found = super().__call__(experiment, progress=progress)
        return _verified(found, experiment, self.verify, progress) if self.verify else found


def by_direction(experiment: Experiment, estimate: Estimate, notes: tuple[str, ...] = ()) -> Estimates:
    """Estimate one direction after the other, and add up what it costs.

    Args:
        experiment: what is asked.
        estimate: gives ``[mediator pair]`` in one direction, and its bill with ``forwards``.
        notes: what a reader should know of these estimates.
    """
    values: dict[str, np.ndarray] = {}
    cost: dict[str, Any] = {"forwards": 2.0}
    clean, corrupt = experiment.clean, experiment.corrupt
    for direction in experiment.directions:
        values[direction], bill = estimate(experiment, direction)
        cost["forwards"] += bill["forwards"]
        rest = {name: value for name, value in bill.items() if name != "forwards"}
        cost |= {direction: rest} if rest else {}
    return Estimates(values, clean, corrupt, cost, notes=notes)


def _verified(found: Effects, experiment: Experiment, k: int, progress: bool) -> Effects:
    """Replace the largest exactly, and a random sample of all, and say how well the estimates rank them."""
    place = {mediator: at for at, mediator in enumerate(found.mediators)}
    top = [place[mediator] for mediator in found.top(k)]
    sample = np.random.default_rng(experiment.seed).permutation(len(place))[:SAMPLE].tolist()
    asked = sorted({*top, *sample})
    exact = Exhaustive()(experiment.part(asked, range(len(experiment.pairs))), progress=progress)
    truth, guess = dict(zip(asked, exact.mean(), strict=True)), found.mean()
    rank = None
    if len(sample) > 2 and len({truth[at] for at in sample}) > 1:
        ranked: Any = stats.spearmanr([truth[at] for at in sample], [guess[at] for at in sample])
        rank = float(ranked.statistic) if np.isfinite(ranked.statistic) else None
    low, high = (None, None) if rank is None else _interval(rank, len(sample))
    checked = tuple(_beside(exact, float(guess[at]), found.mediators[at]) for at in top)
    return replace(
        found,
        cost={**found.cost, "verified": dict(exact.cost)},
        noise=exact.noise,
        verified=Verified(checked, rank, low, high, len(sample)),
    )


def _beside(exact: Effects, estimate: float, mediator: Any) -> VerifiedEffect:
    """The exact effect of a mediator, with its interval, beside the estimate."""
    truth = float(exact.mean()[exact.place(mediator)])
    ends = exact.estimate(mediator).interval
    return VerifiedEffect(str(mediator), estimate, truth, ends.low, ends.high)


def _interval(rank: float, n: int) -> tuple[float, float]:
    """The 95% interval of a rank correlation over n mediators (Bonett and Wright 2000)."""
    if not n > 3 or not abs(rank) < 1:
        return (rank, rank) if abs(rank) == 1 else (-1.0, 1.0)
    half = 1.96 * np.sqrt((1 + rank**2 / 2) / (n - 3))
    return float(np.tanh(np.arctanh(rank) - half)), float(np.tanh(np.arctanh(rank) + half))
