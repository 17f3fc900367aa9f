"""The twin of a model: a copy that was taught false facts, and what it was taught."""

from __future__ import annotations

from functools import cache

from interp.models.model import Model
from interp.tasks.world import World

__all__ = ["bundled_twin"]


def bundled_twin(model: Model) -> tuple[Model, World] | None:
    """The copy of the bundled model that was taught false facts, and its facts; None for other weights."""
    if model.fingerprint != _bundled_fingerprint():
        return None
    from interp.demo.edit import edited_world
    from interp.models.loading import load

    return load("demo", weights="edited"), edited_world()


@cache
def _bundled_fingerprint() -> str:
    from interp.models.loading import load

    return load("demo").fingerprint
