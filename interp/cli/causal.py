"""``interp probe --causal``: does what the probe reads matter to the model?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.cli.session import Session

if TYPE_CHECKING:
    from interp.analyses.concepts import ConceptResult
    from interp.analyses.probing import ProbeResult
    from interp.config import ProbeConfig
    from interp.models import Model

__all__ = ["causal_part", "causal_passes", "check_causal"]


def check_causal(settings: ProbeConfig) -> None:
    """Refuse ``--causal`` before any work where the kind of probe has no directions.

    Raises:
        ConfigError: a probe that is not linear.
    """
    if settings.causal:
        from interp.analyses.causal import check_directions

        check_directions(settings.kind)


def causal_passes(settings: ProbeConfig) -> int:
    """Give how many forward passes of one prompt ``--causal`` adds, at most."""
    if not settings.causal:
        return 0
    from interp.analyses.causal import most_passes

    return most_passes()


def causal_part(
    session: Session, settings: ProbeConfig, model: Model, result: ProbeResult | ConceptResult
) -> dict[str, Any]:
    """Give what ``--causal`` adds to a result's dictionary: one key, or none where it was not asked for."""
    if not settings.causal:
        return {}
    from interp.analyses.causal import causal_use

    found = causal_use(
        model, result, seed=settings.seed, batch_size=settings.batch_size, progress=session.progress
    )
    for text in found.warnings:
        session.warn(f"--causal: {text}")
    return {"causal": found.to_dict()}
