"""Which layers an analysis reads, where it reads several."""

from __future__ import annotations

from collections.abc import Sequence

from interp.models.model import Model
from interp.sites import parse_layers

__all__ = ["Layers", "depths"]

Layers = str | int | Sequence[int]
"""The layer grammar (``20``, ``8-24:4``, ``50%``, ``all``), or layer numbers."""


def depths(model: Model, layers: Layers | None, most: int) -> tuple[int, ...]:
    """Give the layers asked for, or so many evenly spaced ones, the first and the last among them.

    Args:
        model: whose layers.
        layers: the ones asked for; None leaves the choice to ``most``.
        most: how many at most; all where the model has no more.

    Raises:
        SiteError: a layer the model does not have.
    """
    if layers is not None:
        text = layers if isinstance(layers, str | int) else ",".join(map(str, layers))
        return tuple(parse_layers(text, model.n_layers, name=model.name, kind="resid_post"))
    steps = min(most, model.n_layers) - 1
    last = model.n_layers - 1
    return tuple(sorted({round(last * step / steps) for step in range(steps + 1)})) if steps else (last,)
