"""Sparse feature circuits: which features of dictionaries carry an answer, and through which later ones.

Nodes are features and the errors of their dictionaries, scored by integrated gradients of the metric; edges
are products of Jacobians between them (Marks et al. 2025, 2403.19647, sections 2 and 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, DataError, counted
from interp.mediation.circuits.evaluation import Evaluation, evaluate
from interp.mediation.effects import Effects
from interp.mediation.experiment import SIGNS, by_site
from interp.mediation.gradients import chunks, gradients_at
from interp.mediation.mediators import Mediator
from interp.mediation.metrics import METRICS, Targets
from interp.mediation.parsing import experiment_of
from interp.mediation.searches.attribution import Attribution
from interp.mediation.searches.integrated import IntegratedGradients, mean_gradients
from interp.mediation.site_experiment import SiteExperiment
from interp.models.forward import gradients
from interp.models.interventions import Intervention
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.results import About, Finding, Number, Result, Table
from interp.sites import Site
from probes.statistics import mean_intervals

__all__ = ["METRIC", "FeatureCircuit", "feature_circuit"]

METRIC = "metric"
"""The name of the last target."""
MOST = 200
"""Nodes that are kept, at most: each takes a backward pass for every dictionary before it."""
DIRECTION = "noising"
WHOLE, FEATURES, ERRORS = "circuit", "its features alone", "its errors alone"
"""What is run on other pairs."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FeatureCircuit(Result):
    """The features and errors that carry an answer, and what goes from each to the next.

    A node's score is ``sum (corrupt - clean) * mean gradient of the metric`` on the way of its site from
    clean to corrupt values, with the sign by which what works towards the clean answer is positive. An edge's
    weight is ``sum (mean gradient at the target) * (d target / d source) * (corrupt - clean of the source)``
    in the clean run, over positions, with every dictionary between the two held as it is; into the metric the
    gradient is that of the clean run. Both are estimates.

    Attributes:
        nodes: scores of all features that are active in the pairs, and of all errors.
        members: those that are kept: at least ``node_share`` of the total effect.
        edges: source and target of each edge that is kept: at least ``edge_share``; the last target is
            ``metric``.
        weights: ``[edge pair]``.
        node_share: of the mean total effect.
        edge_share: likewise.
        groups: of the pairs.
        tried: how many edges between kept nodes were weighed.
        cut: how many nodes above the threshold were left out for being too many.
        held: what is kept, run on other pairs: ``circuit``, and ``its features alone`` and ``its errors
            alone`` where it has both; empty where no other pairs were given, or nothing is kept.
    """

    schema: ClassVar[str] = "interp.feature-circuit/1"

    nodes: Effects
    members: tuple[Mediator, ...]
    edges: tuple[tuple[str, str], ...]
    weights: Float[np.ndarray, "edge pair"]
    node_share: float
    edge_share: float
    groups: tuple[str, ...]
    tried: int
    cut: int = 0
    held: Mapping[str, Evaluation] = field(default_factory=dict)

    @cached_property
    def rows(self) -> tuple[tuple[str, str, float, float, float], ...]:
        """Source, target, mean weight and its interval, the largest first."""
        if not self.edges:
            return ()
        ends, means = mean_intervals(self.weights, groups=self.groups), self.weights.mean(axis=1)
        order = np.argsort(-np.abs(means), kind="stable").tolist()
        return tuple(
            (*self.edges[at], float(means[at]), float(ends.low[at]), float(ends.high[at])) for at in order
        )

    @property
    def covered(self) -> float | None:
        """The share of all nodes' absolute scores that the kept ones have; None where all are zero."""
        sizes = np.abs(self.nodes.mean())
        kept = [self.nodes.place(one) for one in self.members]
        return float(sizes[kept].sum() / sizes.sum()) if sizes.sum() > 0 else None

    def question(self) -> str:
        """What carries the answer, in which data and model."""
        return f"Which features carry the answer, and through which? ({self.about.words})"

    def verdict(self) -> str:
        """What is kept; or that the pairs do not differ."""
        if not self.nodes.differs:
            return (
                f"The total effect ({self.nodes.total.mean():.3g} {self.nodes.unit}) is not told from zero "
                "over these pairs, so nothing can be said to carry it."
            )
        errors = sum(one.site.kind == "error" for one in self.members)
        return (
            f"{counted(len(self.members), 'node')} of {len(self.nodes.mediators):,} (errors: {errors}) and "
            f"{counted(len(self.edges), 'edge')} of {self.tried:,} between them are at or above the "
            f"thresholds, by estimates. {self._kept()}"
        )

    def _kept(self) -> str:
        """What the circuit keeps on other pairs, beside its features alone and random ones."""
        if not self.held:
            return "Whether the circuit does the task is for other pairs (held_out), on which it was not run."
        found, parts = self.held[WHOLE], [name for name in (FEATURES, ERRORS) if name in self.held]
        if found.no_share:
            return f"On other pairs: {found.no_share}."
        kept, ends = found.faithfulness.value, found.faithfulness.interval
        alone = "".join(f", {name} {self.held[name].faithfulness.value:z.0%}" for name in parts)
        return (
            f"On {counted(len(found.groups), 'other pair')} it keeps {kept:z.0%} "
            f"[{ends.low:z.0%}, {ends.high:z.0%}] of the behaviour{alone}, random circuits "
            f"of its size {found.random.value:z.0%}."
        )

    def lead(self) -> tuple[str, ...]:
        """Thresholds, and what errors are."""
        cut = f" {counted(self.cut, 'node')} more reach it and were left out." if self.cut else ""
        return (
            f"Thresholds: {self.node_share:.2%} of the total effect for a node, {self.edge_share:.2%} for an "
            f"edge.{cut} Scores by {self.nodes.search}, metric {self.nodes.metric} ({self.nodes.unit}). An "
            "error is what a dictionary leaves out: where errors carry much, its features do not tell the "
            "story.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The total effect, and how much of all scores is kept."""
        total = self.nodes.numbers()[0]
        covered = Number("covered", self.covered, meaning="of all nodes' absolute scores, by those kept")
        names = {WHOLE: "faithfulness", FEATURES: "faithfulness-features", ERRORS: "faithfulness-errors"}
        shares = [
            Number(names[name], value, low, high, "", f"of the behaviour on other pairs, by {words}")
            for name, words, value, low, high, _ in self._shares()
        ]
        return (total, covered, *shares)

    def _shares(self) -> list[tuple[str, str, float, float, float, float]]:
        """What was run, in words, its faithfulness, the interval, and that of random circuits."""
        found = []
        for name, one in self.held.items():
            if not one.no_share:
                kept, words = one.faithfulness, f"{name} ({counted(len(one.circuit), 'node')})"
                found.append(
                    (name, words, kept.value, kept.interval.low, kept.interval.high, one.random.value)
                )
        return found

    def tables(self) -> tuple[Table, ...]:
        """``edges``: source, target, weight, low, high; ``held-out``: what is kept; those of the nodes."""
        note = f"Weights in {self.nodes.unit}. Intervals: 95%, over groups of pairs, each of one edge alone."
        columns = ("source", "target", "weight", "low", "high")
        edges = Table("edges", "Edges", columns, self.rows, note, main=0, shown=30)
        rows = [row[1:] for row in self._shares()]
        names = ("run", "faithfulness", "low", "high", "random")
        said = (
            "All nodes outside are as in the corrupt prompt. Random: circuits of as many nodes, few of which "
            "hold an error; what features add is the circuit less its errors alone."
        )
        held = (Table("held-out", "On other pairs", names, rows, said),) if rows else ()
        return (edges, *held, *self.nodes.tables())

    def cautions(self) -> tuple[str, ...]:
        """What scores do not show."""
        return (
            "Scores and weights are estimates by gradients; edges are linear at the clean run. An edge says "
            "nothing of what a feature means.",
            *self.nodes.cautions(),
        )

    def findings(self) -> tuple[Finding, ...]:
        """The total effect, the kept nodes' scores, then the edges' weights, pair by pair."""
        about = "what goes from the first to the second, to first order"
        scores = self.nodes.per_pair()
        return (
            Finding("total effect", self.nodes.total, self.groups, unit=self.nodes.unit),
            *(
                Finding(str(one), scores[self.nodes.place(one)], self.groups, unit=self.nodes.unit)
                for one in self.members
            ),
            *(
                Finding(f"{one} -> {two}", row, self.groups, unit=self.nodes.unit, about=about)
                for (one, two), row in zip(self.edges, self.weights, strict=True)
            ),
        )


def feature_circuit(
    model: ModelLike,
    pairs: PairSet,
    *,
    metric: str = "logit-diff",
    node_share: float = 0.02,
    edge_share: float = 0.005,
    steps: int = 10,
    held_out: PairSet | None = None,
    seed: int = 0,
) -> FeatureCircuit:
    """Find the features that carry an answer and the edges between them.

    Args:
        model: with dictionaries (``model.with_dictionaries``), of one layer or several.
        pairs: clean and corrupt prompts.
        metric: a key of ``METRICS`` that has a gradient.
        node_share: a node is kept whose mean score is at least this share of the mean total effect.
        edge_share: likewise an edge between kept nodes.
        steps: of the path of each node; 0 takes the gradient at the clean run alone (attribution).
        held_out: other pairs, on which what is kept is run: whole, without its errors, and its errors alone;
            each beside random circuits of its size.
        seed: of intervals and of random circuits.

    Raises:
        ConfigError: no dictionaries, cross-layer ones, shares below 0, a metric without a gradient or of
            whole answers.
        SiteError: no feature is active in these prompts.
    """
    model = as_model(model)
    if not model.dictionaries:
        raise ConfigError(
            f"a circuit of features of {model.name!r} asked, and it has no dictionaries. Give it some: "
            "model.with_dictionaries(interp.features.load(FOLDER))."
        )
    if across := [one.name for one in model.dictionaries.values() if one.later]:
        raise ConfigError(
            f"a circuit of features over the cross-layer transcoder {across[0]!r} asked; what its features "
            "write past a later dictionary that is held is not told apart, so that edges would not add up to "
            "their nodes. Use dictionaries of single layers, or rank features (mediation.attribution)."
        )
    if node_share < 0 or edge_share < 0 or steps < 0:
        raise ConfigError(
            f"node_share={node_share}, edge_share={edge_share} and steps={steps} asked; give 0 or more."
        )
    if metric in METRICS and METRICS[metric].whole:
        raise ConfigError(f"metric {metric!r} scores whole answers; use logit-diff or log-prob.")
    names = ["feature.*", "error.*"]
    given: dict[str, Any] = {"metric": metric, "directions": DIRECTION, "positions": "all", "seed": seed}
    asked = experiment_of(model, pairs, names, **given)
    assert isinstance(asked, SiteExperiment)
    search: Any = (
        IntegratedGradients(path="activations", steps=steps, verify=0) if steps else Attribution(verify=0)
    )
    nodes = search(asked)
    total, means = abs(float(nodes.total.mean())), np.abs(nodes.mean())
    order = [at for at in np.argsort(-means, kind="stable").tolist() if means[at] >= node_share * total]
    members = tuple(sorted(nodes.mediators[at] for at in order[:MOST]))
    weighed = _weighed(asked, members, steps) if members else {}
    kept = {ends: row for ends, row in weighed.items() if abs(row.mean()) >= edge_share * total}
    found = FeatureCircuit(
        nodes=nodes,
        members=members,
        edges=tuple(kept),
        weights=np.array(list(kept.values())).reshape(len(kept), len(pairs)),
        node_share=node_share,
        edge_share=edge_share,
        groups=tuple(pairs.groups),
        tried=len(weighed),
        cut=max(0, len(order) - MOST),
        about=About(model=model.described, data=pairs.described),
        seed=seed,
        warnings=nodes.warnings,
    )
    return found if held_out is None or not members else _on_others(found, model, held_out)


def _on_others(found: FeatureCircuit, model: Model, pairs: PairSet) -> FeatureCircuit:
    """Run what is kept on other pairs; what cannot be run there is said."""
    alone = [one for one in found.members if one.site.kind != "error"]
    errors = [one for one in found.members if one.site.kind == "error"]
    parts: dict[str, list[Mediator]] = {WHOLE: list(found.members)}
    parts |= {FEATURES: alone, ERRORS: errors} if alone and errors else {}
    given: Any = {"universe": ["feature.*", "error.*", *found.members], "metric": found.nodes.metric}
    given |= {"knockouts": 0, "removals": 0, "controls": (), "seed": found.seed}
    try:
        held = {name: evaluate(model, pairs, part, **given) for name, part in parts.items()}
    except DataError as error:
        return replace(found, warnings=(*found.warnings, f"the circuit was not run on other pairs: {error}"))
    notes = [text for one in held.values() for text in one.warnings]
    return replace(found, held=held, warnings=tuple(dict.fromkeys([*found.warnings, *notes])))


Weights = dict[tuple[str, str], np.ndarray]


@gradients()
def _weighed(asked: SiteExperiment, members: Sequence[Mediator], steps: int) -> Weights:
    """The weight ``[pair]`` of every edge between members of different dictionaries, and to the metric."""
    found: Weights = {}
    layers = list(dict.fromkeys(one.site.layer or 0 for one in members))
    run = _Jacobians(asked, steps)
    for rows in chunks(asked, max(1, steps)):
        part = run.of(rows)
        for at, early in enumerate(layers):
            sources = [one for one in members if one.site.layer == early]
            for late in layers[at + 1 :]:
                targets = [one for one in members if one.site.layer == late]
                _add(found, rows, len(asked.pairs), part.between(early, late, targets, sources))
            _add(found, rows, len(asked.pairs), part.to_metric(early, sources))
    return found


def _add(found: Weights, rows: Sequence[int], n: int, part: Mapping[tuple[str, str], Tensor]) -> None:
    for ends, values in part.items():
        found.setdefault(ends, np.zeros(n))[list(rows)] = SIGNS[DIRECTION] * values.double().cpu().numpy()


@dataclass(eq=False)
class _Jacobians:
    """What all parts of the pairs share.

    Attributes:
        asked: the experiment.
        steps: of the paths to the mean gradients; 0 for the gradient at the clean run.
    """

    asked: SiteExperiment
    steps: int

    @cached_property
    def sites(self) -> list[Site]:
        """Features and errors of every dictionary: parts of no one are left out."""
        layers = sorted(self.asked.model.dictionaries)
        return [Site(kind, layer) for layer in layers for kind in ("feature", "error")]

    @cached_property
    def values(self) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        """Clean values and changes to the corrupt ones, ``[pair pos ...]``."""
        names = [str(site) for site in self.sites]
        both = (self.asked.pairs.clean, self.asked.pairs.corrupt)
        clean, corrupt = (by_site(self.asked.model.capture(one, names, "all"), self.sites) for one in both)
        return clean, {site: corrupt[site] - value for site, value in clean.items()}

    def of(self, rows: Sequence[int]) -> _Part:
        """Some of the pairs, with the mean gradient at every site."""
        width = max(self.asked.pairs.lengths[at] for at in rows)
        clean, change = ({s: v[list(rows), :width] for s, v in one.items()} for one in self.values)
        if not self.steps:
            plain = gradients_at(self.asked, DIRECTION, rows, self.asked.targets, self.sites)
            return _Part(self.asked, rows, clean, change, plain.gradients)
        slopes: dict[Site, Tensor] = {}
        for site in self.sites:
            slopes |= mean_gradients(self.asked, DIRECTION, rows, site, clean[site], change[site], self.steps)
        return _Part(self.asked, rows, clean, change, slopes)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some pairs.

    Attributes:
        asked: the experiment.
        rows: which pairs.
        clean: site -> ``[row pos ...]``.
        change: likewise, corrupt less clean.
        slopes: likewise, the mean gradient of the metric.
    """

    asked: SiteExperiment
    rows: Sequence[int]
    clean: Mapping[Site, Tensor]
    change: Mapping[Site, Tensor]
    slopes: Mapping[Site, Tensor]

    def between(
        self, early: int, late: int, targets: Sequence[Mediator], sources: Sequence[Mediator]
    ) -> dict[tuple[str, str], Tensor]:
        """Edges of two dictionaries, those between them held."""
        held = [layer for layer in self.asked.model.dictionaries if early < layer < late]
        ends = [Site(kind, layer) for layer in (early, late) for kind in ("feature", "error")]
        _, nodes = self._run(ends, held)
        found: dict[tuple[str, str], Tensor] = {}
        for target in targets:
            site, index = target.places[0].carrier, target.places[0].index
            product = self.slopes[site].to(nodes[site]) * nodes[site]
            product = product if index is None else product[..., index]
            found |= self._products(product.sum(), str(target), early, sources, nodes)
        return found

    def to_metric(self, early: int, sources: Sequence[Mediator]) -> dict[tuple[str, str], Tensor]:
        """What reaches the metric with all later dictionaries held."""
        held = [layer for layer in self.asked.model.dictionaries if layer > early]
        metric, nodes = self._run([Site("feature", early), Site("error", early)], held)
        return self._products(metric.sum(), METRIC, early, sources, nodes)

    def _run(self, ends: Sequence[Site], held: Sequence[int]) -> tuple[Tensor, dict[Site, Tensor]]:
        """The metric and some sites' values in one clean run with a graph; others are constants."""
        edits = [
            Intervention(site, self.clean[site])
            for site in (Site(kind, layer) for layer in held for kind in ("feature", "error"))
        ]
        asked = self.asked
        run = asked.model.run(
            asked.pairs[list(self.rows)].clean,
            capture=[str(site) for site in ends],
            positions="all",
            grad=True,
            interventions=edits or None,
        )
        assert run.logits is not None and run.activations is not None
        index = torch.tensor(list(self.rows), device=asked.targets.answers.device)
        targets: Targets = asked.targets.rows(index)
        return asked.metric.values(run.logits.float(), targets), by_site(run.activations, ends)

    def _products(
        self,
        scalar: Tensor,
        target: str,
        early: int,
        sources: Sequence[Mediator],
        nodes: Mapping[Site, Tensor],
    ) -> dict[tuple[str, str], Tensor]:
        """``[row]`` for each source: its change times the slope of a sum over rows, over positions."""
        sites = [Site("feature", early), Site("error", early)]
        slopes: Any = torch.autograd.grad(
            scalar, [nodes[site] for site in sites], retain_graph=True, allow_unused=True
        )
        return {
            (str(source), target): row
            for site, slope in zip(sites, slopes, strict=True)
            for source, row in self._rows(site, slope, sources)
        }

    def _rows(
        self, site: Site, slope: Tensor | None, sources: Sequence[Mediator]
    ) -> Iterator[tuple[Mediator, Tensor]]:
        own = [one for one in sources if one.places[0].carrier == site]
        if not own:
            return
        change = self.change[site]
        product = torch.zeros_like(change) if slope is None else slope.to(change) * change
        inside = torch.arange(change.shape[1], device=change.device) < torch.tensor(
            [self.asked.pairs.lengths[at] for at in self.rows], device=change.device
        ).unsqueeze(1)
        summed = (product * inside[..., None]).sum(dim=1)
        for one in own:
            index = one.places[0].index
            yield one, summed.sum(dim=-1) if index is None else summed[:, index]
