"""What a search over mediators returns: one effect per mediator and pair, both directions, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp import results
from interp.errors import ConfigError, DataError
from interp.mediation.edges.graph import Edge
from interp.mediation.files import read_effects, write_effects
from interp.mediation.itemised import of_effects
from interp.mediation.mediators import Mediator
from interp.results.findings import Finding
from probes.statistics import Estimate, benjamini_hochberg, bootstrap

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
FLIPS, MORE_FLIPS, NEAR = 999, 49_999, 5
"""Sign flips for every mediator, and for those again that at most four of these flips equal."""
LISTED = 2000
"""Rows of the table that have an interval, and that ``to_dict`` gives: the largest effects."""


@dataclass(frozen=True, eq=False, repr=False)
class Effects:
    """Hold the effect of each mediator on each pair.

    An effect is in units of the metric and positive where the mediator works towards the clean answer: by
    *denoising* ``Y(corrupt, M clean) - Y(corrupt)`` (the natural indirect effect from corrupt to clean), by
    *noising* ``Y(clean) - Y(clean, M corrupt)``. Their difference, noising less denoising, is the interaction
    of the mediator with everything that responds to it (Robins and Greenland 1992).

    Attributes:
        mediators: what was replaced, in order of execution.
        values: direction -> ``[mediator pair]``.
        clean: ``[pair]``, the metric of the clean prompts.
        corrupt: ``[pair]``, of the corrupt prompts.
        groups: of the pairs; intervals are over them.
        search: how the effects were found: ``exhaustive`` is exact.
        metric: its name.
        unit: of the metric.
        replacement: its name.
        noise: half-width of what re-running the same numbers in another batch changes: the noise floor.
        cost: forward-equivalents and what was skipped, checked or fallen back to.
        model: name, weights, fingerprint, scheme.
        seed: of the intervals.
        warnings: what a reader should know.
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
        return np.mean([self._values(one).mean(axis=1) for one in self._chosen(direction)], axis=0)

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
        values = np.mean([self._values(one)[at] for one in self._chosen(direction)], axis=0)
        return self._interval(values)

    def _interval(self, values: Float[np.ndarray, " pair"]) -> Estimate:
        """Estimate a mean over pairs; effects of exactly 0 or 1 logits are no shares."""
        support = "auto" if self.unit in BOUNDED else "real"
        return bootstrap(values, groups=self.groups, seed=self.seed, support=support)

    def table(self, k: int | None = None) -> pandas.DataFrame:
        """Give one row per mediator, the largest effect first.

        Columns: mediator, layer, position, effect (mean over pairs and directions), low, high (its interval;
        missing beyond the 2,000 largest effects), share (of the total effect; missing where that is not told
        from zero), one column per direction, interaction, q
        (false discovery rate of a sign-flip test, Benjamini-Hochberg over all mediators), clear (whether the
        effect is above three times the noise floor).

        Args:
            k: how many rows; all where left out.
        """
        import pandas

        mean, total = self.mean(), float(self.total.mean())
        order = np.argsort(-np.abs(mean), kind="stable")[:k].tolist()
        usable = self.differs
        q = benjamini_hochberg(_p_values(self))
        rows: list[dict[str, Any]] = []
        for rank, at in enumerate(order):
            mediator, value = self.mediators[at], float(mean[at])
            interval = self._estimate(at).interval if rank < LISTED else None
            row = {
                "mediator": str(mediator),
                "layer": mediator.layer,
                "position": mediator.position,
                "effect": value,
                "low": None if interval is None else interval.low,
                "high": None if interval is None else interval.high,
                "share": value / total if usable else None,
            }
            row |= {one: float(self._values(one)[at].mean()) for one in self.directions}
            if len(self.directions) == 2:
                row["interaction"] = row["noising"] - row["denoising"]
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


def _p_values(effects: Effects) -> np.ndarray:
    """Test each mean effect against no effect by flipping the signs of whole groups.

    No p is below ``1 / (1 + flips)``, which is too coarse to survive a correction over many mediators; those
    that come near it are tested again with fresh and more flips.
    """
    values = np.mean(list(effects.values.values()), axis=0)
    names = {group: code for code, group in enumerate(dict.fromkeys(effects.groups))}
    codes = np.array([names[group] for group in effects.groups])
    sums = np.stack([np.bincount(codes, row, minlength=len(names)) for row in values])
    rng = np.random.default_rng(effects.seed)
    found = _flipped(sums, FLIPS, rng)
    near = np.flatnonzero(found <= NEAR / (1 + FLIPS))
    near = near[np.argsort(-np.abs(sums[near].sum(axis=1)), kind="stable")[:LISTED]]
    if len(near) and len(sums) > NEAR:
        found[near] = _flipped(sums[near], MORE_FLIPS, rng)
    return found


def _flipped(sums: np.ndarray, flips: int, rng: np.random.Generator) -> np.ndarray:
    """Give p of each row of sums over groups."""
    seen, larger = np.abs(sums.sum(axis=1)), np.zeros(len(sums))
    step = max(1, 4_000_000 // max(1, len(sums)))
    for start in range(0, flips, step):
        signs = rng.choice((-1.0, 1.0), size=(min(step, flips - start), sums.shape[1]))
        larger += (np.abs(sums @ signs.T) >= seen[:, None] - 1e-12).sum(axis=1)
    return (1 + larger) / (1 + flips)
