"""The types of mediators that a frontier sets side by side: a literal table, one row for each type.

A *unit* is what is taken or left: one mediator, or several together (both sublayers of a block). What a unit
moves is counted in real numbers a token, so that a head and a neuron can stand on one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import SiteError
from interp.mediation.edges.edge import Edge
from interp.mediation.mediators import Mediator
from interp.mediation.parsing import members_of
from interp.mediation.subspaces import Subspace
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["FRONTIER_TYPES", "Asked", "FrontierType", "Unit", "units_of"]

DIRECTIONS = 8
"""Directions of each site and place that the type of subspaces offers."""
Unit = tuple[Any, ...]
"""Mediators, or edges, that are replaced together."""


@dataclass(frozen=True)
class Asked:
    """What units are made of.

    Attributes:
        model: whose parts they are.
        pairs: that directions are found on.
        seed: of random directions.
    """

    model: Model
    pairs: PairSet
    seed: int = 0


@dataclass(frozen=True)
class FrontierType:
    """One type of mediator.

    Attributes:
        name: what users type.
        one: the word for one unit.
        what: what a unit is.
        units: all that there are.
        scalars: real numbers a token that one mediator (or edge) moves.
        merged: the same mediators as fewer, so that they are replaced faster.
        lucky: units that a search did not find, which chance draws from; the units themselves where None.
        home: where a unit is, if units are taken place by place: directions of one stream are its parts,
            those of two streams are mostly the same thing twice. None: each on its own.
        fitted: real numbers that had to be found for one unit: 0 for a part that the model brings.
    """

    name: str
    one: str
    what: str
    units: Callable[[Asked], list[Unit]]
    scalars: Callable[[Model, Any], int]
    merged: Callable[[Sequence[Any]], list[Any]] = list
    lucky: Callable[[Asked], list[Unit]] | None = None
    home: Callable[[Unit], Any] | None = None
    fitted: Callable[[Model], int] = field(default=lambda model: 0)


def _each(*names: str) -> Callable[[Asked], list[Unit]]:
    """Every mediator of some names as a unit."""

    def units(asked: Asked) -> list[Unit]:
        return [(one,) for one in members_of(asked.model, asked.pairs, list(names), positions="all")]

    return units


def _layers(asked: Asked) -> list[Unit]:
    """What both sublayers of a block add."""
    return [
        (Mediator(Site("attn_out", layer)), Mediator(Site("mlp_out", layer)))
        for layer in range(asked.model.n_layers)
    ]


def _stream(model: Model, _: Any) -> int:
    return model.d_model


def _head(model: Model, _: Any) -> int:
    return model.d_head


def _group(model: Model, _: Any) -> int:
    """Keys and values."""
    return 2 * model.d_head


def _number(model: Model, _: Any) -> int:
    return 1


def _edge(model: Model, edge: Edge) -> int:
    """A head writes what its own width spans, everything else as wide as the stream."""
    return model.d_head if edge.writer.kind == "head" else model.d_model


def _by_layer(members: Sequence[Mediator]) -> list[Mediator]:
    """Single neurons, or features, as one mediator for each layer."""
    layers: dict[Site, list[int]] = {}
    for one in members:
        kind = "mlp_act" if one.site.kind == "neuron" else one.site.kind
        layers.setdefault(Site(kind, one.site.layer), []).append(one.site.index or 0)
    return [Mediator(site, units=tuple(sorted(units))) for site, units in sorted(layers.items())]


def _directions(asked: Asked) -> list[Unit]:
    """Principal directions of what differs between the two prompts, of each block's stream.

    First those at the last token, then those of all tokens from the first that differs, which are made
    orthogonal to the first: what is used at one token is drowned by what differs at another.
    """
    found: list[Unit] = []
    for site, last, every in _differences(asked):
        first = _principal(last, torch.zeros(0, last.shape[1], dtype=last.dtype))
        basis = torch.cat([first, _principal(every, first)])
        found += _as_units(site, basis, "difference")
    return found


def _differences(
    asked: Asked,
) -> list[tuple[Site, Float[Tensor, "pair width"], Float[Tensor, "token width"]]]:
    """Per block, clean less corrupt at the last token, and at every token from the first that differs."""
    model, pairs = asked.model, asked.pairs
    sites = [Site("resid_post", layer) for layer in range(model.n_layers)]
    names = [str(site) for site in sites]
    clean, corrupt = (
        model.capture(tokens, names, "all", device="cpu", dtype=torch.float32)
        for tokens in (pairs.clean, pairs.corrupt)
    )
    inside = [
        (at, place)
        for at, (first, length) in enumerate(zip(pairs.first_difference, pairs.lengths, strict=True))
        for place in range(min(first, length - 1), length)
    ]
    rows, columns = (torch.tensor(one) for one in zip(*inside, strict=True))
    ends = torch.tensor(pairs.lengths) - 1
    found = []
    for site in sites:
        change = (clean[str(site)] - corrupt[str(site)]).double()
        found.append((site, change[torch.arange(len(ends)), ends], change[rows, columns]))
    return found


def _principal(
    values: Float[Tensor, "row width"], known: Float[Tensor, "known width"]
) -> Float[Tensor, "dim width"]:
    """The directions of largest sum of squares, orthogonal to some."""
    rest = values - values @ known.T @ known
    _, sizes, directions = torch.linalg.svd(rest, full_matrices=False)
    clear = sizes > 1e-4 * max(float(sizes[0]), 1e-6)
    return directions[clear][:DIRECTIONS]


def _random_directions(asked: Asked) -> list[Unit]:
    """As many random directions of each block's stream, orthogonal to each other."""
    generator, width = torch.Generator().manual_seed(asked.seed), asked.model.d_model
    found: list[Unit] = []
    for layer in range(asked.model.n_layers):
        draw = torch.randn(width, min(2 * DIRECTIONS, width), generator=generator, dtype=torch.float64)
        found += _as_units(Site("resid_post", layer), torch.linalg.qr(draw)[0].T, "random")
    return found


