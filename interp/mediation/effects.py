"""What a search over mediators returns: one effect per mediator and pair, both directions, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import ConfigError, DataError, counted
from interp.mediation.edges.edge import Edge
from interp.mediation.effect_words import (
    cell,
    cost_words,
    curves,
    groups_needed,
    interval_words,
    mask_words,
    remark,
    untrained_numbers,
    untrained_words,
)
from interp.mediation.mediators import Mediator
from interp.mediation.order_draws import OrderDraw
from interp.mediation.verified import Verified
from interp.results import Figure, Finding, Number, Result, Table
from probes.statistics import (
    Estimate,
    MeanIntervals,
    MeanTests,
    benjamini_hochberg,
    bootstrap,
    mean_intervals,
    mean_tests,
)

__all__ = ["DIRECTIONS", "MOST", "RANKINGS", "Effects"]

DIRECTIONS: dict[str, str] = {
    "denoising": "corrupt prompt, mediator from the clean one: is it enough to bring the answer back?",
    "noising": "clean prompt, mediator from the corrupt one: is it needed for the answer?",
}
RANKINGS: dict[str, str] = {
    "absolute": "the largest first, whichever way they work",
    "signed": "those that work towards the clean answer first, those against it last",
}
FLOORS = 3.0
BOUNDED = ("share", "probability")
"""Units of metrics whose values are between 0 and 1."""
MOST = 2000
"""Mediators that a map shows, and whose effects are findings."""
DRAWN = 12
HIDDEN = ("layer", "position", "opposite", "clear")
INTERACTION = (
    "Interaction: noising minus denoising. Above zero, the part is needed more than it is enough: it works "
    "together with others (AND). Below zero, it is enough more than it is needed: others can replace it (OR, "
    "backup). This holds of effects above zero; of a part whose effects are negative the signs mean the "
    "opposite."
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Effects(Result):
    """The effect of each mediator on each pair.

    An effect is in units of the metric and positive where the mediator works towards the clean answer: by
    *denoising* ``Y(corrupt, M clean) - Y(corrupt)`` (the natural indirect effect from corrupt to clean), by
    *noising* ``Y(clean) - Y(clean, M corrupt)``. Their difference, noising less denoising, is the interaction
    of the mediator with everything that responds to it (Robins and Greenland 1992).

    The effect over both directions is their mean. Where both are told from zero with opposite signs (the part
    helps in one prompt and hinders in the other, as in an exclusive or) a mean would cancel what it does:
    there the larger of the two counts, with twice its p.

    Attributes:
        mediators: what was replaced, in order of execution.
        values: direction -> ``[mediator pair]``.
        clean: ``[pair]``, the metric of the clean prompts.
        corrupt: ``[pair]``, of the corrupt prompts.
        groups: of the pairs; intervals are over them.
        search: how the effects were found.
        metric: its name.
        unit: of the metric.
        replacement: its name.
        noise: half-width of what re-running the same numbers in another batch changes: the noise floor.
        cost: forward-equivalents and what was skipped, checked or fallen back to.
        exact: whether these are effects of real replacements; otherwise they are estimates from gradients.
        verified: of estimates, what exact effects say of them.
        untrained: of causal tracing the same of the model with random weights; None elsewhere.
    """

    schema: ClassVar[str] = "interp.effects/2"

    mediators: tuple[Mediator, ...] | tuple[Edge, ...]
    values: Mapping[str, Float[np.ndarray, "mediator pair"]]
    clean: Float[np.ndarray, " pair"]
    corrupt: Float[np.ndarray, " pair"]
    groups: tuple[str, ...]
    search: str
    metric: str
    unit: str
    replacement: str
    noise: float
    cost: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True
    verified: Verified | None = None
    untrained: Effects | None = None

    # Numbers ----------------------------------------------------------------------------------------------

    @property
    def total(self) -> Float[np.ndarray, " pair"]:
        """The total effect ``Y(clean) - Y(corrupt)`` of each pair."""
        return self.clean - self.corrupt

    @property
    def differs(self) -> bool:
        """Whether the total effect is told from zero: above the noise floor, its interval without zero.

        Otherwise a share of it means nothing.
        """
        found = self._interval(self.total).interval
        above = abs(float(self.total.mean())) > max(FLOORS * self.noise, 1e-12)
        return above and not found.contains(0.0)

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions that were run."""
        return tuple(self.values)

    def mean(self, direction: str = "") -> Float[np.ndarray, " mediator"]:
        """The mean effect of each mediator over pairs, in one direction or over both."""
        return self.per_pair(direction).mean(axis=1)

    def per_pair(self, direction: str = "") -> Float[np.ndarray, "mediator pair"]:
        """The effect of each mediator on each pair, in one direction or over both.

        Raises:
            ConfigError: a direction that was not run.
        """
        if direction and direction not in self.values:
            raise ConfigError(f"direction {direction!r} asked; measured: {', '.join(self.values)}.")
        if direction or len(self.directions) < 2:
            return self.values[direction or next(iter(self.values))]
        return self._both

    @cached_property
    def _both(self) -> Float[np.ndarray, "mediator pair"]:
        """The mean of both directions, and the larger of them where they are opposite."""
        first, second = self.values.values()
        larger = np.abs(first.mean(axis=1)) >= np.abs(second.mean(axis=1))
        one = np.where(larger[:, None], first, second)
        return np.where(self.opposite[:, None], one, np.mean([first, second], axis=0))

    @cached_property
    def opposite(self) -> Bool[np.ndarray, " mediator"]:
        """Whether both directions are told from zero, above the noise floor, with opposite signs."""
        if len(self.directions) < 2:
            return np.zeros(len(self.mediators), dtype=bool)
        first, second = (self._intervals(way) for way in self.directions)
        floor = FLOORS * self.noise
        up, down = (first.low > floor) & (second.high < -floor), (first.high < -floor) & (second.low > floor)
        return up | down

    def _intervals(self, direction: str = "") -> MeanIntervals:
        limits = (-1.0, 1.0) if self.unit in BOUNDED else None
        values, draw = self.per_pair(direction), self.draw(direction)
        found = mean_intervals(values, groups=self.groups, limits=limits)
        return found if draw is None else draw.widened(found, limits)

    @property
    def masks(self) -> Mapping[str, Mapping[str, Any]]:
        """Direction -> what the hard mask keeps; empty unless a mask was learned, whose gates are no effects.

        A value is then a gate times the pair's total effect: its spread over pairs is that of the total.
        """
        parts = {way: self.cost.get(way) for way in self.values}
        return {way: part["hard"] for way, part in parts.items() if part and "hard" in part}

    def draw(self, direction: str = "") -> OrderDraw | None:
        """What drawing orders adds to the uncertainty of each mean; None where no orders were drawn."""
        parts = [self.cost.get(way) for way in ((direction,) if direction else self.directions)]
        drawn = [OrderDraw.of(part, len(self.mediators)) for part in parts if isinstance(part, Mapping)]
        known = [one for one in drawn if one is not None]
        if len(known) < 2:
            return known[0] if known else None
        return known[0].beside(known[1], larger=self.opposite)

    @property
    def beside(self) -> Float[np.ndarray, " pair"] | None:
        """Of causal tracing what the same noise on other tokens takes; None elsewhere."""
        part = self.cost.get("noise on other tokens")
        return self.clean - np.asarray(part["values"]) if part else None

    @cached_property
    def tests(self) -> MeanTests:
        """Whether each mean effect is zero, by groups; see ``probes.statistics.mean_tests``."""
        found, draw = mean_tests(self.per_pair(), groups=self.groups, seed=self.seed), self.draw()
        p = found.p if draw is None else draw.tested(found.p, self.mean())
        return replace(found, p=np.minimum(1.0, p * np.where(self.opposite, 2.0, 1.0)))

    def normalised(self, direction: str = "") -> Float[np.ndarray, " mediator"]:
        """The mean effect over the mean total effect: a ratio of means, not a mean of ratios.

        Raises:
            DataError: the total effect is zero within the noise floor.
        """
        total = float(self.total.mean())
        if abs(total) <= max(FLOORS * self.noise, 1e-12):
            raise DataError(
                f"the total effect is {total:.2g} {self.unit}, within the noise floor of {self.noise:.1g}: "
                "clean and corrupt prompts give the same answer. Choose pairs whose answers differ."
            )
        return self.mean(direction) / total

    def top(self, k: int = 10, *, direction: str = "", ranking: str = "absolute") -> tuple[Any, ...]:
        """The k mediators with the largest mean effect.

        Args:
            k: how many.
            direction: one of them, or over both where left out.
            ranking: a key of ``RANKINGS``.

        Raises:
            ConfigError: an unknown ranking, a direction that was not run, or a negative k.
        """
        if k < 0:
            raise ConfigError(f"k={k} asked; it is how many mediators to give, from 0 on.")
        if ranking not in RANKINGS:
            raise ConfigError(f"ranking {ranking!r} asked; there are: {', '.join(RANKINGS)}.")
        mean = self.mean(direction)
        order = np.argsort(-(np.abs(mean) if ranking == "absolute" else mean), kind="stable")
        return tuple(self.mediators[at] for at in order[:k])

    def place(self, mediator: Mediator | Edge | str) -> int:
        """The row of a mediator.

        Raises:
            ConfigError: no effect of it was measured.
        """
        names = [str(one) for one in self.mediators]
        if str(mediator) not in names:
            raise ConfigError(
                f"no effect of {str(mediator)!r} was measured; try one of: {', '.join(names[:5])}."
            )
        return names.index(str(mediator))

    def estimate(self, mediator: Mediator | Edge | str, direction: str = "") -> Estimate:
        """One mediator's mean effect with its interval over groups, and over drawn orders.

        Raises:
            ConfigError: no effect of it was measured, or a mask's gate, which has no interval.
        """
        at = self.place(mediator)
        if self.masks:
            raise ConfigError(
                f"an interval of the effect of {str(mediator)!r} asked, and {self.search!r} learned a gate "
                "of it. Search exhaustively, or evaluate the circuit that the mask keeps."
            )
        found, draw = self._interval(self.per_pair(direction)[at]), self.draw(direction)
        return found if draw is None else draw.part(at).wider(found)

    def _interval(self, values: Float[np.ndarray, " pair"]) -> Estimate:
        """Estimate a mean over pairs; effects of exactly 0 or 1 logits are no shares."""
        support = "auto" if self.unit in BOUNDED else "real"
        return bootstrap(values, groups=self.groups, seed=self.seed, support=support)

    # What it says -----------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One row per mediator, the largest effect first: the cells of the main table."""
        mean, total, usable = self.mean(), float(self.total.mean()), self.differs
        q, intervals = benjamini_hochberg(self.tests.p), self._intervals()
        parts = {direction: values.mean(axis=1) for direction, values in self.values.items()}
        found: list[Mapping[str, Any]] = []
        for at in np.argsort(-np.abs(mean), kind="stable").tolist():
            mediator, value = self.mediators[at], float(mean[at])
            row = {
                "mediator": str(mediator),
                "layer": mediator.layer,
                "position": mediator.position,
                "effect": value,
                "low": float(intervals.low[at]),
                "high": float(intervals.high[at]),
                "share": value / total if usable else None,
            }
            row |= {direction: float(means[at]) for direction, means in parts.items()}
            row |= {} if self.untrained is None else {"untrained": float(self.untrained.mean()[at])}
            if len(parts) == 2 and not self.masks:
                row["interaction"] = row["noising"] - row["denoising"]
                row["opposite"] = bool(self.opposite[at])
            row |= {"q": float(q[at]), "clear": abs(value) > FLOORS * self.noise}
            if self.masks:
                kept = [way for way, hard in self.masks.items() if str(mediator) in hard.get("members", ())]
                row |= {"low": None, "high": None, "q": None, "clear": bool(kept)}
                row["remark"] = f"kept by {' and '.join(kept)}" if kept else "not kept"
            found.append(row if self.masks else row | {"remark": remark(row)})
        return tuple(found)

    @cached_property
    def told(self) -> tuple[Mapping[str, Any], ...]:
        """The rows of mediators above the noise floor and told from chance; none of a learned mask."""
        return tuple(row for row in self.rows if row["clear"] and row["q"] is not None and row["q"] <= 0.05)

    def tables(self) -> tuple[Table, ...]:
        """``effects``, one row per mediator; ``verified``, the largest estimates beside exact effects.

        Columns of the first: mediator, layer, position, effect (over pairs and directions), low, high
        (interval), share (of the total effect; missing where that is not told from zero), one column per
        direction, untrained (causal tracing: the effect in the twin), interaction and opposite (whether the
        directions have opposite signs, so that the effect is the larger of them), q (false discovery rate of
        :func:`probes.statistics.mean_tests`, Benjamini-Hochberg over all mediators), clear (whether the
        effect is above three times the noise floor), remark (why a row is no finding). Of a learned mask: no
        intervals and no q, share is the gate, clear and remark say what is kept.

        An interval is of one mediator alone; whether a mediator is found among many is read off q.
        """
        columns = tuple(self.rows[0]) if self.rows else ("mediator", "effect")
        main = Table(
            "effects",
            f"{_noun(self)} ({self.unit})",
            columns,
            [tuple(row.values()) for row in self.rows],
            _note(self),
            main=0 if self.rows else None,
            shown=15,
            formats={"share": "z.0%"},
            hidden=tuple(
                name for name in (*HIDDEN, *(() if self.differs else ("share",))) if name in columns
            ),
            narrow=("interaction", "noising", "denoising", "share"),
        )
        if self.verified is None:
            return (main,)
        again = [(one.mediator, one.estimate, one.exact, one.low, one.high) for one in self.verified.top]
        names = ("mediator", "estimate", "exact", "low", "high")
        largest = "largest scores, no estimates of it, each" if self.masks else "largest estimates,"
        note = f"The {largest} replaced exactly. Intervals: of the exact effects."
        return (main, Table("verified", "Estimate and exact effect", names, again, note))

    def question(self) -> str:
        """What carries the answer, in which data and model."""
        return f"What carries the answer? ({self.about.words})"

    def verdict(self) -> str:
        """The largest effect and how many are told from chance; or why nothing is."""
        return _verdict(self)

    def lead(self) -> tuple[str, ...]:
        """Pairs, search and metric; what it cost."""
        described = self.about.data.get("description")
        return (
            f"{counted(len(self.clean), 'pair')} of prompts{f' ({described})' if described else ''} were run "
            f"through {self.about.model_name}. Search: {self.search}, replacement: {self.replacement}, "
            f"metric: {self.metric} ({self.unit}): {self.clean.mean():.3f} on clean prompts, "
            f"{self.corrupt.mean():.3f} on corrupt ones. Positive effects work towards the clean answer.",
            *cost_words(self.cost),
        )

    def numbers(self) -> tuple[Number, ...]:
        """The total effect, the largest, and how well estimates rank."""
        total = self._interval(self.total)
        ends = total.interval
        found = [
            Number(
                "total-effect", total.value, ends.low, ends.high, self.unit, "clean prompts less corrupt ones"
            )
        ]
        if (other := self.beside) is not None:
            value, ends = float(other.mean()), self._interval(other).interval
            meaning = "control: the same noise on as many random other tokens, or as prompts have"
            found.append(Number("other-noise", value, ends.low, ends.high, self.unit, meaning))
        found += _untrained(self)
        for way, hard in self.masks.items():
            kept = f"the {hard['kept']:,} that the mask keeps, on the pairs that it was trained on"
            found.append(Number(f"mask-faithfulness-{way}", hard["faithfulness"], None, None, "", kept))
        if self.verified is not None:
            best = self.verified.largest
            guess = "by gate" if self.masks else f"estimated {best.estimate:.3f}"
            found.append(
                Number(
                    "largest-effect",
                    best.exact,
                    best.low,
                    best.high,
                    self.unit,
                    f"the largest of those verified exactly; {guess}",
                    f"Largest: {best.mediator}",
                )
            )
        elif self.rows and not self.masks:
            row = self.rows[0]
            share = "" if row["share"] is None else f"{row['share']:z.0%} of the total effect"
            name, ends = f"Largest: {row['mediator']}", (row["low"], row["high"])
            found.append(Number("largest-effect", row["effect"], *ends, self.unit, share, name))
        if self.verified is not None:
            rank = self.verified
            drawn = f"exact effects of {counted(rank.sample, 'mediator')} drawn at random"
            meaning = f"{'scores' if self.masks else 'estimates'} and {drawn}"
            ends = (rank.low, rank.high)
            found.append(Number("rank-correlation", rank.rank_correlation, *ends, "", meaning, decimals=2))
        return tuple(found)

    def figures(self) -> tuple[Figure, ...]:
        """A map where mediators form a grid, and the largest effects."""
        grid = _map(self)
        return (_largest(self),) if grid is None else (grid, _largest(self))

    def cautions(self) -> tuple[str, ...]:
        """What an effect does not say."""
        says = f"what replacing the value at this place ({self.replacement}) takes or brings back"
        if self.replacement == "interchange":
            says = "that the value at this place carries the difference between the two prompts of a pair"
        return (
            f"An effect says {says}, not what it means, and not that other prompts use the same place.",
            "Effects of single mediators need not add up to the total: others may respond, or take over.",
        )

    def findings(self) -> tuple[Finding, ...]:
        """The total effect, then the effect of every mediator in the order of execution.

        Each is over pairs, in units of the metric, against an effect of zero; over both directions it is the
        effect that the table shows; gates of a learned mask are none. Kinds of which every layer has one at
        most, such as ``mlp_out``, form a curve over layers.

        Raises:
            DataError: more than ``MOST`` mediators.
        """
        if len(self.mediators) > MOST:
            raise DataError(
                f"{len(self.mediators):,} effects cannot be compared one by one, {MOST:,} can: search fewer "
                "mediators, such as the reference's effects.top(100), or use "
                "interp.analyses.patch_agreement."
            )
        about = "the metric of the clean prompt less that of the corrupt one"
        each = zip(self.mediators, self.per_pair(), curves(self.mediators), strict=True)
        other = "what the same noise on other tokens takes"
        return (
            Finding("total effect", self.total, self.groups, unit=self.unit, about=about),
            *(
                ()
                if self.beside is None
                else (
                    Finding("noise on other tokens", self.beside, self.groups, unit=self.unit, about=other),
                )
            ),
            *(
                Finding(str(one), row, self.groups, unit=self.unit, curve=curve, layer=one.layer)
                for one, row, curve in (() if self.masks else each)
            ),
        )


