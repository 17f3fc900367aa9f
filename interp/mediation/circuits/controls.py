"""What a circuit is held to: the model after the same cuts, other members put in, and nothing to find.

Completeness: random cuts of the circuit and of the model. Minimality: each member taken out alone, beside
members outside put in at random. And two controls in which there is nothing to find, an untrained model and
arbitrary labels: their total effect is near zero, so that no share of it means anything, and
``m(C) - m(none)`` is reported in units of the metric, beside ``m(all) - m(none)``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.mediation.mediators import Members
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import Table
from probes.statistics import Estimate, bootstrap

__all__ = ["UNMATCHED", "Knockouts", "Removals", "Unmatched", "couples_of", "cuts_of", "extras_of"]

QUANTILE = 0.95
FLOOR = 0.01
"""A change below this share of the total effect is no need."""
COUPLED = 6
"""Members of which every two are taken out together, at most: 15 more runs."""


@dataclass(frozen=True, eq=False, repr=False)
class Knockouts:
    """A circuit and the whole model after the same cuts (Wang et al. 2022, 2211.00593, section 4.2).

    If the circuit is complete, cutting K out of it does what cutting K out of the model does.

    Attributes:
        sizes: how many members each cut takes out.
        circuit: ``m(C without K)``.
        model: ``m(all without K)``.
    """

    sizes: tuple[int, ...]
    circuit: Float[np.ndarray, "cut pair"]
    model: Float[np.ndarray, "cut pair"]

    def gap(
        self, ends: Float[np.ndarray, "pair ends"], groups: Sequence[str], seed: int
    ) -> tuple[Estimate, Estimate]:
        """The mean over cuts of ``|m(C without K) - m(all without K)|``, each a mean over pairs.

        The interval is the mean of those of all cuts, each folded at zero: absolute values of noisy means
        are too large, which resampling the whole does not see. In simulations that covers 61 to 84%, this
        93 to 100% (tests/simulations/test_circuit_intervals.py).

        Args:
            ends: ``m(none)`` and ``m(all)``.
            groups: of the pairs.
            seed: of the intervals.

        Returns:
            In units of the metric, and as a share of ``m(all) - m(none)``.
        """
        apart, total = self.circuit - self.model, ends[:, 1] - ends[:, 0]
        whole = float(total.mean()) or np.nan
        ratios = apart.mean(axis=1, keepdims=True) / whole
        # The ratio of two means and what each pair pulls it by, to first order: its mean is the ratio.
        pulled = ratios + (apart - ratios * total) / whole
        return _folded(apart, groups, seed), _folded(pulled * np.sign(whole), groups, seed)


def _folded(values: Float[np.ndarray, "cut pair"], groups: Sequence[str], seed: int) -> Estimate:
    given: Any = {"groups": groups, "seed": seed, "support": "real"}
    every = [bootstrap(row, **given) for row in values]
    high = [max(abs(one.interval.low), abs(one.interval.high)) for one in every]
    # Where no cut changes anything one of five intervals misses zero too often: the lower ends hold together.
    together = [bootstrap(row, level=1 - 0.05 / len(values), **given).interval for row in values]
    low = [0.0 if one.contains(0.0) else min(abs(one.low), abs(one.high)) for one in together]
    interval = replace(every[0].interval, low=float(np.mean(low)), high=float(np.mean(high)))
    return replace(every[0], value=float(np.mean([abs(one.value) for one in every])), interval=interval)


@dataclass(frozen=True, eq=False, repr=False)
class Removals:
    """What each member of a circuit adds to it, beside what members outside it would add.

    A member is *needed* where taking it out alone costs the circuit some of the behaviour: by more than 1% of
    the total effect, more than 95% of the members outside change if they are put in, and its interval clear
    of zero. Members that cover for each other (OR, backup) are each without need of the other, so single
    removals miss both: pairs of members that are not needed alone are taken out together too.

    Attributes:
        members: of the circuit; a random sample of a large one.
        change: ``m(C) - m(C without the member)``.
        extra: ``m(C with a random member more) - m(C)``: the null distribution.
        total: the mean of ``m(all) - m(none)``.
        groups: of the pairs of prompts.
        seed: of the intervals.
        couples: places in ``members`` of those that were taken out together.
        together: ``m(C) - m(C without both)``, one row for each couple.
    """

    members: Members
    change: Float[np.ndarray, "member pair"]
    extra: Float[np.ndarray, "extra pair"]
    total: float
    groups: tuple[str, ...]
    seed: int
    couples: tuple[tuple[int, int], ...] = ()
    together: Float[np.ndarray, "couple pair"] | None = None

    @property
    def threshold(self) -> float:
        """The size of change that 95% of members put in at random stay under; at least 1% of the total."""
        floor = FLOOR * abs(self.total)
        if not len(self.extra):
            return floor
        return max(floor, float(np.quantile(np.abs(self.extra.mean(axis=1)), QUANTILE)))

    @cached_property
    def alone(self) -> tuple[bool, ...]:
        """Whether each member is needed by itself."""
        return tuple(self._costs(change) for change in self.change)

    @cached_property
    def covering(self) -> Mapping[int, tuple[int, ...]]:
        """Members that are not needed alone -> those beside which they are: one of the two has to stay."""
        found: dict[int, list[int]] = {}
        for couple, change in zip(self.couples, [] if self.together is None else self.together, strict=True):
            if self._costs(change):
                for one, other in (couple, couple[::-1]):
                    found.setdefault(one, []).append(other)
        return {one: tuple(others) for one, others in found.items()}

    @property
    def needed(self) -> int:
        """How many members are needed by themselves."""
        return sum(self.alone)

    def _costs(self, change: Float[np.ndarray, " pair"]) -> bool:
        found = self._estimate(change * np.sign(self.total))
        return found.interval.low > 0 and found.value > self.threshold

    def _estimate(self, change: Float[np.ndarray, " pair"]) -> Estimate:
        return bootstrap(change, groups=self.groups, seed=self.seed, support="real")

    def table(self, unit: str = "") -> Table:
        """One row per member, the largest change first: its change, and whether and why the circuit needs it.

        Columns: member, change, low, high, needed, covered_by (members of which one has to stay).
        """
        rows: list[tuple[str, float, float, float, bool, str]] = []
        for at, (member, change) in enumerate(zip(self.members, self.change, strict=True)):
            found = self._estimate(change)
            others = ", ".join(str(self.members[other]) for other in self.covering.get(at, ()))
            ends = found.interval.low, found.interval.high
            rows.append((str(member), found.value, *ends, self.alone[at], others))
        rows.sort(key=lambda row: -abs(row[1]))
        title = f"Members taken out one by one{f' ({unit})' if unit else ''}"
        columns = ("member", "change", "low", "high", "needed", "covered_by")
        return Table("minimality", title, columns, rows, self._note)

    @property
    def _note(self) -> str:
        couples = (
            f"couples of the others taken out together: {len(self.couples):,}; members needed where another "
            f"one is missing: {len(self.covering):,}."
            if self.couples
            else "no couples were taken out."
        )
        return (
            f"Of {len(self.members):,} members taken out one by one, {self.needed:,} are needed: without "
            f"them the circuit keeps less, by more than {FLOOR:.0%} of the total and than what "
            f"{QUANTILE:.0%} of the others outside change if put in. Members that cover for each other are "
            f"not seen so; {couples}"
        )


def couples_of(found: Removals) -> tuple[tuple[int, int], ...]:
    """The couples to take out together: of members not needed alone, the six with the largest change."""
    lonely = [at for at, needed in enumerate(found.alone) if not needed]
    sizes = np.abs(found.change.mean(axis=1))
    few = sorted(sorted(lonely, key=lambda at: -sizes[at])[:COUPLED])
    return tuple(combinations(few, 2))


def cuts_of(members: Sequence[Any], count: int, seed: int) -> list[set[Any]]:
    """Draw cuts of random sizes: at least one member, all but one at most where there are several."""
    rng = random.Random(f"cuts:{seed}")
    most = max(1, len(members) - 1)
    return [set(rng.sample(list(members), rng.randint(1, most))) for _ in range(count if members else 0)]


def extras_of(
    members: Sequence[Any], every: Sequence[Any], count: int, seed: int
) -> tuple[list[Any], list[Any]]:
    """Draw the members that are taken out, and those outside that are put in, at most ``count`` of each."""
    rng = random.Random(f"removals:{seed}")
    inside = set(members)
    outside = [one for one in every if one not in inside]
    taken = sorted(rng.sample(list(members), min(count, len(members))))
    return taken, rng.sample(outside, min(count, len(outside)))


@dataclass(frozen=True)
class Unmatched:
    """A control in which there is nothing to find.

    Attributes:
        name: what users type.
        description: one line.
        missing: why there can be none.
        build: from the model, the pairs and a seed to those of the control; None where there is none.
    """

    name: str
    description: str
    missing: str
    build: Callable[[Model, PairSet, int], tuple[Model, PairSet] | None]


def _untrained(model: Model, pairs: PairSet, seed: int) -> tuple[Model, PairSet] | None:
    from interp.models.loading import untrained_model

    if model.weights == "random":
        return None
    return untrained_model(model), pairs


def _arbitrary(model: Model, pairs: PairSet, seed: int) -> tuple[Model, PairSet] | None:
    """Each pair gets the answer and the foil of another one that has others, either way round."""
    rng, given = random.Random(f"labels:{seed}"), list(zip(pairs.answer_ids, pairs.foil_ids, strict=True))
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for answers, foils in given:
        own = {*answers, *foils}
        others = [other for other in given if not own & {*other[0], *other[1]}]
        if not others:
            return None
        one, two = rng.choice(others)
        found.append((one, two) if rng.random() < 0.5 else (two, one))
    answers, foils = zip(*found, strict=True)
    return model, replace(pairs, answer_ids=answers, foil_ids=foils)


_ROWS = (
    Unmatched(
        "random-weights", "the same architecture, untrained", "the model is untrained itself", _untrained
    ),
    Unmatched(
        "arbitrary-labels",
        "answer and foil of another pair, either way round",
        "a pair shares its answer or foil with every other one",
        _arbitrary,
    ),
)
UNMATCHED: dict[str, Unmatched] = {row.name: row for row in _ROWS}
