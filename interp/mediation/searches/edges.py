"""Edge attribution with integrated gradients, as a search."""

from __future__ import annotations

from interp.mediation.edges.asked import at_all_positions, need_edges
from interp.mediation.effects import Effects
from interp.mediation.searches.job import Mediators
from interp.models.loading import ModelLike
from interp.pairs import PairSet

__all__ = ["EDGE_STEPS", "integrated_edges"]

EDGE_STEPS = 5


def integrated_edges(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators = "edge.*",
    *,
    metric: str = "logit-diff",
    replacement: str = "interchange",
    directions: str = "both",
    positions: str | int = "auto",
    steps: int = EDGE_STEPS,
    verify: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimate effects of edges from gradients averaged between the prompts (Hanna et al. 2024, 2403.17806).

    Args:
        model: what is patched.
        pairs: clean and corrupt prompts.
        mediators: edges such as ``edge.*``.
        metric: a key of ``METRICS`` that has a gradient.
        replacement: a key of ``REPLACEMENTS``, of what the writer adds.
        directions: ``both``, ``denoising`` or ``noising``.
        positions: ``"auto"`` or ``"all"``: an edge is replaced at all positions.
        steps: points on the line from one prompt's embeddings to the other's.
        verify: how many of the largest to replace exactly, beside a random sample; 0 for none.
        seed: of resampling, of the sample and of intervals.
        progress: show a progress bar.

    Raises:
        ConfigError: mediators that are no edges, or as for ``edge_attribution``.
        SiteError: an edge that does not exist, or a model that does not offer edges.
    """
    from interp.mediation.edges.attribution import edge_attribution

    at_all_positions(positions)
    return edge_attribution(
        model,
        pairs,
        need_edges(mediators),
        metric=metric,
        replacement=replacement,
        directions=directions,
        slope="inputs",
        steps=steps,
        verify=verify,
        seed=seed,
        progress=progress,
    )
