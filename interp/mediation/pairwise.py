"""Pairwise interactions: what two mediators do together beyond what each does alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import ConfigError, counted
from interp.mediation.effects import DIRECTIONS
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.metrics import METRICS
from interp.mediation.parsing import experiment_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About, Figure, Finding, Number, Result, Table
from interp.sites import OF_DICTIONARIES, Site
from probes.statistics import Estimate, bootstrap

__all__ = ["Interactions", "interactions"]

MOST, DRAWN = 24, 12


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Interactions(Result):
    """The interaction of every two of some mediators on each pair.

    ``f(S)`` is the metric with the mediators of S as in the clean run and the rest of the listed ones as in
    the corrupt run; whatever is not listed responds to what it gets. By *denoising* two mediators interact by
    ``f(ij) - f(i) - f(j) + f()`` from the corrupt prompt, by *noising* by
    ``f(N) - f(N without i) - f(N without j) + f(N without both)`` from the clean one. Both are positive where
    each needs the other (AND) and negative where either is enough, or one covers for the other (OR, backup).

    That reading holds only between mediators of which neither is upstream of the other. Of a chain ``i -> j``
    denoising gives a negative number, because ``j`` answers to a clean ``i``, and noising a positive one;
    :meth:`reading` says so. A backup that is silent while its principal works is seen by noising alone.

    Attributes:
        mediators: which.
        values: ``[one two pair]``, symmetric; the diagonal is zero.
        upstream: ``[one two]``, whether what the first writes can reach the second.
        direction: ``denoising`` or ``noising``.
        metric: its name.
        groups: of the pairs.
    """

    schema: ClassVar[str] = "interp.interactions/1"

    mediators: tuple[Mediator, ...]
    values: Float[np.ndarray, "one two pair"]
    upstream: Bool[np.ndarray, "one two"]
    direction: str
    metric: str
    groups: tuple[str, ...]

    @property
    def matrix(self) -> Float[np.ndarray, "one two"]:
        """The mean over pairs."""
        return self.values.mean(axis=2)

    @property
    def unit(self) -> str:
        """Of the metric."""
        return METRICS[self.metric].unit

    def estimate(self, one: int, two: int) -> Estimate:
        """The mean interaction of two mediators, by their place, with its interval over groups."""
        values = self.values[one, two]
        return bootstrap(values, groups=self.groups, seed=self.seed, support="real")

    def reading(self, one: int, two: int) -> str:
        """What the sign of an interaction says about two mediators, by their place."""
        interval, value = self.estimate(one, two).interval, self.matrix[one, two]
        if interval.contains(0.0):
            return "not told from none"
        chain = self.upstream[one, two] or self.upstream[two, one]
        if value > 0:
            may = (
                ", or a chain: one is upstream of the other" if chain and self.direction == "noising" else ""
            )
            return f"each needs the other (AND){may}"
        if self.direction == "noising":
            return "one covers for the other (OR, backup)"
        may = ", or a chain: one is upstream of the other" if chain else ""
        return f"either is enough (OR){may}"

    @cached_property
    def rows(self) -> tuple[tuple[str, str, float, float, float, str], ...]:
        """The cells of the table: every two mediators, the strongest interaction first."""
        found = sorted(combinations(range(len(self.mediators)), 2), key=lambda at: -abs(self.matrix[at]))
        rows = []
        for one, two in found:
            value, names = self.estimate(one, two), (str(self.mediators[one]), str(self.mediators[two]))
            ends = value.interval
            rows.append((*names, value.value, ends.low, ends.high, self.reading(one, two)))
        return tuple(rows)

    def question(self) -> str:
        """Whether they work together, in which data and model."""
        return f"Which parts work together? ({self.about.words})"

    def verdict(self) -> str:
        """The strongest interaction and what its sign says."""
        one, two, value, low, high, reading = self.rows[0]
        told = sum(row[-1] != "not told from none" for row in self.rows)
        return (
            f"{one} and {two} interact most by {self.direction}: {value:.2f} [{low:.3f}, {high:.3f}] "
            f"{self.unit}, {reading}; {told} of {len(self.rows)} interactions are told from none, each by "
            "its own interval."
        )

    def lead(self) -> tuple[str, ...]:
        """What was replaced, and that the rest responds."""
        way = (
            "corrupt prompt, values of the clean one"
            if self.direction == "denoising"
            else ("clean prompt, values of the corrupt one")
        )
        return (
            f"Every two of {counted(len(self.mediators), 'mediator')} were replaced together and each "
            "alone, on "
            f"{counted(len(self.groups), 'pair')} ({way}); all others respond. The interaction is what both "
            "do together "
            f"beyond what each does alone, in {self.metric} ({self.unit}).",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The strongest interaction."""
        one, two, value, low, high, reading = self.rows[0]
        label = f"Strongest: {one} and {two}"
        return (Number("strongest-interaction", value, low, high, self.unit, reading, label),)

    def tables(self) -> tuple[Table, ...]:
        """``interactions``, one row per two mediators: one, two, interaction, low, high, reading."""
        columns = ("one", "two", "interaction", "low", "high", "reading")
        note = (
            f"Intervals: 95%, over {counted(len(set(self.groups)), 'group')} of pairs, each of one "
            "interaction alone."
        )
        return (Table("interactions", f"Interactions ({self.unit})", columns, self.rows, note, main=0),)

    def figures(self) -> tuple[Figure, ...]:
        """The strongest interactions."""
        rows = self.rows[:DRAWN]
        data: dict[str, Any] = {"name": [f"{row[0]} x {row[1]}" for row in rows]}
        data |= {name: [row[at] for row in rows] for at, name in enumerate(("value", "low", "high"), 2)}
        return (
            Figure(
                "interactions",
                "intervals",
                data,
                "The strongest interactions",
                f"By {self.direction}; all others respond. Intervals: 95%, over groups of pairs.",
                x=f"interaction in {self.metric} ({self.unit})",
                reference=0.0,
                reference_name="none",
            ),
        )

    def cautions(self) -> tuple[str, ...]:
        """What the sign does not say."""
        return (
            "Between two mediators of which one is upstream of the other the sign also says that the second "
            "responds to the first; a backup that is silent while its principal works is seen by noising "
            "alone.",
        )

    def findings(self) -> tuple[Finding, ...]:
        """The interaction of every two, pair by pair, against none."""
        about = "what both do together beyond what each does alone"
        return tuple(
            Finding(
                f"{self.mediators[one]} x {self.mediators[two]}",
                self.values[one, two],
                self.groups,
                unit=self.unit,
                about=about,
            )
            for one, two in combinations(range(len(self.mediators)), 2)
        )


