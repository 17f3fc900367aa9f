"""The table of searches: (model, pairs, mediators) to effects, exact or estimated from gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from interp.mediation.effects import Effects
from interp.mediation.searches.attribution import attribution
from interp.mediation.searches.direct import direct_effects
from interp.mediation.searches.edges import EDGE_STEPS, integrated_edges
from interp.mediation.searches.exhaustive import exhaustive
from interp.mediation.searches.integrated import STEPS, integrated_gradients
from interp.mediation.searches.job import Job
from interp.mediation.searches.star import attribution_star

__all__ = [
    "SEARCHES",
    "SearchMethod",
    "attribution",
    "attribution_star",
    "direct_effects",
    "exhaustive",
    "integrated_edges",
    "integrated_gradients",
]


@dataclass(frozen=True)
class SearchMethod:
    """Describe a search.

    Attributes:
        name: what users type (``--search``).
        description: one line.
        run: the function; all take the model, the pairs, the mediators, and the keywords metric, replacement,
            directions, positions, seed and progress.
        exact: whether its effects are those of real replacements.
        passes: how often every pair passes through the model, a backward pass counted as one; None where the
            engine plans it.
        over: what it takes: ``sites`` (and parts of them), ``edges``, or both.
    """

    name: str
    description: str
    run: Callable[..., Effects]
    exact: bool
    passes: Callable[[Job], int] | None = None
    over: tuple[str, ...] = ("sites",)


def _attribution(job: Job) -> int:
    return 1 + 2 * len(job.directions) + ("denoising" not in job.directions)


def _star(job: Job) -> int:
    return 2 + len(job.directions) * (3 + 2 * job.model.n_layers)


def _inputs(job: Job) -> int:
    return 2 + len(job.directions) * (3 + 2 * STEPS)


def _activations(job: Job) -> int:
    return 2 + len(job.directions) * (2 + 2 * STEPS * len(job.carriers))


def _direct(job: Job) -> int:
    return 2 + 2 * len(job.directions)


def _edges(job: Job) -> int:
    return 2 + len(job.directions) * 2 * EDGE_STEPS


_ROWS = (
    SearchMethod("exhaustive", "replace each mediator on its own", exhaustive, True, over=("sites", "edges")),
    SearchMethod(
        "attribution",
        "estimate each effect from one gradient, verify the largest",
        attribution,
        False,
        _attribution,
        over=("sites", "edges"),
    ),
    SearchMethod(
        "atp-star",
        "attribution that sees through saturated attention and cancelling paths (AtP*)",
        attribution_star,
        False,
        _star,
    ),
    SearchMethod(
        "ig-inputs",
        "gradients averaged while the embeddings move from one prompt to the other",
        partial(integrated_gradients, path="inputs"),
        False,
        _inputs,
    ),
    SearchMethod(
        "ig-activations",
        "gradients averaged while one site at a time moves to its replacement",
        partial(integrated_gradients, path="activations"),
        False,
        _activations,
    ),
    SearchMethod(
        "eap-ig",
        "as ig-inputs, for edges: slower than attribution, and less misled where it is flat (EAP-IG)",
        integrated_edges,
        False,
        _edges,
        over=("edges",),
    ),
    SearchMethod(
        "direct",
        "replace each mediator only where the final norm reads it: its direct effect",
        direct_effects,
        True,
        _direct,
    ),
)

SEARCHES: dict[str, SearchMethod] = {row.name: row for row in _ROWS}
