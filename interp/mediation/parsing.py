"""From what a user asks to an experiment: on sites or on edges, decided here and nowhere else."""

from __future__ import annotations

from typing import Any, cast

from interp.errors import ConfigError, DataError
from interp.mediation.edges.edge import Edge, are_edges
from interp.mediation.edges.experiment import EdgeExperiment
from interp.mediation.edges.graph import Graph
from interp.mediation.effects import DIRECTIONS
from interp.mediation.experiment import Experiment
from interp.mediation.mediators import Mediator, Mediators, Members, mediators_of
from interp.mediation.metrics import METRICS, Metric
from interp.mediation.noised_experiment import NoisedExperiment, TokenNoise
from interp.mediation.optimal_experiment import OptimalExperiment
from interp.mediation.replacements import Replacement, replacement_of
from interp.mediation.site_experiment import SiteExperiment
from interp.mediation.steps import from_the_start, steps_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet

__all__ = ["experiment_of", "members_of"]


def members_of(
    model: ModelLike, pairs: PairSet, asked: Mediators, *, positions: str | int = "auto"
) -> Members:
    """The mediators of sites, or the edges, that names, globs or values mean, in the order of execution.

    Args:
        model: which there are.
        pairs: how long the prompts are.
        asked: ``edge.*`` and the like, or mediators as for ``mediators_of``.
        positions: as for ``mediators_of``; edges are replaced at all positions.

    Raises:
        SiteError: there is no such mediator or edge.
        ConfigError: edges and others together, or edges at single positions.
    """
    if not are_edges(asked):
        return mediators_of(model, pairs, asked, positions=positions)
    if positions not in ("auto", "all"):
        raise ConfigError(
            f"positions {positions!r} asked, but an edge is replaced at all positions; use 'all'."
        )
    return Graph.of(as_model(model)).select(asked)


def experiment_of(
    model: ModelLike,
    pairs: PairSet | Any,
    mediators: Mediators,
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    seed: int = 0,
) -> Experiment:
    """Check what is asked; the parameters are those of :func:`interp.mediation.effects`.

    Raises:
        DataError: no pairs.
        ConfigError: an unknown metric, replacement, direction or position, or one that edges do not have.
        SiteError: a mediator that the model does not have, or edges where it does not offer them.
    """
    model = as_model(model)
    if not isinstance(pairs, PairSet) or not len(pairs):
        found = "an empty PairSet" if isinstance(pairs, PairSet) else f"a {type(pairs).__name__}"
        raise DataError(f"{found} given; give a PairSet of at least one pair, such as interp.tasks.sample.")
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} asked; there are: {', '.join(METRICS)}.")
    rule = replacement_of(replacement)
    if directions not in (*DIRECTIONS, "both"):
        raise ConfigError(f"directions {directions!r} asked; use 'both', {' or '.join(DIRECTIONS)}.")
    ways = tuple(DIRECTIONS) if directions == "both" else (directions,)
    measure, steps = METRICS[metric], None
    members: Any = members_of(model, pairs, mediators, positions=positions)
    edges = any(isinstance(one, Edge) for one in members)
    if rule.noised:
        return _noised(model, pairs, members, measure, rule, ways, seed)
    if measure.whole:
        steps = steps_of(model, pairs, measure)
        members, pairs = members if edges else from_the_start(members, pairs), steps.pairs
    asked = (model, pairs, members, measure, rule, ways, seed)
    if rule.fitted:
        _check_fitted(members, rule)
        return OptimalExperiment(*asked, steps=steps)
    return (
        EdgeExperiment(*asked, Graph.of(model), steps=steps) if edges else SiteExperiment(*asked, steps=steps)
    )


def _check_fitted(members: Members, rule: Replacement) -> None:
    """Refuse what has no constant of its own.

    Raises:
        ConfigError: edges or subspaces.
    """
    for one in members:
        if isinstance(one, Edge) or one.subspace is not None:
            raise ConfigError(
                f"replacement {rule.name!r} asked of {one}, but constants are fitted to whole sites and "
                "units of them. Ask for sites such as head.* or mlp_out.*, or use mean."
            )


def _noised(
    model: Model,
    pairs: PairSet,
    members: Members,
    metric: Metric,
    rule: Replacement,
    directions: tuple[str, ...],
    seed: int,
) -> NoisedExperiment:
    """Causal tracing.

    Raises:
        ConfigError: edges, embeddings or whole answers.
    """
    for one in members:
        if isinstance(one, Edge) or one.site.kind == "embed":
            raise ConfigError(
                f"replacement {rule.name!r} asked of {one}: the noise is at the embeddings, and a site "
                "behind them is restored. Ask for sites such as resid_pre.0 (the same values), mlp_out.* or "
                "head.*."
            )
    if metric.whole:
        raise ConfigError(
            f"replacement {rule.name!r} measures first tokens of answers, and metric {metric.name!r} scores "
            "them whole. Use prob, log-prob or logit-diff."
        )
    noise, found = TokenNoise.of(model, pairs, rule, seed), cast("tuple[Mediator, ...]", members)
    return NoisedExperiment(model, pairs, found, metric, rule, directions, seed, noise=noise)
