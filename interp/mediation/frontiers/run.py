"""Types of mediators side by side: one task, one budget, the same pairs, chance and an untrained twin."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln
from scipy.stats import spearmanr

from interp.errors import ConfigError, DataError, counted
from interp.features.certificate import notes_of
from interp.mediation.circuits.controls import UNMATCHED
from interp.mediation.experiment import SIGNS
from interp.mediation.frontiers.chance import draws_for, folded, shown_of
from interp.mediation.frontiers.goals import GOALS, Goal
from interp.mediation.frontiers.ranking import Ranked, ranked, replaced
from interp.mediation.frontiers.result import Frontier, Line
from interp.mediation.frontiers.types import FRONTIER_TYPES, Asked, FrontierType, Unit, units_of
from interp.mediation.metrics import METRICS, Targets
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About

__all__ = ["BITS", "description_length", "frontier", "sizes_of"]

BUDGET = 300.0
"""Forward passes of every pair that the search of one type may take."""
DRAWS = 4
"""Sets of chance at each size; of the size that is shown, ``draws_for`` says how many."""
DEALT = 999
"""How often effects are dealt to units by chance."""
BITS = 16.0
"""Bits of a real number that is moved: half precision."""
FULL = 0.95
"""Sizes beyond the first that keeps this share on the ranking pairs say nothing new."""
SAMPLED = 24
"""Units whose effects are measured again on unseen pairs, for the goal of prediction."""


def frontier(
    model: ModelLike,
    pairs: PairSet,
    unseen: PairSet | None = None,
    *,
    goal: str = "explain",
    types: Sequence[str] | str = "all",
    controls: PairSet | None = None,
    budget: float | int = BUDGET,
    metric: str = "logit-diff",
    seed: int = 0,
    progress: bool = False,
) -> Frontier:
    """Compare types of mediators for one goal: what a set of units does against what it takes.

    Each type has the same pairs and the same budget. Units are ranked on ``pairs`` and sets of the largest
    are measured on ``unseen``, beside random units of the type and an untrained model of the same
    architecture, whose units are ranked in the same way.

    Args:
        model: what is run. Features are those of its dictionaries (``model.with_dictionaries``).
        pairs: to rank on, and to choose a size.
        unseen: pairs of other groups; the second half of the groups of ``pairs`` where left out.
        goal: a key of ``GOALS``.
        types: keys of ``FRONTIER_TYPES``, or all that the model has.
        controls: pairs of other tasks, on which an edit should do nothing (goal ``edit``).
        budget: forward passes of every pair that each type's search may take.
        metric: a key of ``METRICS`` that has a gradient and reads one token.
        seed: of random units, of the twin and of intervals.
        progress: show the types as they are run.

    Raises:
        ConfigError: an unknown goal, type or metric, no controls for an edit, or no budget.
        DataError: no pairs, or groups of pairs that are in both sets.
    """
    _check(goal, types, controls, budget, metric)
    first, other = _halves(pairs, seed) if unseen is None else (pairs, unseen)
    both = sorted(set(first.groups) & set(other.groups))
    if both:
        raise DataError(
            f"{counted(len(both), 'group')} of pairs, such as {both[0]!r}, are in both sets. Give unseen "
            "pairs of other groups."
        )
    work = _Work(as_model(model), first, other, GOALS[goal], controls, float(budget), metric, seed)
    return work.compared(list(FRONTIER_TYPES) if types == "all" else list(types), progress)


def description_length(n: int, k: int, scalars: int, fitted: int, pairs: int) -> float:
    """Bits that say which units are moved and what: a two-part code (Rissanen 1978; Gruenwald 2007).

    ``log2(n + 1)`` for how many, ``log2 C(n, k)`` for which, 16 for each real number that is moved, and
    ``log2(N) / 2`` for each that was fitted to N pairs.

    Args:
        n: units that there are.
        k: units that are moved.
        scalars: real numbers a token that they move.
        fitted: real numbers that were found on the pairs to say where, such as a direction.
        pairs: N.
    """
    which = (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)) / math.log(2)
    return float(math.log2(n + 1) + which + BITS * scalars + 0.5 * math.log2(max(pairs, 1)) * fitted)


def _check(
    goal: str, types: Sequence[str] | str, controls: PairSet | None, budget: float | int, metric: str
) -> None:
    if goal not in GOALS:
        raise ConfigError(f"goal {goal!r} asked; there are: {', '.join(GOALS)}.")
    wrong = [] if types == "all" else [one for one in types if one not in FRONTIER_TYPES]
    if wrong or not types or (isinstance(types, str) and types != "all"):
        given = types if isinstance(types, str) else ", ".join(wrong) or "none"
        raise ConfigError(f"types {given!r} asked; use 'all' or some of: {', '.join(FRONTIER_TYPES)}.")
    fit = [name for name, row in METRICS.items() if row.differentiable and not row.whole and name != "kl"]
    if metric not in fit:
        raise ConfigError(f"metric {metric!r} asked; a frontier takes: {', '.join(fit)}.")
    if GOALS[goal].side and controls is None:
        raise ConfigError("goal 'edit' measures side effects on pairs of other tasks; give controls.")
    if not budget > 0:
        raise ConfigError(f"budget={budget} asked; it is forward passes of every pair, above 0.")


def _halves(pairs: PairSet, seed: int) -> tuple[PairSet, PairSet]:
    groups = list(dict.fromkeys(pairs.groups))
    if len(groups) < 4:
        raise DataError(
            f"{counted(len(groups), 'group')} of pairs given; a frontier is measured on groups that its "
            "rankings have not seen. Give at least 4, or unseen pairs."
        )
    random.Random(f"halves:{seed}").shuffle(groups)
    chosen = set(groups[: len(groups) // 2])
    inside = [at for at, group in enumerate(pairs.groups) if group in chosen]
    rest = [at for at, group in enumerate(pairs.groups) if group not in chosen]
    return pairs[inside], pairs[rest]


@dataclass(frozen=True, eq=False)
class _Work:
    """What every type of one frontier shares."""

    model: Model
    pairs: PairSet
    unseen: PairSet
    goal: Goal
    controls: PairSet | None
    budget: float
    metric: str
    seed: int

    def compared(self, names: Sequence[str], progress: bool) -> Frontier:
        """Run the types one after the other."""
        from tqdm.auto import tqdm

        twin = UNMATCHED["random-weights"].build(self.model, self.unseen, self.seed)
        other = None if twin is None else twin[0]
        lines: list[Line] = []
        left: dict[str, str] = {}
        ends = self.ends(self.model, self.unseen)
        for name in tqdm(names, unit="type", disable=not progress):
            row = FRONTIER_TYPES[name]
            units, why = units_of(row, Asked(self.model, self.pairs, self.seed))
            if units:
                lines.append(self.line(row, units, other, draws_for(len(names))))
            else:
                left[name] = why
        if not lines:
            raise ConfigError(f"no type can be compared: {'; '.join(left.values())}")
        features = any(line.type == "features" for line in lines)
        known = notes_of(self.model, self.model.dictionaries) if features else ()
        side = None
        if self.goal.side and self.controls is not None:
            side = -self.measured(self.model, self.controls, "kl")["corrupt"]
        return Frontier(
            goal=self.goal.name,
            lines=tuple(lines),
            ends=ends,
            groups=tuple(self.unseen.groups),
            metric=self.metric,
            budget=self.budget,
            whole_side=side,
            left_out=left,
            twin=other is not None,
            about=About(self.model.described, self.unseen.described),
            seed=self.seed,
            warnings=tuple(dict.fromkeys((*self.pairs.notes, *self.unseen.notes, *known))),
        )

    def measured(self, model: Model, pairs: PairSet, metric: str) -> dict[str, Float[np.ndarray, " pair"]]:
        """A metric of the unpatched prompts, both sides."""
        clean, corrupt = (model.logits(one).float() for one in (pairs.clean, pairs.corrupt))
        targets = Targets.of(pairs, clean.device, clean)
        of = METRICS[metric].values
        sides = {"clean": clean, "corrupt": corrupt}
        return {name: of(logits, targets).double().cpu().numpy() for name, logits in sides.items()}

    def ends(self, model: Model, pairs: PairSet) -> Float[np.ndarray, "end pair"]:
        """The metric where nothing is replaced, and where everything is."""
        found = self.measured(model, pairs, self.metric)
        order = ("corrupt", "clean") if self.goal.direction == "denoising" else ("clean", "corrupt")
        return np.stack([found[side] for side in order])

    def line(self, row: FrontierType, units: list[Unit], twin: Model | None, draws: int) -> Line:
        """Everything about one type."""
        goal, given = self.goal, (self.goal.direction, self.metric)
        order = ranked(row, self.model, self.pairs, units, *given, self.budget)
        start, end = self.ends(self.model, self.pairs)
        sizes = sizes_of(len(units))
        sets = [order.units[:size] for size in sizes]
        here = replaced(row, self.model, self.pairs, sets, *given)
        shares = (here - start).mean(axis=1) / _total(start, end)
        enough = np.flatnonzero(folded(shares) >= FULL)
        kept = len(sizes) if not len(enough) else int(enough[0]) + 1
        sizes, sets, shares = sizes[:kept], sets[:kept], shares[:kept]
        values = replaced(row, self.model, self.unseen, sets, *given)
        chance, lucky, every, besides = self.by_chance(row, units, sizes, shown_of(shares), draws)
        if goal.foretold:
            lucky, every = self.dealt(order, start, end, sizes[shown_of(shares)]), False
        scalars = [sum(row.scalars(self.model, one) for unit in some for one in unit) for some in sets]
        fitted = row.fitted(self.model)
        return Line(
            type=row.name,
            total=len(units),
            sizes=tuple(sizes),
            scalars=tuple(scalars),
            bits=tuple(
                description_length(len(units), size, moved, fitted * size, len(self.pairs))
                for size, moved in zip(sizes, scalars, strict=True)
            ),
            forwards=order.forwards,
            search=order.search,
            first=tuple("+".join(map(str, unit)) for unit in order.units[:10]),
            ranking=shares,
            values=values,
            chance=chance,
            lucky=lucky,
            every=every,
            chance_side=besides,
            untrained=None if twin is None else self.untrained(row, twin, sizes),
            side=self.side(row, sets),
            foretold=self.foretold(order, start, end, sizes) if goal.foretold else None,
            shuffled=self.shuffled(order, start, end, sizes) if goal.foretold else None,
            agreement=self.agreement(row, order) if goal.foretold else None,
        )

    def by_chance(
        self, row: FrontierType, units: Sequence[Unit], sizes: Sequence[int], shown: int, draws: int
    ) -> tuple[
        Float[np.ndarray, "size pair"],
        Float[np.ndarray, " draw"],
        bool,
        Float[np.ndarray, "size control"] | None,
    ]:
        """What random sets do on unseen pairs: the mean of each size, then each of the size that is shown.

        Then whether these are all there are, and the side effects of one of each size. What is foretold needs
        no more than the means.
        """
        pool = list(units) if row.lucky is None else row.lucky(Asked(self.model, self.pairs, self.seed))
        rng, size = random.Random(f"chance:{self.seed}"), sizes[shown]
        orders: list[list[Unit]] = []
        for _ in range(DRAWS if self.goal.foretold else draws):
            rng.shuffle(pool)
            if row.home is not None:  # place by place, as the ranking takes them
                places = list(dict.fromkeys(map(row.home, pool)))
                pool.sort(key=lambda unit: places.index(row.home(unit)) if row.home else 0)
            orders.append(list(pool))
        some = [[order[:n] for n in sizes] for order in orders[:DRAWS]]
        every = row.lucky is None and math.comb(len(pool), size) <= draws and not self.goal.foretold
        more = [list(one) for one in itertools.combinations(pool, size)] if every else []
        more = more or [order[:size] for order in orders]
        sets = [one for draw in some for one in draw] + more
        found = replaced(row, self.model, self.unseen, sets, self.goal.direction, self.metric)
        chance = found[: len(sets) - len(more)].reshape(DRAWS, len(sizes), -1).mean(axis=0)
        lucky = found[len(sets) - len(more) :]
        chance[shown] = lucky.mean(axis=0)
        return chance, lucky.mean(axis=1), every, self.side(row, some[0])

    def dealt(
        self, order: Ranked, start: np.ndarray, end: np.ndarray, size: int
    ) -> Float[np.ndarray, " draw"]:
        """What is foretold of a set of a size, as a share, where effects are dealt to units by chance."""
        rng = np.random.default_rng(self.seed)
        sums = np.array([rng.permutation(order.effects)[:size].sum() for _ in range(DEALT)])
        return sums / _total(start, end)

    def untrained(self, row: FrontierType, twin: Model, sizes: Sequence[int]) -> Float[np.ndarray, " size"]:
        """The share that an untrained twin's units reach, ranked and measured likewise.

        Its answers mean nothing, so that either sign of its total effect is as good: every pair counts by the
        sign of its own.
        """
        if self.model.dictionaries:
            twin = twin.with_dictionaries(*self.model.dictionaries.values())
        units, _ = units_of(row, Asked(twin, self.pairs, self.seed))
        if not units:
            return np.full(len(sizes), np.nan)
        given = (self.goal.direction, self.metric)
        start, end = self.ends(twin, self.pairs)
        signs = np.sign(end - start) * SIGNS[self.goal.direction]
        order = ranked(row, twin, self.pairs, units, *given, self.budget, signs)
        values = replaced(row, twin, self.unseen, [order.units[:size] for size in sizes], *given)
        start, end = self.ends(twin, self.unseen)
        whole = np.abs(end - start).mean()
        share = ((values - start) * np.sign(end - start)).mean(axis=1) / max(whole, 1e-12)
        if not self.goal.foretold:
            return share
        start, end = self.ends(twin, self.pairs)
        said = np.cumsum(order.effects)[np.array(sizes) - 1] / max(np.abs(end - start).mean(), 1e-12)
        return 1 - np.abs(said - share)

    def side(
        self, row: FrontierType, sets: Sequence[Sequence[Unit]]
    ) -> Float[np.ndarray, "size control"] | None:
        """What the same units of other pairs do to their next word when they are exchanged (nats)."""
        if not self.goal.side or self.controls is None:
            return None
        return -replaced(row, self.model, self.controls, sets, self.goal.direction, "kl")

    def foretold(
        self, order: Ranked, start: np.ndarray, end: np.ndarray, sizes: Sequence[int]
    ) -> Float[np.ndarray, " size"]:
        """The sum of the single effects of each set, as a share of the behaviour of the ranking pairs."""
        return np.cumsum(order.effects)[np.array(sizes) - 1] / _total(start, end)

    def shuffled(
        self, order: Ranked, start: np.ndarray, end: np.ndarray, sizes: Sequence[int]
    ) -> Float[np.ndarray, " size"]:
        """The same where effects are dealt to units by chance: each has the mean effect."""
        return np.array(sizes) * order.effects.mean() / _total(start, end)

    def agreement(self, row: FrontierType, order: Ranked) -> float | None:
        """The rank correlation of single effects on the ranking pairs and on unseen ones, of some units."""
        half = min(SAMPLED // 2, len(order.units))
        rest = np.random.default_rng(self.seed).permutation(np.arange(half, len(order.units)))
        asked = [*range(half), *rest[: SAMPLED - half].tolist()]
        if len(asked) < 4:
            return None
        start, _ = self.ends(self.model, self.unseen)
        sets = [[order.units[at]] for at in asked]
        values = replaced(row, self.model, self.unseen, sets, self.goal.direction, self.metric)
        again = (values - start).mean(axis=1) * SIGNS[self.goal.direction]
        found: Any = spearmanr(order.effects[asked], again)
        return float(found.statistic) if np.isfinite(found.statistic) else None


def _total(start: np.ndarray, end: np.ndarray) -> float:
    """The total effect, never quite zero."""
    found = float((end - start).mean())
    return found if abs(found) > 1e-12 else math.copysign(1e-12, found)


def sizes_of(n: int) -> list[int]:
    """1, 2, 4, ... 256, 1024, ... and all.

    Args:
        n: units that there are.
    """
    found = [2**at if at <= 8 else 4 ** (at - 4) for at in range(n.bit_length() + 1)]
    return sorted({size for size in found if size < n} | {n})
