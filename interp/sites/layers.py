"""The layer grammar: ``20``, ``8,12``, ``8-24:4``, ``-1``, ``50%``, ``all``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from interp.errors import SiteError

__all__ = ["one_layer", "parse_layers"]


def parse_layers(
    text: str | int, n_layers: int, *, name: str = "the model", kind: str = "", allow_all: bool = True
) -> list[int]:
    """Read the layer grammar: ``20``, ``8,12``, ``8-24:4`` (24 included), ``-1``, ``50%``, ``all`` or ``*``.

    ``0%`` is the first layer and ``100%`` the last. The result is sorted and without repeats.

    Args:
        text: one expression; an int is taken as one layer.
        n_layers: number of blocks of the model.
        name: the model's name, for messages.
        kind: the site kind, so that the message can name the nearest site.
        allow_all: False refuses ``all`` and ``*``.

    Raises:
        SiteError: bad grammar, a range that runs backwards, or a layer the model does not have.
    """
    found: set[int] = set()
    for part in str(text).replace(" ", "").split(","):
        if part in ("all", "*") and allow_all:
            found.update(range(n_layers))
        else:
            found.update(_layer_part(part, str(text), n_layers, name, kind))
    return sorted(found)


def _layer_part(part: str, text: str, n_layers: int, name: str, kind: str) -> Iterable[int]:
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", part):
        if float(match[1]) > 100:
            raise SiteError(
                f"layer '{part}' asked, but a depth goes from 0% (first layer) to 100% (last layer)."
            )
        return [int(float(match[1]) / 100 * (n_layers - 1) + 0.5)]
    if match := re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?", part):
        start, stop, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if stop < start or step < 1:
            what = "has step 0" if step < 1 else f"runs backwards; write '{stop}-{start}'"
            raise SiteError(f"layers '{part}' {what}.")
        one_layer(stop, n_layers, name, kind)
        return range(start, stop + 1, step)
    if re.fullmatch(r"-?\d+", part):
        return [one_layer(int(part), n_layers, name, kind)]
    raise SiteError(f"cannot read layers {text!r}. Write one of: 20   8,12   8-24:4   -1   50%   all")


def one_layer(layer: int, n_layers: int, name: str, kind: str) -> int:
    """Resolve one layer, counted from the end where negative, or say which layers there are."""
    if -n_layers <= layer < n_layers:
        return layer % n_layers
    nearest = str(n_layers - 1 if layer > 0 else 0)
    nearest = f"{kind}.{nearest}" if kind else nearest
    raise SiteError(
        f"layer {layer} asked, but {name!r} has layers 0..{n_layers - 1} (-1 is the last). "
        f"Nearest: {nearest}."
    )