def interactions(
    model: ModelLike,
    pairs: PairSet,
    mediators: str | Sequence[str | Site | Mediator],
    *,
    direction: str = "denoising",
    metric: str = "logit-diff",
    positions: str | int = "auto",
    seed: int = 0,
) -> Interactions:
    """Replace every two of some mediators together, and each alone (interchange; all others respond).

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: at most 24, such as ``effects.top(12)``.
        direction: ``denoising`` (into the corrupt prompt) or ``noising`` (into the clean one).
        metric: a key of ``METRICS``.
        positions: as for ``mediators_of``.
        seed: of the rows that are checked and of intervals.

    Raises:
        ConfigError: fewer than two mediators or more than 24, an unknown direction or metric.
    """
    model = as_model(model)
    if direction not in DIRECTIONS:
        raise ConfigError(f"direction {direction!r} asked; use {' or '.join(DIRECTIONS)}.")
    given = [mediators] if isinstance(mediators, str) else list(mediators)
    found = mediators_of(model, pairs, given, positions=positions)
    if not 2 <= len(found) <= MOST:
        raise ConfigError(
            f"{counted(len(found), 'mediator')} asked; interactions are measured of 2 to {MOST}, "
            "such as effects.top(12)."
        )
    if wide := [str(one) for one in found if one.window > 1]:
        raise ConfigError(
            f"{wide[0]} is a window of layers; windows overlap, so that what two do together says nothing of "
            "each. Ask for their layers, such as mlp_out.*."
        )
    asked = experiment_of(model, pairs, found, metric=metric, directions=direction, seed=seed)
    places = range(len(found))
    sets: list[tuple[int, ...]] = [(), *((at,) for at in places), *combinations(places, 2)]
    rows = asked.replaced([[asked.mediators[at] for at in one] for one in sets], direction).values
    replaced = asked.per_pair(rows)
    measured = dict(zip(sets, replaced, strict=True))
    values = np.zeros((len(found), len(found), len(pairs)))
    for one, two in combinations(places, 2):
        together = measured[one, two] - measured[one,] - measured[two,] + measured[()]
        values[one, two] = values[two, one] = together
    upstream = np.array([[is_upstream(model, one, two) for two in found] for one in found])
    return Interactions(
        mediators=found,
        values=values,
        upstream=upstream,
        direction=direction,
        metric=metric,
        groups=tuple(pairs.groups),
        about=About(model=model.described, data=pairs.described),
        seed=seed,
        warnings=(*pairs.notes, *asked.doubts(), *asked.dictionaries()),
    )


_STAGES = (
    ("embed", "resid_pre"),
    ("q", "k", "v"),
    ("z", "head"),
    ("attn_out", "mixer_out"),
    ("resid_mid",),
    ("neuron", "mlp_act"),
    ("mlp_out",),
    ("resid_post",),
)
_STAGE = {kind: at for at, kinds in enumerate(_STAGES) for kind in kinds}
_OF_ATTENTION, _OF_MLP = (
    ("q", "k", "v", "z", "head", "attn_out", "mixer_out"),
    ("neuron", "mlp_act", "mlp_out"),
)


def is_upstream(model: Model, one: Mediator, two: Mediator) -> bool:
    """Whether what the first writes can reach the second: earlier in the pass, and at no later token."""
    if one.position is not None and two.position is not None and one.position > two.position:
        return False
    layers = [-1 if mediator.layer is None else mediator.layer for mediator in (one, two)]
    if layers[0] != layers[1]:
        return layers[0] < layers[1]
    first, second = (_written(model, mediator) for mediator in (one, two))
    side_by_side = model.architecture.parallel and first in _OF_ATTENTION and second in _OF_MLP
    return _STAGE[first] < _STAGE[second] and not side_by_side


def _written(model: Model, mediator: Mediator) -> str:
    """The kind of site that is written: of a feature or an error, that of its dictionary."""
    site = mediator.site
    return model.dictionaries[site.layer or 0].site_out.kind if site.kind in OF_DICTIONARIES else site.kind
