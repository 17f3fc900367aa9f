"""Globs and layer expressions, turned into the sites of one model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

from interp.errors import SiteError
from interp.sites.site import KINDS, OF_DICTIONARIES, Kind, Site, from_lens, nearest

__all__ = ["Anatomy", "Dimensions", "expand", "parse_layers"]


@runtime_checkable
class Dimensions(Protocol):
    """What ``expand`` must know of a model; ``Model`` fulfils it."""

    @property
    def name(self) -> str:
        """The name used in messages."""
        ...

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        ...

    @property
    def n_heads(self) -> int:
        """Number of query heads per block."""
        ...

    @property
    def n_kv_heads(self) -> int:
        """Number of key-value heads per block."""
        ...

    @property
    def d_mlp(self) -> int:
        """Number of neurons per block."""
        ...


class Anatomy(NamedTuple):
    """What ``expand`` must know of a model whose blocks are not all alike.

    Attributes:
        name: the name used in messages.
        n_layers: number of blocks.
        heads: query heads of every block; likewise the next two.
        kv_heads: key-value heads.
        neurons: neurons.
        some: the layers that have a kind, for the kinds that not every layer has.
        experts: routed experts of every block.
        features: features of the dictionary of every block; 0 where there is none.
    """

    name: str
    n_layers: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    neurons: tuple[int, ...]
    some: tuple[tuple[str, tuple[int, ...]], ...] = ()
    experts: tuple[int, ...] = ()
    features: tuple[int, ...] = ()

    def layers(self, kind: str) -> tuple[int, ...]:
        """The layers that have a kind."""
        return dict(self.some).get(kind, tuple(range(self.n_layers)))

    def units(self, row: Kind, layer: int) -> int:
        """How many heads, key-value heads, neurons, experts or features a layer has."""
        counts = {"head": self.heads, "kv head": self.kv_heads, "neuron": self.neurons}
        return (counts | {"expert": self.experts, "feature": self.features})[row.unit][layer]


_RARE = ("mixer_out", "router", "expert", "shared_expert", *OF_DICTIONARIES)
"""Kinds that a model described by its sizes alone is taken not to have."""


def _anatomy(dims: Dimensions) -> Anatomy:
    known: Any = getattr(dims, "anatomy", None)
    if known is not None:
        return known
    sizes = ((size,) * dims.n_layers for size in (dims.n_heads, dims.n_kv_heads, dims.d_mlp))
    return Anatomy(dims.name, dims.n_layers, *sizes, some=tuple((kind, ()) for kind in _RARE))


def expand(patterns: str | Site | Sequence[str | Site], dims: Dimensions) -> list[Site]:
    """Turn names, globs and layer expressions into the sites of one model, sorted and without repeats.

    Accepts ``resid_post.*``, ``head.5.*``, ``resid_post.8-24:4``, ``resid_post.-1``, ``*_out.3``,
    TransformerLens names, and several patterns in one text, separated by commas. Where not all blocks are
    alike, ``*`` and ranges take the layers that have the kind.

    Args:
        patterns: one pattern or several.
        dims: a model, or anything with its ``name`` and sizes (or with an ``anatomy``).

    Raises:
        SiteError: a pattern matches nothing, or names a layer, head or neuron the model does not have.
    """
    given = (patterns,) if isinstance(patterns, str | Site) else tuple(patterns)
    return list(_expanded(given, _anatomy(dims)))


@lru_cache(maxsize=256)
def _expanded(given: tuple[str | Site, ...], dims: Anatomy) -> tuple[Site, ...]:
    found: set[Site] = set()
    for item in given:
        if isinstance(item, Site):
            found.add(_check_range(item, dims))
            continue
        for text in re.split(r",\s*(?=[A-Za-z*?\[])", item.strip()):
            found.update(_expand_one(text.strip(), dims))
    if not found:
        raise SiteError("no sites asked. Give at least one, such as 'resid_post.*'.")
    return tuple(sorted(found))


def _expand_one(text: str, dims: Anatomy) -> list[Site]:
    kind_text, _, rest = from_lens(text).partition(".")
    kinds = [row for row in KINDS.values() if fnmatchcase(row.name, kind_text)]
    if not kinds:
        raise SiteError(f"unknown site {text!r}. {nearest(kind_text, KINDS)}Kinds: {', '.join(KINDS)}.")
    layer_text, index_text = _split_rest(rest)
    sites: list[Site] = []
    for row in kinds:
        if len(kinds) > 1 and not _fits(row, layer_text, index_text, dims):
            continue
        sites += _expand_kind(row, layer_text, index_text, dims)
    if not sites:
        raise SiteError(f"site pattern {text!r} matches nothing in {dims.name!r}.")
    return sites


def _split_rest(rest: str) -> tuple[str, str]:
    """Split ``layer[.index]`` at its last dot, unless that dot belongs to a percentage such as ``12.5%``."""
    match = re.fullmatch(r"(\d+\.\d+%)(?:\.(.*))?", rest)
    if match:
        return match[1], match[2] or ""
    layer_text, _, index_text = rest.partition(".")
    return layer_text, index_text


def _fits(row: Kind, layer_text: str, index_text: str, dims: Anatomy) -> bool:
    """Whether one kind of several can be meant."""
    if row.layered != bool(layer_text):
        return False
    if row.layered and not set(parse_layers(layer_text, dims.n_layers)) & set(dims.layers(row.name)):
        return False
    return not ((row.index == "none" and index_text) or (row.index == "required" and not index_text))


def _expand_kind(row: Kind, layer_text: str, index_text: str, dims: Anatomy) -> list[Site]:
    if not row.layered or not layer_text:
        return [Site(row.name, *(int(part) for part in (layer_text, index_text) if part.isdigit()))]
    layers = _layers(row, layer_text, dims)
    if not index_text and row.index == "required" and layer_text == "*":
        index_text = "*"  # head.* is every head of every layer
    if not index_text:
        return [Site(row.name, layer) for layer in layers]
    if row.index == "none":
        raise SiteError(f"site '{row.name}' takes no index, but '{index_text}' was given.")
    return [
        Site(row.name, layer, index) for layer in layers for index in _indices(row, index_text, layer, dims)
    ]


def _layers(row: Kind, text: str, dims: Anatomy) -> list[int]:
    """Read layers; those that lack the kind are left out of ``*`` and ranges, and refused where named."""
    asked, there = parse_layers(text, dims.n_layers, name=dims.name, kind=row.name), dims.layers(row.name)
    found = [layer for layer in asked if layer in there]
    if not found or (len(found) < len(asked) and not re.search(r"\*|all|\d-\d", text)):
        lacking = next(layer for layer in asked if layer not in there)
        if row.name in OF_DICTIONARIES:
            held = f" These layers have one: {', '.join(map(str, there))}." if there else ""
            raise SiteError(
                f"layer {lacking} of {dims.name!r} has no '{row.name}': it was given no dictionary.{held} "
                "Use model.with_dictionaries(interp.features.load(FOLDER)), or --features FOLDER."
            )
        raise SiteError(
            f"layer {lacking} of {dims.name!r} has no '{row.name}'; "
            + (f"these layers have it: {', '.join(map(str, there))}." if there else "no layer has it.")
        )
    return found


def _indices(row: Kind, text: str, layer: int, dims: Anatomy) -> list[int]:
    size = dims.units(row, layer)
    if text == "*":
        return list(range(size))
    try:
        return parse_layers(text, size, allow_all=False)
    except SiteError:
        alike = {dims.units(row, other) for other in dims.layers(row.name)} == {size}
        raise SiteError(
            f"{row.unit} '{text}' of '{row.name}' asked, but {dims.name!r} has {row.unit}s 0..{size - 1} "
            f"{'per layer' if alike else f'in layer {layer}'}."
        ) from None


def _check_range(site: Site, dims: Anatomy) -> Site:
    if site.layer is not None:
        one_layer(site.layer, dims.n_layers, dims.name, site.kind)
        _layers(KINDS[site.kind], str(site.layer), dims)
        if site.index is not None:
            _indices(KINDS[site.kind], str(site.index), site.layer, dims)
    return site


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
    if kind:  # a name that can be typed as it stands
        nearest = f"{kind}.{nearest}{'.*' if KINDS[kind].index == 'required' else ''}"
    raise SiteError(
        f"layer {layer} asked, but {name!r} has layers 0..{n_layers - 1} (-1 is the last). "
        f"Nearest: {nearest}."
    )