def _noun(effects: Effects) -> str:
    if effects.masks:
        return "Gates times the total effect"
    return "Effects" if effects.exact else "Estimated effects"


def _note(effects: Effects) -> str:
    if effects.masks:
        return (
            "Score: a gate, 0 to 1, times the total effect; share is the gate. It is no effect, and has no "
            "interval and no q: what the hard mask keeps, in the last column, stands or falls as a whole."
        )
    parts = [
        f"Intervals: 95%, over {_over(effects)}, each of one mediator alone; "
        " q tells which effects are found among all of them.",
        "Share: of the total effect." if effects.differs else "",
        f"Noise floor: {effects.noise:.1e} {effects.unit}; an effect under three times that counts as noise.",
        INTERACTION if len(effects.values) == 2 else "",
        "" if effects.untrained is None else "Untrained: the effect in the same model with random weights.",
    ]
    if not effects.exact:
        exact = "the exact effect may lie outside"
        seen = f"{exact}; see the next table." if effects.verified else f"{exact}, and none was verified."
        parts.append(f"Intervals are of the estimates over pairs: {seen}")
    return " ".join(filter(None, parts))


def _over(effects: Effects) -> str:
    """What intervals are over."""
    draw, groups = effects.draw(), f"{counted(len(set(effects.groups)), 'group')} of pairs"
    return groups if draw is None else f"{groups} and {counted(draw.orders, 'drawn order')}"