def _as_units(site: Site, basis: Float[Tensor, "dim width"], name: str) -> list[Unit]:
    return [
        (Mediator(site, subspace=Subspace(f"{name}-{at}", row[None].float().contiguous())),)
        for at, row in enumerate(basis)
    ]


_ROWS = (
    FrontierType("layers", "layer", "all that a block adds, attention and MLP", _layers, _stream),
    FrontierType(
        "sublayers", "sublayer", "what attention or an MLP adds", _each("attn_out.*", "mlp_out.*"), _stream
    ),
    FrontierType("heads", "head", "one attention head's output", _each("head.*"), _head),
    FrontierType("groups", "group", "keys and values that heads share", _each("kv.*"), _group),
    FrontierType("neurons", "neuron", "one unit of an MLP", _each("neuron.*"), _number, _by_layer),
    FrontierType(
        "subspaces",
        "direction",
        "a direction of the stream, principal in what differs",
        _directions,
        _number,
        lucky=_random_directions,
        home=lambda unit: unit[0].site,
        fitted=lambda model: model.d_model - 1,
    ),
    FrontierType("edges", "edge", "what one part adds, as one other reads it", _each("edge.*"), _edge),
    FrontierType(
        "features", "feature", "one feature of the dictionary", _each("feature.*"), _number, _by_layer
    ),
)
FRONTIER_TYPES: dict[str, FrontierType] = {row.name: row for row in _ROWS}


def units_of(row: FrontierType, asked: Asked) -> tuple[list[Unit], str]:
    """All units of a type; or none, and why.

    Args:
        row: of ``FRONTIER_TYPES``.
        asked: what they are made of.
    """
    try:
        return row.units(asked), ""
    except SiteError as error:
        return [], str(error)
