"""Which layers an analysis reads, and findings that form a curve over few enough layers to be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.models.model import Model
from interp.results.findings import Finding
from interp.sites import parse_layers

__all__ = ["Layers", "curve", "depths"]

MOST = 7


def shown(layers: Sequence[int], most: int = MOST) -> tuple[int, ...]:
    """Choose layers evenly, the first and the last included; all where there are few.

    Args:
        layers: to choose from, in order.
        most: how many at most.
    """
    count = min(most, len(layers))
    at = np.unique(np.linspace(0, len(layers) - 1, count).round().astype(int))
    return tuple(layers[index] for index in at)


def curve(
    name: str,
    values: Float[np.ndarray, "layer item"],
    control: float | Float[np.ndarray, "layer item"],
    *,
    groups: Sequence[str],
    unit: str,
    about: str,
    direction: int = 0,
) -> tuple[Finding, ...]:
    """Make one finding of each layer that is shown, named ``"NAME at layer L"``.

    Args:
        name: of the curve.
        values: of every layer and item.
        control: what the values would be with nothing there: one number, or one for every value.
        groups: of the items.
        unit: of the values.
        about: one sentence for the reader.
        direction: of the findings.
    """
    floors = np.broadcast_to(np.asarray(control, dtype=np.float64), np.shape(values))
    return tuple(
        Finding(
            f"{name} at layer {layer}",
            np.asarray(values[layer], dtype=np.float64),
            tuple(groups),
            floors[layer],
            unit,
            curve=name,
            layer=layer,
            about=about,
            direction=direction,
        )
        for layer in shown(range(len(values)))
    )


Layers = str | int | Sequence[int]
"""The layer grammar (``20``, ``8-24:4``, ``50%``, ``all``), or layer numbers."""


def depths(model: Model, layers: Layers | None, most: int) -> tuple[int, ...]:
    """The layers asked for, or so many evenly spaced ones, the first and the last among them.

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