def _verdict(effects: Effects) -> str:
    n, groups, unit = len(effects.mediators), len(set(effects.groups)), effects.unit
    if n and not effects.differs:
        return (
            f"The total effect ({effects.total.mean():.3g} {unit}) is not told from zero over "
            f"{counted(groups, 'group')} of pairs, so no part can be said to carry it. Give more pairs, or "
            "pairs whose answers differ."
        )
    if effects.masks:
        return mask_words(effects.masks, n)
    notice = effects.tests.notice if n else ""
    if not effects.told:
        if n and effects.tests.smallest * n > 0.05:
            return (
                f"{counted(groups, 'group of pairs is', 'groups of pairs are')} too few to tell any of "
                f"{counted(n, 'mediator')} from chance: give pairs of at least {groups_needed(n)} groups."
            )
        notice = f" {notice.capitalize()}." if notice else ""
        told = f"No mediator of {n:,} is told from the noise floor and from chance"
        return f"{told} over {_over(effects)}.{notice}{untrained_words(_untrained(effects))}"
    notice = f"; {notice}" if notice else ""
    of = counted(n, "mediator")
    many = f"{len(effects.told):,} of {of} are above the noise floor with q at most 0.05{notice}."
    if effects.verified is not None:
        best = effects.verified.largest
        return (
            f"{best.mediator} has the largest effect of the {len(effects.verified.top)} that were verified "
            f"exactly: {best.exact:.2f} {interval_words(best.low, best.high)} {unit} (estimated "
            f"{best.estimate:.2f}). By estimates, {many}"
        )
    row = effects.told[0]
    draw = effects.draw()
    how = "exact" if effects.exact else "estimated, not verified"
    how = how if draw is None else f"sampled, {counted(draw.orders, 'drawn order')}"
    ways = (
        f", in opposite ways in the two prompts: denoising {row['denoising']:+.2f}, noising "
        f"{row['noising']:+.2f} {unit}"
        if row.get("opposite")
        else ""
    )
    return (
        f"{row['mediator']} has the largest effect: {row['effect']:.2f} "
        f"{interval_words(row['low'], row['high'])} {unit}, {row['share']:z.0%} of the total ({how}){ways}; "
        f"{many}{untrained_words(_untrained(effects))}"
    )


