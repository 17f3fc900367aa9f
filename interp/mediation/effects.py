"""What a search over mediators returns: one effect per mediator and pair, both directions, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from interp import results
from interp.errors import ConfigError, DataError
from interp.mediation.edges.graph import Edge
from interp.mediation.files import read_effects, write_effects
from interp.mediation.itemised import of_effects
from interp.mediation.mediators import Mediator
from interp.results.findings import Finding
from probes.statistics import (
    Estimate,
    MeanIntervals,
    MeanTests,
    benjamini_hochberg,
    bootstrap,
    mean_intervals,
    mean_tests,
)

if TYPE_CHECKING:
    import pandas

__all__ = ["DIRECTIONS", "RANKINGS", "Effects"]

SCHEMA = "interp.effects/1"
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
LISTED = 2000
"""Rows that ``to_dict`` gives: the largest effects."""


@dataclass(frozen=True, eq=False, repr=False)
class Effects:
    """Hold the effect of each mediator on each pair.

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
        model: name, weights, fingerprint, scheme.
        seed: of the intervals.
        warnings: what a reader should know.
        exact: whether these are effects of real replacements; otherwise they are estimates from gradients.
    """

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
    cost: Mapping[str, Any]
    model: Mapping[str, Any]
    seed: int = 0
    warnings: tuple[str, ...] = field(default=())
    exact: bool = True

    @property
    def total(self) -> Float[np.ndarray, " pair"]:
        """Give the total effect ``Y(clean) - Y(corrupt)`` of each pair."""
        return self.clean - self.corrupt

    @property
    def differs(self) -> bool:
        """Say whether the total effect is told from zero: above the noise floor, its interval without zero.

        Otherwise a share of it means nothing.
        """
        found = self._interval(self.total).interval
        clear = abs(float(self.total.mean())) > max(FLOORS * self.noise, 1e-12)
        return clear and not found.contains(0.0)

    @property
    def directions(self) -> tuple[str, ...]:
        """Give the directions that were run."""
        return tuple(self.values)

    def mean(self, direction: str = "") -> Float[np.ndarray, " mediator"]:
        """Give the mean effect of each mediator over pairs, in one direction or over both."""
        return self._over(direction).mean(axis=1)

    def _over(self, direction: str = "") -> Float[np.ndarray, "mediator pair"]:
        """The effect of each mediator on each pair, in one direction or over both."""
        if direction or len(self.directions) < 2:
            return self._values(self._chosen(direction)[0])
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
        first, second = (self._intervals(values) for values in self.values.values())
        floor = FLOORS * self.noise
        up, down = (first.low > floor) & (second.high < -floor), (first.high < -floor) & (second.low > floor)
        return up | down

    def _intervals(self, values: Float[np.ndarray, "mediator pair"]) -> MeanIntervals:
        return mean_intervals(
            values, groups=self.groups, limits=(-1.0, 1.0) if self.unit in BOUNDED else None
        )

    @cached_property
    def _own_intervals(self) -> MeanIntervals:
        return self._intervals(self._over())

    @cached_property
    def tests(self) -> MeanTests:
        """Whether each mean effect is zero, by groups; see ``probes.statistics.mean_tests``."""
        found = mean_tests(self._over(), groups=self.groups, seed=self.seed)
        return replace(found, p=np.minimum(1.0, found.p * np.where(self.opposite, 2.0, 1.0)))

    def normalised(self, direction: str = "") -> Float[np.ndarray, " mediator"]:
        """Give the mean effect over the mean total effect: a ratio of means, not a mean of ratios.

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
        """Give the k mediators with the largest mean effect.

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
        """Give the row of a mediator.

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
        """Give one mediator's mean effect with its interval over groups."""
        return self._estimate(self.place(mediator), direction)

    def _estimate(self, at: int, direction: str = "") -> Estimate:
        return self._interval(self._over(direction)[at])

    def _interval(self, values: Float[np.ndarray, " pair"]) -> Estimate:
        """Estimate a mean over pairs; effects of exactly 0 or 1 logits are no shares."""
        support = "auto" if self.unit in BOUNDED else "real"
        return bootstrap(values, groups=self.groups, seed=self.seed, support=support)

    def table(self, k: int | None = None) -> pandas.DataFrame:
        """Give one row per mediator, the largest effect first.

        Columns: mediator, layer, position, effect (over pairs and directions), low, high (interval), share
        (of the total effect; missing where that is not told from zero), one column per direction, interaction
        and opposite (whether the directions have opposite signs, so that the effect is the larger of them), q
        (false discovery rate of :func:`probes.statistics.mean_tests`, Benjamini-Hochberg over all mediators),
        clear (whether the effect is above three times the noise floor).

        An interval is of one mediator alone; whether a mediator is found among many is read off q.

        Args:
            k: how many rows; all where left out.
        """
        import pandas

        mean, total = self.mean(), float(self.total.mean())
        order = np.argsort(-np.abs(mean), kind="stable")[:k].tolist()
        usable = self.differs
        q, intervals = benjamini_hochberg(self.tests.p), self._own_intervals
        rows: list[dict[str, Any]] = []
        for at in order:
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
            row |= {one: float(self._values(one)[at].mean()) for one in self.directions}
            if len(self.directions) == 2:
                row["interaction"] = row["noising"] - row["denoising"]
                row["opposite"] = bool(self.opposite[at])
            rows.append(row | {"q": float(q[at]), "clear": abs(value) > FLOORS * self.noise})
        return pandas.DataFrame(rows)

    def _chosen(self, direction: str) -> tuple[str, ...]:
        if direction and direction not in self.values:
            raise ConfigError(f"direction {direction!r} asked; measured: {', '.join(self.values)}.")
        return (direction,) if direction else self.directions

    def _values(self, direction: str) -> np.ndarray:
        return self.values[direction]

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the per-pair values as JSON types; of many mediators, the largest."""
        table = self.table(LISTED)
        plain, _ = results.jsonable(
            {
                "schema": SCHEMA,
                "search": self.search,
                "exact": self.exact,
                "metric": self.metric,
                "unit": self.unit,
                "replacement": self.replacement,
                "n_mediators": len(self.mediators),
                "n_pairs": len(self.clean),
                "n_groups": len(set(self.groups)),
                "clean": float(self.clean.mean()),
                "corrupt": float(self.corrupt.mean()),
                "total": float(self.total.mean()),
                "noise": self.noise,
                "few": self.tests.smallest * len(self.mediators) > 0.05,
                "notice": self.tests.notice,
                "cost": dict(self.cost),
                "model": dict(self.model),
                "seed": self.seed,
                "effects": table.astype(object).where(table.notna(), None).to_dict("records"),
                "warnings": list(self.warnings),
            }
        )
        return plain

    def findings(self) -> tuple[Finding, ...]:
        """Give the total effect and every mediator's, pair by pair; see ``itemised.of_effects``."""
        return of_effects(self)

    def diff(self, reference: Effects) -> pandas.DataFrame:
        """Give the change of each mediator's mean effect from another result.

        Raises:
            ConfigError: another metric or replacement.
        """
        mine, theirs = (self.metric, self.replacement), (reference.metric, reference.replacement)
        if mine != theirs:
            raise ConfigError(f"effects by {mine} cannot be compared with effects by {theirs}.")
        own, other = self.table().set_index("mediator"), reference.table().set_index("mediator")
        both = [name for name in own.index if name in other.index]
        found = own.loc[both, ["effect", "low", "high"]]
        return found.assign(
            reference=other.loc[both, "effect"], change=own.loc[both, "effect"] - other.loc[both, "effect"]
        ).reset_index()

    def save(self, folder: str | Path) -> Path:
        """Write ``effects.json`` and ``effects.safetensors`` (every pair's numbers) for :meth:`load`."""
        return write_effects(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Effects:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of something else.
        """
        return cls(**read_effects(folder))

    def _repr_html_(self) -> str:
        """Give the ten largest effects as an escaped table for notebooks."""
        return results.table_html(self.table(10), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        best = ", ".join(str(m) for m in self.top(3))
        shape = f"{len(self.mediators)} mediators x {len(self.clean)} pairs"
        return f"Effects({shape}, {self.search}; largest: {best})"
