"""Pairwise interactions: what two mediators do together beyond what each does alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from interp import results
from interp.errors import ConfigError
from interp.mediation.effects import DIRECTIONS
from interp.mediation.engine import Engine
from interp.mediation.itemised import of_interactions
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.walk import Row
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results.findings import Finding
from interp.sites import Site
from probes.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    import pandas

__all__ = ["Interactions", "interactions"]

MOST = 24


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """Hold the interaction of every two of some mediators on each pair.

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
        seed: of intervals.
    """

    mediators: tuple[Mediator, ...]
    values: Float[np.ndarray, "one two pair"]
    upstream: Bool[np.ndarray, "one two"]
    direction: str
    metric: str
    groups: tuple[str, ...]
    seed: int = 0

    @property
    def matrix(self) -> Float[np.ndarray, "one two"]:
        """Give the mean over pairs."""
        return self.values.mean(axis=2)

    def estimate(self, one: int, two: int) -> Estimate:
        """Give the mean interaction of two mediators, by their place, with its interval over groups."""
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

    def table(self, k: int | None = None) -> pandas.DataFrame:
        """Give one row per two mediators, the strongest interaction first."""
        import pandas

        found = sorted(combinations(range(len(self.mediators)), 2), key=lambda at: -abs(self.matrix[at]))
        rows: list[dict[str, Any]] = []
        for one, two in found[:k]:
            value = self.estimate(one, two)
            rows.append(
                {
                    "one": str(self.mediators[one]),
                    "two": str(self.mediators[two]),
                    "interaction": value.value,
                    "low": value.interval.low,
                    "high": value.interval.high,
                    "reading": self.reading(one, two),
                }
            )
        return pandas.DataFrame(rows, columns=["one", "two", "interaction", "low", "high", "reading"])

    def to_dict(self) -> dict[str, Any]:
        """Give the table and what it is of as JSON types."""
        plain, _ = results.jsonable(
            {
                "mediators": list(map(str, self.mediators)),
                "direction": self.direction,
                "metric": self.metric,
                "others": "respond",
                "n_pairs": len(self.groups),
                "interactions": self.table().to_dict("records"),
                "seed": self.seed,
            }
        )
        return plain

    def findings(self) -> tuple[Finding, ...]:
        """Give the interaction of every two, pair by pair."""
        return of_interactions(self)

    def diff(self, reference: Interactions) -> pandas.DataFrame:
        """Give the change of each interaction from another result.

        Raises:
            ConfigError: another metric or direction.
        """
        mine, theirs = (self.metric, self.direction), (reference.metric, reference.direction)
        if mine != theirs:
            raise ConfigError(f"interactions by {mine} cannot be compared with interactions by {theirs}.")
        return results.difference(self.table(), reference.table(), ["one", "two"])

    def _repr_html_(self) -> str:
        """Give the ten strongest as an escaped table for notebooks."""
        return results.table_html(self.table(10), caption=repr(self))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        return f"Interactions({len(self.mediators)} mediators, {self.direction}, others respond)"


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
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} asked; there are: {', '.join(METRICS)}.")
    asked = [mediators] if isinstance(mediators, str) else list(mediators)
    found = mediators_of(model, pairs, asked, positions=positions)
    if not 2 <= len(found) <= MOST:
        raise ConfigError(
            f"{len(found)} mediators asked; interactions are measured of 2 to {MOST}, "
            "such as effects.top(12)."
        )
    places = range(len(found))
    sets: list[tuple[int, ...]] = [(), *((at,) for at in places), *combinations(places, 2)]
    measured = dict(zip(sets, _measured(model, pairs, found, sets, direction, metric, seed), strict=True))
    values = np.zeros((len(found), len(found), len(pairs)))
    for one, two in combinations(range(len(found)), 2):
        together = measured[one, two] - measured[one,] - measured[two,] + measured[()]
        values[one, two] = values[two, one] = together
    upstream = np.array([[is_upstream(model, one, two) for two in found] for one in found])
    return Interactions(found, values, upstream, direction, metric, tuple(pairs.groups), seed)


_STAGES = (
    ("embed", "resid_pre"),
    ("q", "k", "v"),
    ("z", "head"),
    ("attn_out",),
    ("resid_mid",),
    ("neuron", "mlp_act"),
    ("mlp_out",),
    ("resid_post",),
)
_STAGE = {kind: at for at, kinds in enumerate(_STAGES) for kind in kinds}
_OF_ATTENTION, _OF_MLP = ("q", "k", "v", "z", "head", "attn_out"), ("neuron", "mlp_act", "mlp_out")


def is_upstream(model: Model, one: Mediator, two: Mediator) -> bool:
    """Whether what the first writes can reach the second: earlier in the pass, and at no later token."""
    if one.position is not None and two.position is not None and one.position > two.position:
        return False
    layers = [-1 if mediator.layer is None else mediator.layer for mediator in (one, two)]
    if layers[0] != layers[1]:
        return layers[0] < layers[1]
    side_by_side = model.architecture.parallel and one.site.kind in _OF_ATTENTION and two.site.kind in _OF_MLP
    return _STAGE[one.site.kind] < _STAGE[two.site.kind] and not side_by_side


def _measured(
    model: Model,
    pairs: PairSet,
    mediators: Sequence[Mediator],
    sets: Sequence[tuple[int, ...]],
    direction: str,
    metric: str,
    seed: int,
) -> np.ndarray:
    """Give the metric of each set of replaced mediators, ``[set pair]``."""
    denoising = direction == "denoising"
    base, source = (pairs.corrupt, pairs.clean) if denoising else (pairs.clean, pairs.corrupt)
    carriers = sorted({site for mediator in mediators for site in mediator.carriers})
    read = model.capture(source, [str(site) for site in carriers], "all")
    rows = [Row(e, tuple(mediators[at] for at in one)) for one in sets for e in range(len(pairs))]
    logits = Engine(model, base, seed, since=pairs.first_difference).logits(
        rows, {site: read[str(site)] for site in carriers}
    )
    targets = Targets.of(pairs, logits.device, model.logits(pairs.clean))
    index = torch.arange(len(pairs), device=logits.device).repeat(len(sets))
    found = METRICS[metric].values(logits.float(), targets.rows(index)).double().cpu().numpy()
    return found.reshape(len(sets), len(pairs))