def _untrained(effects: Effects) -> list[Number]:
    """What the noise takes from the model with random weights, and its largest effect; nothing elsewhere."""
    if (twin := effects.untrained) is None:
        return []
    name = str(twin.top(1)[0])
    return untrained_numbers(twin._interval(twin.total), twin.estimate(name), name, twin.unit)


def _largest(effects: Effects) -> Figure:
    rows = effects.rows[:DRAWN]
    data = {"name": [row["mediator"] for row in rows], "value": [row["effect"] for row in rows]}
    data |= {
        end: [row[end] if row[end] is not None and np.isfinite(row[end]) else row["effect"] for row in rows]
        for end in ("low", "high")
    }
    masks = bool(effects.masks)
    return Figure(
        "effects",
        "intervals",
        data,
        "The largest gates" if masks else "The largest effects",
        ("No intervals: a gate is learned once." if masks else f"Intervals: 95%, over {_over(effects)}.")
        + " Dashed: no effect.",
        x=f"{'gate times total effect' if masks else 'effect'} on {effects.metric} ({effects.unit})",
        reference=0.0,
        reference_name="no effect",
    )


def _map(effects: Effects) -> Figure | None:
    """Effects over layer and head, or layer and position; None where mediators form no grid."""
    rows = effects.rows[:MOST]
    known = {str(one): one for one in effects.mediators}
    cells = [cell(known[row["mediator"]]) for row in rows]
    grid = [one for one in cells if one is not None]
    if len(grid) != len(rows) or len({kind for *_, kind in grid}) != 1 or len({x for x, *_ in grid}) < 2:
        return None
    kind, at_tokens = grid[0][2]
    ending = ", from the end" if min(x for x, *_ in grid) < 0 else ""
    return Figure(
        "map",
        "map",
        {
            "x": [x for x, *_ in grid],
            "y": [y for _, y, _ in grid],
            "value": [row["effect"] for row in rows],
            "clear": [row["clear"] for row in rows],
        },
        f"Effect of each {kind}",
        f"Mean effect on {effects.metric} ({effects.unit}) over {counted(len(effects.clean), 'pair')}; blue "
        "works "
        "towards the clean answer, orange against it; grey or blank: below three times the noise floor.",
        x=f"position of the token{ending}" if at_tokens else kind,
        y="layer",
        limits=None if effects.told else _whole(effects),
    )


def _whole(effects: Effects) -> tuple[float, float]:
    """A scale on which effects that are not told from chance stay pale: that of the metric itself."""
    ends = [effects.total.mean(), effects.clean.mean(), effects.corrupt.mean(), *effects.mean()]
    most = max(abs(float(end)) for end in ends)
    return -most, most
