"""Causal mediation: which part of a model carries the difference between two prompts.

    pairs = tasks.sample(model, "capitals", 32)
    effects = mediation.exhaustive(model, pairs, "head.*")
    effects.table().head(5)

A study names its mediator type, its search and its evaluation (Mueller et al. 2024, arXiv 2408.01416); here
any mediator goes through any search with any replacement and metric, and returns ``Effects``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.mediation.circuits import (
        CircuitTransfer,
        Curve,
        Evaluation,
        curve,
        evaluate,
        generality,
        selectivity,
    )
    from interp.mediation.contributions import Contributions, direct_logit_attribution
    from interp.mediation.directions import mean_difference, pca
    from interp.mediation.distributed_alignment import Alignment, das, interchange_accuracy
    from interp.mediation.edges import Edge, Graph, Reader, edge_attribution, edge_effects, edge_logits
    from interp.mediation.edges.paths import THROUGH, path_patching
    from interp.mediation.effects import DIRECTIONS, Effects
    from interp.mediation.estimand_table import ESTIMANDS, estimands
    from interp.mediation.forecast import Forecast, plan
    from interp.mediation.lens import Lens, logit_lens
    from interp.mediation.mediators import MEDIATORS, Mediator, mediators_of
    from interp.mediation.metrics import METRICS
    from interp.mediation.pairwise import Interactions, interactions
    from interp.mediation.rankings import stability
    from interp.mediation.replacements import REPLACEMENTS, replacement_of
    from interp.mediation.searches import (
        SEARCHES,
        attribution,
        attribution_star,
        direct_effects,
        exhaustive,
        integrated_gradients,
    )
    from interp.mediation.subspaces import Subspace

_HOME = {
    "Alignment": "distributed_alignment",
    "CircuitTransfer": "circuits",
    "Contributions": "contributions",
    "Curve": "circuits",
    "DIRECTIONS": "effects",
    "ESTIMANDS": "estimand_table",
    "Edge": "edges",
    "Effects": "effects",
    "Evaluation": "circuits",
    "Forecast": "forecast",
    "Graph": "edges",
    "Interactions": "pairwise",
    "Lens": "lens",
    "MEDIATORS": "mediators",
    "METRICS": "metrics",
    "Mediator": "mediators",
    "REPLACEMENTS": "replacements",
    "Reader": "edges",
    "SEARCHES": "searches",
    "Subspace": "subspaces",
    "THROUGH": "edges.paths",
    "attribution": "searches",
    "attribution_star": "searches",
    "curve": "circuits",
    "das": "distributed_alignment",
    "direct_effects": "searches",
    "direct_logit_attribution": "contributions",
    "edge_attribution": "edges",
    "edge_effects": "edges",
    "edge_logits": "edges",
    "estimands": "estimand_table",
    "evaluate": "circuits",
    "exhaustive": "searches",
    "generality": "circuits",
    "integrated_gradients": "searches",
    "interactions": "pairwise",
    "interchange_accuracy": "distributed_alignment",
    "logit_lens": "lens",
    "mean_difference": "directions",
    "mediators_of": "mediators",
    "path_patching": "edges.paths",
    "pca": "directions",
    "plan": "forecast",
    "replacement_of": "replacements",
    "selectivity": "circuits",
    "stability": "rankings",
}

__all__ = [
    "DIRECTIONS",
    "ESTIMANDS",
    "MEDIATORS",
    "METRICS",
    "REPLACEMENTS",
    "SEARCHES",
    "THROUGH",
    "Alignment",
    "CircuitTransfer",
    "Contributions",
    "Curve",
    "Edge",
    "Effects",
    "Evaluation",
    "Forecast",
    "Graph",
    "Interactions",
    "Lens",
    "Mediator",
    "Reader",
    "Subspace",
    "attribution",
    "attribution_star",
    "curve",
    "das",
    "direct_effects",
    "direct_logit_attribution",
    "edge_attribution",
    "edge_effects",
    "edge_logits",
    "estimands",
    "evaluate",
    "exhaustive",
    "generality",
    "integrated_gradients",
    "interactions",
    "interchange_accuracy",
    "logit_lens",
    "mean_difference",
    "mediators_of",
    "path_patching",
    "pca",
    "plan",
    "replacement_of",
    "selectivity",
    "stability",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOME:
        known = ", ".join(__all__)
        raise AttributeError(f"module 'interp.mediation' has no attribute {name!r}; its names: {known}")
    value = getattr(importlib.import_module(f"interp.mediation.{_HOME[name]}"), name)
    globals()[name] = value
    return value
