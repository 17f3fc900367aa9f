"""Path attribution with baselines drawn by a bandit, beside uniform draws and every fixed baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from interp.errors import ConfigError, DataError
from interp.mediation.bandits.bandit import thompson
from interp.mediation.bandits.result import BANDIT, UNIFORM, Baselines
from interp.mediation.circuits.curve import away
from interp.mediation.circuits.runs import NODES, Circuit, refuse_no_effect
from interp.mediation.experiment import Experiment
from interp.mediation.parsing import experiment_of
from interp.mediation.replacements import replacement_of
from interp.mediation.searches import IntegratedGradients, Search, effects
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About

__all__ = ["ARMS", "baselines"]

ARMS = ("interchange", "zero", "mean", "resample", "noise:1")
PATH = IntegratedGradients(path="activations", steps=4, verify=0)
"""``(a - b) * integral of dY/da`` on the way from the baseline b to the value a, one site at a time."""
TWINS = 5
"""How often as many uniform draws are made; their areas are averaged."""
WORST = 2.0
"""A reward is at least minus this: one circuit that overshoots must not blind the bandit to all others."""


@dataclass(frozen=True, eq=False)
class _Bench:
    """What every ranking is held to: circuits on some pairs, each run once.

    Attributes:
        asked: the universe on the pairs, replaced in the clean prompts.
        sizes: of the circuits.
        known: what was run already.
    """

    asked: Experiment
    sizes: tuple[int, ...]
    known: dict[frozenset[int], np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: Model, pairs: PairSet, universe: Circuit, metric: str, ablation: str, seed: int
    ) -> _Bench:
        given: Any = {"metric": metric, "replacement": ablation, "directions": "noising", "seed": seed}
        asked = experiment_of(model, pairs, universe, positions="all", **given)
        n = len(asked.mediators)
        bench = cls(asked, tuple(sorted({0, n, *(2**at for at in range(n.bit_length()) if 2**at < n)})))
        runs = bench.runs(np.arange(n))
        refuse_no_effect(runs[-1].mean(), runs[0].mean(), "node")
        return bench

    @property
    def axis(self) -> Float[np.ndarray, " size"]:
        return np.array(self.sizes) / self.sizes[-1]

    def runs(self, order: Int[np.ndarray, " mediator"]) -> Float[np.ndarray, "size pair"]:
        """The metric of each pair with the first nodes of a ranking kept, at each size."""
        circuits = [frozenset(order[:size].tolist()) for size in self.sizes]
        new = [one for one in dict.fromkeys(circuits) if one not in self.known]
        if new:
            every = self.asked.mediators
            outside = [[every[at] for at in range(len(every)) if at not in one] for one in new]
            found = self.asked.per_pair(self.asked.replaced(outside, "noising").values)
            self.known.update(zip(new, found, strict=True))
        return np.stack([self.known[one] for one in circuits])

    def cmd(self, order: Int[np.ndarray, " mediator"], rows: Int[np.ndarray, " row"]) -> float:
        """The area between faithfulness and 1 on some pairs; ``WORST`` where there is no total effect."""
        means = self.runs(order)[:, rows].mean(axis=1)
        total = means[-1] - means[0]
        return away(self.axis)((means - means[0]) / total) if abs(total) > 1e-6 else WORST


def baselines(
    model: ModelLike,
    pairs: PairSet,
    held_out: PairSet,
    *,
    arms: Sequence[str] = ARMS,
    universe: Circuit = NODES,
    search: Search = PATH,
    rounds: int = 40,
    batch: int = 8,
    metric: str = "logit-diff",
    ablation: str = "interchange",
    seed: int = 0,
) -> Baselines:
    """Choose the baseline of path attribution by what its circuits are worth, as a bandit does.

    In each round a baseline is chosen by Thompson sampling and some training pairs are drawn; nodes are
    ranked by the size of their mean attribution on these, and the reward is minus CMD, the area between the
    faithfulness of the ranking's circuits and 1 on the same pairs. The bandit's own ranking is by the mean of
    the attributions of all its draws (each scaled to a sum of 1). On pairs that took no part it stands beside
    the ranking of as many uniform draws (five times), and that of each baseline alone on all training pairs.

    After BEE (2412.17512), which draws the baselines of an attribution from a mixture; here they are
    replacements, and the rule is ours (:func:`interp.mediation.bandits.bandit.thompson`).

    Args:
        model: what is patched.
        pairs: on which baselines are chosen.
        held_out: on which everything is reported; of other groups.
        arms: replacements to choose from; those that do not suit the pairs are left out, with the reason.
        universe: the nodes (or edges) that are ranked and of which circuits are made.
        search: from a baseline to attributions.
        rounds: of the bandit.
        batch: training pairs in a round.
        metric: a key of ``METRICS``; one with a gradient for searches by gradients.
        ablation: the replacement of what is outside a circuit: what "right" means here.
        seed: of everything drawn, and of intervals.

    Raises:
        ConfigError: fewer than two baselines suit, or too few rounds.
        DataError: groups on both sides, or a model that behaves the same with everything replaced.
    """
    model = as_model(model)
    if shared := set(pairs.groups) & set(held_out.groups):
        raise DataError(
            f"group {sorted(shared)[0]!r} is among the training pairs and among those held out; give pairs "
            "of other groups, on which nothing was chosen."
        )
    tables, left_out = _attributions(model, pairs, arms, universe, search, metric, seed)
    train = _Bench.of(model, pairs, universe, metric, ablation, seed)
    unseen = _Bench.of(model, held_out, universe, metric, ablation, seed)
    names, size = tuple(tables), min(batch, len(pairs))
    kept: list[np.ndarray] = []

    def reward(arm: int, rng: np.random.Generator) -> float:
        rows = rng.choice(len(pairs), size=size, replace=False)
        own = tables[names[arm]][:, rows].mean(axis=1)
        kept.append(_scaled(own))
        return -min(WORST, train.cmd(_ranked(own), rows))

    draws = thompson(reward, len(names), rounds, seed=seed)
    orders = {BANDIT: _ranked(np.mean(kept, axis=0))}
    for twin in range(TWINS):
        orders[f"{UNIFORM} {twin + 1}"] = _ranked(_uniform(tables, rounds, size, seed + 1 + twin))
    orders |= {name: _ranked(table.mean(axis=1)) for name, table in tables.items()}
    every = np.arange(len(pairs))
    return Baselines(
        arms=names,
        picks=tuple(draws.arms.tolist()),
        rewards=draws.rewards,
        trained={name: train.cmd(orders[name], every) for name in names},
        runs={name: unseen.runs(order) for name, order in orders.items()},
        sizes=unseen.sizes,
        first={
            name: tuple(str(unseen.asked.mediators[at]) for at in one[:5]) for name, one in orders.items()
        },
        groups=tuple(held_out.groups),
        search=search.name,
        metric=metric,
        ablation=ablation,
        left_out=left_out,
        about=About(model.described, held_out.described),
        seed=seed,
        warnings=model.warnings,
    )


def _attributions(
    model: Model,
    pairs: PairSet,
    arms: Sequence[str],
    universe: Circuit,
    search: Search,
    metric: str,
    seed: int,
) -> tuple[dict[str, Float[np.ndarray, "mediator pair"]], dict[str, str]]:
    """The attribution of each node on each pair under each baseline; and why some baselines do not suit."""
    found: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    given: Any = {"search": search, "metric": metric, "directions": "noising", "seed": seed}
    for arm in dict.fromkeys(replacement_of(arm).name for arm in arms):
        try:
            one = effects(model, pairs, universe, replacement=arm, positions="all", **given)
        except ConfigError as error:  # a mean of one group, a resample of one length
            left_out[arm] = str(error)
            continue
        found[arm] = one.per_pair("noising")
    if len(found) < 2:
        why = "; ".join(left_out.values()) or "no other was given"
        raise ConfigError(
            f"{len(found)} of {len(arms)} baselines suit these pairs, and two are needed: {why}"
        )
    return found, left_out


def _scaled(values: Float[np.ndarray, " mediator"]) -> Float[np.ndarray, " mediator"]:
    """With a sum of sizes of 1, so that a baseline far away does not drown the others."""
    total = np.abs(values).sum()
    return values / total if total > 0 else values


def _ranked(values: Float[np.ndarray, " mediator"]) -> Int[np.ndarray, " mediator"]:
    """Largest size first; equal ones in the order of execution."""
    return np.argsort(-np.abs(values), kind="stable")


def _uniform(
    tables: dict[str, np.ndarray], rounds: int, size: int, seed: int
) -> Float[np.ndarray, " mediator"]:
    """The mean attribution of as many draws in which every baseline is as likely."""
    rng, names = np.random.default_rng(seed), list(tables)
    found = []
    for arm in rng.integers(0, len(names), rounds):
        table = tables[names[int(arm)]]
        rows = rng.choice(table.shape[1], size=size, replace=False)
        found.append(_scaled(table[:, rows].mean(axis=1)))
    return np.mean(found, axis=0)
