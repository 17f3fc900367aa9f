"""How well a circuit stands for the model: what is outside it is taken from the other prompt.

``m(C)`` is the metric of the clean prompt with every node (or edge) outside C replaced by its corrupt value,
all at once; what is inside responds to what it gets. ``m(all)`` is the clean run, ``m(none)`` has all replaced.
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


def evaluate(
    model: Model,
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


def _ratio(table: np.ndarray) -> float:
    part, none, whole = table.mean(axis=0)
    return float((part - none) / (whole - none)) if abs(whole - none) > 1e-12 else 0.0
