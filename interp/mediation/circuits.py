"""Circuits of nodes: a set of nodes is run, and everything outside it is taken from the other prompt.

``m(C)`` is the metric of the clean prompt with every node outside C replaced by its corrupt value, all at
once; nodes inside respond to what they get. ``m(all)`` is the clean run, ``m(none)`` has every node replaced.
Faithfulness is ``(m(C) - m(none)) / (m(all) - m(none))``, a ratio of means over pairs (Wang et al. 2022;
Mueller et al. 2025, arXiv 2504.13151, section 3).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from interp.errors import ConfigError, DataError
from interp.mediation.engine import Engine
from interp.mediation.mediators import Mediator, mediators_of
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.walk import Row
from interp.models.accept import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site
from probes.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    import pandas

__all__ = ["Curve", "Evaluation", "curve", "evaluate", "nodes_of"]

Nodes = Sequence[str | Site | Mediator]
NODES = ("head.*", "mlp_out.*")
RANDOM = 5


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Hold how well a circuit stands for the whole model on some pairs.

    Attributes:
        circuit: its nodes.
        universe: every node that is inside or outside.
        metric: its name.
        values: ``all``, ``none``, ``circuit``, ``without`` (all but the circuit), ``random i``: ``[pair]``.
        groups: of the pairs.
        seed: of random circuits and intervals.
        warnings: what a reader should know.
    """

    circuit: tuple[Mediator, ...]
    universe: tuple[Mediator, ...]
    metric: str
    values: Mapping[str, Float[np.ndarray, " pair"]]
    groups: tuple[str, ...]
    seed: int
    warnings: tuple[str, ...] = ()

    @property
    def faithfulness(self) -> Estimate:
        """Give the share of the model's behaviour that the circuit alone keeps."""
        return self._share("circuit")

    @property
    def completeness(self) -> Estimate:
        """Give the share that is left without the circuit: near 0 if nothing outside does the task."""
        return self._share("without")

    @property
    def random(self) -> Estimate:
        """Give the mean faithfulness of random circuits of the same size: the control."""
        names = [name for name in self.values if name.startswith("random")]
        if not names:
            raise ConfigError("no random circuits were run; call evaluate with random_circuits above 0.")
        return self._estimate(np.mean([self.values[name] for name in names], axis=0))

    def _share(self, name: str) -> Estimate:
        return self._estimate(self.values[name])

    def _estimate(self, part: np.ndarray) -> Estimate:
        table = np.stack([part, self.values["none"], self.values["all"]], axis=1)
        return bootstrap(table, groups=self.groups, statistic=_ratio, seed=self.seed)

    def table(self) -> pandas.DataFrame:
        """Give faithfulness, completeness and the random control, each with its interval, and raw means."""
        import pandas

        rows: list[dict[str, Any]] = []
        named = {"faithfulness": self.faithfulness, "left without it": self.completeness}
        if any(name.startswith("random") for name in self.values):
            named["random circuits of this size"] = self.random
        for name, found in named.items():
            rows.append(
                {"what": name, "value": found.value, "low": found.interval.low, "high": found.interval.high}
            )
        rows += [
            {
                "what": f"{self.metric}, {name}",
                "value": float(self.values[name].mean()),
                "low": None,
                "high": None,
            }
            for name in ("all", "none", "circuit", "without")
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        """Say in one line what was found."""
        size = f"{len(self.circuit)} of {len(self.universe)} nodes"
        return f"Evaluation({size}, faithfulness {self.faithfulness}, left without it {self.completeness})"


@dataclass(frozen=True, eq=False, repr=False)
class Curve:
    """Hold faithfulness by circuit size, nodes added in the order of a ranking.

    Attributes:
        sizes: numbers of nodes, ascending.
        faithfulness: one per size.
        total: number of nodes in all.
        order: the ranking.
    """

    sizes: tuple[int, ...]
    faithfulness: Float[np.ndarray, " size"]
    total: int
    order: tuple[Mediator, ...]

    @property
    def cpr(self) -> float:
        """Give the area under faithfulness over the fraction of nodes (MIB's CPR; higher is better)."""
        return float(np.trapezoid(self.faithfulness, np.array(self.sizes) / self.total))

    @property
    def cmd(self) -> float:
        """Give the area between faithfulness and 1 (MIB's CMD; 0 is best)."""
        return float(np.trapezoid(np.abs(1 - self.faithfulness), np.array(self.sizes) / self.total))

    def at(self, fraction: float) -> float:
        """Give the faithfulness at a fraction of the nodes, between measured sizes by a straight line."""
        return float(np.interp(fraction * self.total, self.sizes, self.faithfulness))

    def __repr__(self) -> str:
        """Say in one line what was found."""
        return f"Curve({len(self.sizes)} sizes to {self.total} nodes, CPR {self.cpr:.3f}, CMD {self.cmd:.3f})"


def nodes_of(model: ModelLike, pairs: PairSet, nodes: Nodes = NODES) -> tuple[Mediator, ...]:
    """Give every node that a circuit may have: heads and MLP outputs at all positions where left out."""
    return mediators_of(model, pairs, list(nodes), positions="all")


def evaluate(
    model: ModelLike,
    pairs: PairSet,
    circuit: Nodes,
    *,
    universe: Nodes = NODES,
    metric: str = "logit-diff",
    random_circuits: int = RANDOM,
    seed: int = 0,
) -> Evaluation:
    """Run a circuit alone, the model without it, and random circuits of its size, exactly.

    Args:
        model: what is run.
        pairs: better others than those the circuit was found on.
        circuit: its nodes, such as ``effects.top(20)``.
        universe: what is inside or outside; nodes of the circuit must be in it.
        metric: a key of ``METRICS``.
        random_circuits: how many random circuits of the same size.
        seed: of these, and of intervals.

    Raises:
        ConfigError: a node outside the universe, or an unknown metric.
        DataError: the model behaves the same with every node replaced.
    """
    model = as_model(model)
    every = nodes_of(model, pairs, universe)
    inside = mediators_of(model, pairs, list(circuit), positions="all") if circuit else ()
    stray = [str(node) for node in inside if node not in every]
    if stray:
        raise ConfigError(
            f"{stray[0]} is no node of the universe ({', '.join(map(str, universe))}); add it there."
        )
    rng = random.Random(f"circuits:{seed}")
    sets = {"all": set(every), "none": set(), "circuit": set(inside), "without": set(every) - set(inside)}
    sets |= {f"random {at}": set(rng.sample(every, len(inside))) for at in range(random_circuits)}
    values = dict(zip(sets, _run(model, pairs, every, list(sets.values()), metric, seed), strict=True))
    if abs(float((values["all"] - values["none"]).mean())) < 1e-6:
        raise DataError(
            "the model behaves the same with every node replaced; choose pairs whose answers differ."
        )
    return Evaluation(inside, every, metric, values, tuple(pairs.groups), seed, pairs.notes)


def curve(
    model: ModelLike,
    pairs: PairSet,
    order: Sequence[Mediator],
    *,
    universe: Nodes = NODES,
    sizes: Sequence[int] | None = None,
    metric: str = "logit-diff",
    seed: int = 0,
) -> Curve:
    """Give faithfulness by size, nodes added from the front of a ranking.

    Args:
        model: what is run.
        pairs: better others than those the ranking was found on.
        order: the ranking, such as ``effects.top(len(effects.mediators))``; nodes it leaves out come last.
        universe: what is inside or outside.
        sizes: numbers of nodes; 0, 1, 2, 4, ... and all where left out.
        metric: a key of ``METRICS``.
        seed: of the rows that are checked.
    """
    model = as_model(model)
    every = nodes_of(model, pairs, universe)
    ranked = [node for node in dict.fromkeys([*order, *every]) if node in set(every)]
    steps = sorted({0, len(every), *(sizes or _doubling(len(every)))})
    if steps[0] < 0 or steps[-1] > len(every):
        raise ConfigError(f"sizes from {steps[0]} to {steps[-1]} asked, but there are {len(every)} nodes.")
    values = _run(model, pairs, every, [set(ranked[:size]) for size in steps], metric, seed)
    none, whole = values[0].mean(), values[-1].mean()
    if abs(whole - none) < 1e-6:
        raise DataError(
            "the model behaves the same with every node replaced; choose pairs whose answers differ."
        )
    shares = np.array([(value.mean() - none) / (whole - none) for value in values])
    return Curve(tuple(steps), shares, len(every), tuple(ranked))


def _doubling(n: int) -> list[int]:
    return [2**at for at in range(n.bit_length()) if 2**at < n]


def _run(
    model: Model,
    pairs: PairSet,
    every: Sequence[Mediator],
    circuits: Sequence[set[Mediator]],
    metric: str,
    seed: int,
) -> list[np.ndarray]:
    """Give the metric of each circuit on each pair."""
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} asked; there are: {', '.join(METRICS)}.")
    carriers = sorted({site for node in every for site in node.carriers})
    read = model.capture(pairs.corrupt, [str(site) for site in carriers], "all")
    n = len(pairs)
    outside = [tuple(node for node in every if node not in circuit) for circuit in circuits]
    rows = [Row(at, nodes) for nodes in outside for at in range(n)]
    engine = Engine(model, pairs.clean, seed, since=pairs.first_difference)
    logits = engine.logits(rows, {site: read[str(site)] for site in carriers})
    targets = Targets.of(pairs, logits.device, model.logits(pairs.clean))
    index = torch.arange(n, device=logits.device).repeat(len(circuits))
    found = METRICS[metric].values(logits.float(), targets.rows(index)).double().cpu().numpy()
    return list(found.reshape(len(circuits), n))


def _ratio(table: np.ndarray) -> float:
    part, none, whole = table.mean(axis=0)
    return float((part - none) / (whole - none)) if abs(whole - none) > 1e-12 else 0.0
