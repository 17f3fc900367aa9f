"""What searches by gradients share: the metric's gradient at some sites, first-order effects of places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.mediation.experiment import Experiment
from interp.mediation.mediators import Place
from interp.mediation.metrics import Targets
from interp.models.forward import gradients
from interp.models.interventions import Intervention
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["PER_PASS", "Gradients", "chunks", "first_order", "gradients_at", "need_gradient"]

PER_PASS = 8192


def need_gradient(experiment: Experiment) -> None:
    """Refuse a metric without a gradient.

    Raises:
        ConfigError: names the metric.
    """
    if not experiment.metric.differentiable:
        raise ConfigError(
            f"metric {experiment.metric.name!r} has no gradient; use logit-diff or log-prob, or exhaustive."
        )


def chunks(experiment: Experiment, copies: int = 1) -> Iterator[list[int]]:
    """The pairs in parts that fit one pass.

    Args:
        experiment: whose pairs.
        copies: how often each pair stands in the pass.
    """
    step = max(1, PER_PASS // (max(experiment.pairs.lengths) * copies))
    for start in range(0, len(experiment.pairs), step):
        yield list(range(start, min(start + step, len(experiment.pairs))))


@dataclass(frozen=True, eq=False)
class Gradients:
    """What one pass with a graph gave.

    Attributes:
        metric: ``[row]``, its value.
        logits: ``[row vocab]``, after the last token.
        nodes: site -> ``[row pos ...]``, its value.
        gradients: site -> likewise, the metric's gradient with respect to it.
    """

    metric: Tensor
    logits: Tensor
    nodes: dict[Site, Tensor]
    gradients: dict[Site, Tensor]


@gradients()
def gradients_at(
    experiment: Experiment,
    direction: str,
    rows: Sequence[int],
    targets: Targets,
    sites: Sequence[Site],
    interventions: Sequence[Intervention] = (),
) -> Gradients:
    """Run prompts once and give the metric, the value of each site and the metric's gradient there.

    Args:
        experiment: the model, the pairs and the metric.
        direction: whose base prompts are run.
        rows: which pairs.
        targets: of all pairs.
        sites: which sites.
        interventions: what is written in the pass.
    """
    part = experiment.pairs[list(rows)]
    run = experiment.model.run(
        part.corrupt if direction == "denoising" else part.clean,
        capture=[str(site) for site in sites],
        positions="all",
        grad=True,
        interventions=list(interventions) or None,
    )
    assert run.logits is not None and run.activations is not None
    index = torch.tensor(list(rows), device=targets.answers.device)
    metric = experiment.metric.values(run.logits.float(), targets.rows(index))
    nodes = {site: run.activations[str(site)] for site in sites}
    found: Any = torch.autograd.grad(metric.sum(), list(nodes.values()), allow_unused=True)
    given = zip(nodes.items(), found, strict=True)
    slopes = {site: torch.zeros_like(node) if one is None else one for (site, node), one in given}
    logits = run.logits.detach()
    return Gradients(metric.detach(), logits, {site: node.detach() for site, node in nodes.items()}, slopes)


def first_order(
    experiment: Experiment,
    rows: Sequence[int],
    nodes: Mapping[Site, Tensor],
    gradients: Mapping[Site, Tensor],
    sources: Mapping[Site, Tensor],
    fixed: Mapping[tuple[Place, bool], Tensor] | None = None,
) -> Float[Tensor, "mediator row"]:
    """``sum (replacement - current) * gradient`` over each mediator's places, positions and features.

    Args:
        experiment: on sites.
        rows: which pairs.
        nodes: carrier -> current values ``[row pos ...]``.
        gradients: carrier -> the metric's gradients, likewise.
        sources: carrier -> source values of all pairs, ``[pair pos ...]``.
        fixed: estimates ``[row pos]`` that stand in for gradient times change, by place and by whether one
            position of it is replaced (True) or all together (False).
    """
    products: dict[Any, Tensor] = {}
    part = experiment.pairs[list(rows)]
    index = torch.tensor(list(rows))
    found: list[Tensor] = []
    for mediator in experiment.mediators:
        terms: list[Tensor] = []
        for place in mediator.places:
            site = place.carrier
            given = (fixed or {}).get((place, mediator.position is not None))
            if given is not None:
                terms.append(_at(given, mediator.position, part).cpu())
                continue
            key = (site, place.subspace)
            if key not in products:
                there = sources[site][index.to(sources[site].device), : nodes[site].shape[1]].to(nodes[site])
                products[key] = _product(experiment, place, nodes[site], gradients[site], there)
            if (key, mediator.position) not in products:
                products[key, mediator.position] = _at(products[key], mediator.position, part).cpu()
            terms.append(_picked(products[key, mediator.position], place.index))
        found.append(terms[0].double() if len(terms) == 1 else torch.stack(terms).double().sum(dim=0))
    return torch.stack(found)


def _product(experiment: Experiment, place: Place, node: Tensor, gradient: Tensor, there: Tensor) -> Tensor:
    """Gradient times change, summed over the features of a head or over directions: ``[row pos ...]``."""
    rule = experiment.replacement.rule
    if place.subspace is not None:
        basis = place.subspace.basis.to(node)
        node, gradient, there = node @ basis.T, gradient @ basis.T, there @ basis.T
    product = (gradient * (rule(node, there) - node)).double()
    return product if product.ndim == 3 and place.subspace is None else product.sum(dim=-1)


def _at(product: Tensor, position: int | None, pairs: PairSet) -> Tensor:
    """Pick the position, or add up those inside each prompt: ``[row ...]``."""
    if position is None and min(pairs.lengths) == product.shape[1]:
        return product.sum(dim=1)
    lengths = torch.tensor(pairs.lengths, device=product.device)
    if position is None:
        inside = torch.arange(product.shape[1], device=product.device) < lengths[:, None]
        return (product * inside.view(*inside.shape, *[1] * (product.ndim - 2))).sum(dim=1)
    at = position if position >= 0 else lengths + position
    return product[torch.arange(len(lengths), device=product.device), at]


def _picked(values: Tensor, index: int | tuple[int, ...] | None) -> Tensor:
    if index is not None:
        values = values[:, list(index) if isinstance(index, tuple) else index]
    return values if values.ndim == 1 else values.flatten(1).sum(dim=1)
