"""Findings that form a curve over layers, at few enough layers to be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.results.findings import Finding

__all__ = ["curve", "shown"]

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
