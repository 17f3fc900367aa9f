"""Mediators: a site, a part of it, a position. ``head.*`` at all positions, ``resid_post.*`` at each.

A mediator is carried by sites that can be written as a whole: a head by ``z.l`` (so that post-norms and
grouped keys need no special case), a neuron by ``mlp_act.l``, a key-value group by ``k.l`` and ``v.l``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from interp.conversations import parse
from interp.errors import ConfigError, DataError, SiteError, counted
from interp.mediation.edges.edge import Edge, are_edges
from interp.mediation.subspaces import Subspace
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.pairs import PairSet
from interp.sites import Site

__all__ = ["MEDIATORS", "Mediator", "MediatorType", "Mediators", "Members", "Place", "mediators_of"]


@dataclass(frozen=True)
class Place:
    """Name what is written: a whole site, some of it, or the coordinates of it in a subspace.

    Attributes:
        carrier: the site that is written.
        index: a head, key-value group or neuron of it, several of them, or None for all of it.
        subspace: the directions whose coordinates are replaced; None replaces everything.
    """

    carrier: Site
    index: int | tuple[int, ...] | None = None
    subspace: Subspace | None = None


@dataclass(frozen=True)
class Mediator:
    """Name what is replaced.

    Attributes:
        site: of the whole, the head or the neuron; of the keys, for a key-value group.
        position: index of the token, None for all tokens.
        units: several neurons of ``mlp_act.l``, or features, that are replaced together.
        subspace: directions of the site whose coordinates are replaced.
        with_values: True for a key-value group: its keys and its values are replaced together.
        window: of how many layers, from that of ``site`` on, the site is replaced together.
    """

    site: Site
    position: int | None = None
    units: tuple[int, ...] = ()
    subspace: Subspace | None = None
    with_values: bool = False
    window: int = 1

    @property
    def layer(self) -> int | None:
        """The block it is in, the first one of a window; None for the embedding."""
        return self.site.layer

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """What is written: one place, two for a key-value group, one for each layer of a window."""
        index = None if self.site.kind in _ALONE else self.units or self.site.index
        first = Place(_carrier(self.site), index, self.subspace)
        if self.window > 1:
            return tuple(Place(site) for site in _layers(self.site, self.window))
        if not self.with_values:
            return (first,)
        return (first, Place(Site("v", self.site.layer), index))

    @property
    def carriers(self) -> tuple[Site, ...]:
        """The sites that are written."""
        return tuple(place.carrier for place in self.places)

    def __str__(self) -> str:
        """Write ``head.5.3``, ``resid_post.5@7``, ``kv.5.1``, ``neuron.5.1+8``, ``subspace:NAME@SITE``...

        A window of 10 layers from 5 on is ``window:10@mlp_out.5``.
        """
        name = str(self.site)
        if self.units:
            name = f"{_UNITS[self.site.kind]}.{self.site.layer}.{'+'.join(map(str, self.units))}"
        if self.with_values:
            name = f"kv{name.removeprefix('k')}"
        if self.subspace is not None:
            name = f"subspace:{self.subspace.name}@{name}"
        if self.window > 1:
            name = f"window:{self.window}@{name}"
        return name if self.position is None else f"{name}@{self.position}"

    @classmethod
    def parse(cls, text: str, subspaces: Mapping[str, Subspace] | None = None) -> Mediator:
        """Read what ``str`` wrote; the subspaces it names are given by name.

        Raises:
            SiteError: no such site.
            KeyError: a subspace that was not given.
        """
        subspace, window = None, 1
        if text.startswith("window:"):
            width, _, text = text.removeprefix("window:").partition("@")
            window = int(width)
        if text.startswith("subspace:"):
            name, _, text = text.removeprefix("subspace:").partition("@")
            subspace = (subspaces or {})[name]
        text, _, position = text.partition("@")
        kind, *rest = text.split(".")
        units = tuple(map(int, rest[1].split("+"))) if len(rest) > 1 and "+" in rest[1] else ()
        site = (
            Site(_CARRIED[kind], int(rest[0]))
            if units
            else Site.parse(f"k.{'.'.join(rest)}" if kind == "kv" else text)
        )
        return cls(site, int(position) if position else None, units, subspace, kind == "kv", window)

    def __lt__(self, other: Mediator) -> bool:
        """Order mediators as a pass meets them."""
        return self._key() < other._key()

    def _key(self) -> tuple[Site, int, str]:
        return self.site, -1 if self.position is None else self.position, str(self)


Mediators = str | Site | Mediator | Edge | Sequence[str | Site | Mediator | Edge]
"""What users ask for: names and globs, sites, mediators or edges."""
Members = tuple[Mediator, ...] | tuple[Edge, ...]
"""What that means in one model, in the order of execution."""
_WHOLE = {"head": "z", "z": "z", "neuron": "mlp_act"}
_UNITS = {"mlp_act": "neuron", "feature": "feature"}
"""Sites of which several units are replaced together -> the word for one."""
_CARRIED = {word: kind for kind, word in _UNITS.items()}


_ALONE = ("expert",)
"""Kinds whose units are sites that are written each on its own."""


def _carrier(site: Site) -> Site:
    if site.kind in _ALONE:
        return site
    return Site(_WHOLE.get(site.kind, site.kind), site.layer)


def _layers(site: Site, width: int) -> list[Site]:
    """The same site of so many layers, from its own on."""
    return [Site(site.kind, (site.layer or 0) + further) for further in range(width)]


def _by_site(model: Model, text: str) -> list[Mediator]:
    return [Mediator(site) for site in model.expand(text)]


def _together(model: Model, text: str) -> list[Mediator]:
    """Read ``neuron.20.*`` (each on its own) or ``neuron.20.3+17+40`` (together); features likewise."""
    match = re.fullmatch(r"(neuron|feature)\.([^.]+)\.(\d+(?:\+\d+)+)", text)
    if match is None:
        return _by_site(model, text)
    units = tuple(sorted({int(unit) for unit in match[3].split("+")}))
    sites = model.expand([f"{match[1]}.{match[2]}.{unit}" for unit in units])
    layers = dict.fromkeys(site.layer for site in sites)
    return [Mediator(Site(_CARRIED[match[1]], layer), units=units) for layer in layers]


def _features(model: Model, text: str) -> list[Mediator]:
    """Read ``feature.*`` and ``feature.20.*`` (each on its own), ``feature.20`` (all at once), or some."""
    return _together(model, f"{text}.*" if text == "feature.*" else text)


def _groups(model: Model, text: str) -> list[Mediator]:
    """Read ``kv.*``, ``kv.5.*`` or ``kv.5.1``: keys and values of a group together."""
    rest = text.removeprefix("kv")
    found = model.expand(f"k{rest}.*" if rest.count(".") < 2 else f"k{rest}")
    model.architecture.check(["k", "v"])
    return [Mediator(site, with_values=True) for site in found]


def _subspaces(model: Model, text: str) -> list[Mediator]:
    """Read ``subspace:FILE@SITE``."""
    file, _, site = text.removeprefix("subspace:").rpartition("@")
    if not file or not site or not text.startswith("subspace:"):
        raise SiteError(
            f"cannot read mediator {text!r}: write subspace:FILE@SITE, for example "
            "subspace:gender.safetensors@resid_post.20."
        )
    subspace = Subspace.load(file)
    return [Mediator(found, subspace=subspace) for found in model.expand(site)]


def _windows(model: Model, text: str) -> list[Mediator]:
    """Read ``window:W@SITES``: from each layer on that is named, W layers together, as far as there are W."""
    match = re.fullmatch(r"window:(\d+)@([^@]+)", text)
    if match is None or not 1 <= (width := int(match[1])) <= model.n_layers:
        raise SiteError(
            f"cannot read mediator {text!r}: write window:W@SITES with W from 1 to {model.n_layers} layers, "
            "for example window:5@mlp_out.*."
        )
    found = model.expand(match[2])
    for site in found:
        if site.kind not in WINDOWED:
            raise SiteError(
                f"a window of '{site}' was asked for; layers are replaced together of: {', '.join(WINDOWED)}."
            )
    every = {site for kind in {site.kind for site in found} for site in model.expand(f"{kind}.*")}
    whole = [site for site in found if every.issuperset(_layers(site, width))]
    if not whole:
        raise SiteError(
            f"{text!r} names no {counted(width, 'layer')} in a row that all have the site; begin earlier, or "
            "ask for a narrower window."
        )
    return [Mediator(site, window=width) for site in whole]


@dataclass(frozen=True)
class MediatorType:
    """A kind of mediator (Mueller et al. 2024, arXiv 2408.01416, sections 3 and 4).

    Attributes:
        kind: what its names begin with.
        grammar: an example of what users type.
        what: what it is.
        use: when to use it, and what it cannot show.
        expand: from a name or glob to mediators at all positions.
    """

    kind: str
    grammar: str
    what: str
    use: str
    expand: Callable[[Model, str], list[Mediator]] = _by_site


_ROWS = (
    MediatorType(
        "resid_post",
        "resid_post.*",
        "the residual stream after a block, one cell per layer and position",
        "first localisation: where and when does it arrive? It does not say which part did it",
    ),
    MediatorType("resid_pre", "resid_pre.*", "the residual stream before a block", "as resid_post"),
    MediatorType("resid_mid", "resid_mid.*", "the stream between attention and MLP", "as resid_post"),
    MediatorType("attn_out", "attn_out.*", "what attention adds", "is it moved here, or computed (mlp_out)?"),
    MediatorType(
        "mixer_out",
        "mixer_out.*",
        "what a recurrence, a convolution or linear attention adds, in the layers that have one",
        "as attn_out, in models of mixed blocks",
    ),
    MediatorType("mlp_out", "mlp_out.*", "what the MLP adds", "is it computed here, or moved (attn_out)?"),
    MediatorType(
        "head",
        "head.*",
        "one attention head's output",
        "routing, circuits; heads are polysemantic, and others may take over when one is replaced",
    ),
    MediatorType("q", "q.*", "one head's queries", "what a head looks for"),
    MediatorType("k", "k.*", "the keys of a key-value group", "what makes a token found"),
    MediatorType("v", "v.*", "the values of a key-value group", "what is passed on once a token is found"),
    MediatorType(
        "kv",
        "kv.*",
        "keys and values of a key-value group together",
        "what a group of heads sees, where several heads share keys and values",
        _groups,
    ),
    MediatorType(
        "neuron",
        "neuron.20.* or neuron.20.3+17",
        "one unit of an MLP, or several together",
        "the finest native unit, for sparse effects; many, redundant, rarely one concept",
        _together,
    ),
    MediatorType(
        "expert",
        "expert.*",
        "what one routed expert adds, its weight included; zero at tokens that are not sent to it",
        "what an expert does for a behaviour; the router is left as it is, so no other expert steps in",
    ),
    MediatorType(
        "shared_expert", "shared_expert.*", "what the expert adds that every token passes", "as expert"
    ),
    MediatorType(
        "router",
        "router.*",
        "the logits by which experts are chosen",
        "does it matter where tokens are sent? The experts chosen anew read the same stream",
    ),
    MediatorType(
        "subspace",
        "subspace:FILE@resid_post.20",
        "the coordinates in a direction or subspace, from a probe, a mean difference, PCA or DAS",
        "testing whether a direction is used; needs a supervised guess, and controls of equal rank",
        _subspaces,
    ),
    MediatorType(
        "window",
        "window:5@mlp_out.*",
        "a site of several layers in a row together; window:5@mlp_out.3 is that of layers 3 to 7",
        "what single layers do too little of to be seen; windows overlap, so they say no layer and add up to "
        "nothing",
        _windows,
    ),
    MediatorType(
        "feature",
        "feature.* or feature.20.3+17",
        "one feature of a sparse dictionary that the model was given (--features), or several together",
        "open search for nameable units; as good as the dictionary is, so read its certificate and the error",
        _features,
    ),
    MediatorType(
        "error",
        "error.*",
        "what the features of a layer's dictionary leave out",
        "how much of an effect the features miss",
    ),
    MediatorType(
        "edge",
        "edge.* or edge.head.3.*->q.5.2",
        "what one part adds to the stream, as one other part reads it",
        "circuits and mechanisms: who is heard by whom? There are many, so estimate first (attribution)",
    ),
)

MEDIATORS: dict[str, MediatorType] = {row.kind: row for row in _ROWS}
WINDOWED = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mixer_out")
GRID = ("resid_pre", "resid_mid", "resid_post", "embed")


def mediators_of(
    model: ModelLike,
    pairs: PairSet,
    mediators: Mediators,
    *,
    positions: str | int = "auto",
) -> tuple[Mediator, ...]:
    """Expand names and globs into mediators, in the order of execution.

    Args:
        model: which sites there are.
        pairs: how long the prompts are.
        mediators: names such as ``head.*``, sites, or mediators.
        positions: ``"all"`` replaces all tokens at once, ``"each"`` one after the other, an index one of them
            (negative from the end), ``"auto"`` each for the residual stream and all for the rest. Each one of
            prompts of several lengths is counted from the end: -1 is the last token. A selector
            (``interp.conversations.selectors``) names tokens of the clean prompts, each one after the other;
            they must be the same in all pairs, counted from the start or from the end.

    Of features that a glob names (``feature.12.*``), those that are active somewhere in these prompts are
    meant; the prompts are run once to see which. Replacing another by a value of these prompts does nothing.

    Raises:
        SiteError: nothing matches, the model does not offer it, or it cannot be written.
        ConfigError: a position that the shortest prompt does not have, a subspace of another width than its
            site, or edges.
        DataError: a subspace's file cannot be read, or a selector that selects nothing, or other tokens in
            other pairs.
    """
    model = as_model(model)
    if isinstance(positions, str) and positions not in ("auto", "all", "each"):
        chosen = _selected(model, pairs, positions)
    else:
        chosen = None
    one = isinstance(mediators, str | Site | Mediator | Edge)
    given: list[Any] = [mediators] if one else list(mediators)
    if are_edges(mediators):
        raise ConfigError(
            f"edges were asked for ({given[0]}) where a site or a part of it is meant. Ask for their "
            "writers, such as head.* or mlp_out.*."
        )
    found: list[Mediator] = []
    for item in given:
        if isinstance(item, Mediator):
            found.append(item)
            continue
        for mediator in _active(model, pairs, item, _expanded(model, item)):
            places = chosen if chosen is not None else _positions(mediator.site, pairs, positions)
            found += [replace(mediator, position=at) for at in places]
    for mediator in dict.fromkeys(replace(one, position=None) for one in found):
        _check(model, mediator)
    return tuple(sorted(dict.fromkeys(found)))


def _expanded(model: Model, item: str | Site) -> list[Mediator]:
    if isinstance(item, Site):
        return [Mediator(site) for site in model.expand([item])]
    kind = re.split(r"[.:]", item, maxsplit=1)[0]
    return MEDIATORS[kind].expand(model, item) if kind in MEDIATORS else _by_site(model, item)


def _active(model: Model, pairs: PairSet, item: str | Site, found: Sequence[Mediator]) -> Sequence[Mediator]:
    """Of features that a glob names, those that are not 0 everywhere in these prompts.

    Raises:
        SiteError: none is.
    """
    if not isinstance(item, str) or not item.startswith("feature.") or "*" not in item:
        return found
    there: dict[int | None, set[int]] = {}
    for layer in dict.fromkeys(one.layer for one in found):
        site = str(Site("feature", layer))
        sides = [model.capture(side, site, "all")[site] for side in (pairs.clean, pairs.corrupt)]
        seen = torch.stack([(values != 0).flatten(0, 1).any(dim=0) for values in sides]).any(dim=0)
        there[layer] = set(seen.nonzero()[:, 0].tolist())
    kept = [one for one in found if one.site.index is None or one.site.index in there[one.layer]]
    if not kept:
        raise SiteError(
            f"{item!r} names {counted(len(found), 'feature')}, none of which is active in these prompts: the "
            "dictionary may be of another model or layer (interp features check)."
        )
    return kept


def _positions(site: Site, pairs: PairSet, positions: str | int) -> list[int | None]:
    shortest, longest = min(pairs.lengths), max(pairs.lengths)
    if isinstance(positions, int):
        if not -shortest <= positions < shortest:
            raise ConfigError(
                f"position {positions} asked, but the shortest prompt has {counted(shortest, 'token')}."
            )
        return [positions]
    if positions not in ("auto", "all", "each"):
        raise ConfigError(f"positions {positions!r} asked; use 'auto', 'all', 'each' or an index.")
    if positions == "all" or (positions == "auto" and site.kind not in GRID):
        return [None]
    # Token 3 is another word in each prompt where lengths differ; the last one is the last in all.
    return list(range(longest)) if shortest == longest else list(range(-shortest, 0))


def _selected(model: Model, pairs: PairSet, selector: str) -> list[int]:
    """The tokens that a selector names in every clean prompt, from the start, or else from the end."""
    rows = parse(selector).resolve(pairs.clean, model.tokenizer)
    ends = [[at - length for at in row] for row, length in zip(rows, pairs.lengths, strict=True)]
    for same in (rows, ends):
        if all(list(row) == list(same[0]) for row in same):
            return list(same[0])
    other = next(number for number, row in enumerate(rows) if row != rows[0])
    raise DataError(
        f"the selector {selector!r} names tokens {list(rows[0])} of pair 0 and {list(rows[other])} of pair "
        f"{other}; values are replaced at the same tokens of all pairs. Use pairs of one template, or a "
        "number that counts from the end."
    )


def counted_from_the_end(pairs: PairSet, mediators: Sequence[Mediator | Edge]) -> str:
    """What a reader should know of the positions of prompts of several lengths; "" for one length."""
    shortest, longest = min(pairs.lengths), max(pairs.lengths)
    places = {one.position for one in mediators if isinstance(one, Mediator) and one.position is not None}
    if shortest == longest or len(places) < 2:
        return ""
    return (
        f"the prompts have {shortest} to {counted(longest, 'token')}: positions are counted from the end "
        "(-1 is the "
        f"last), over the {shortest} that every prompt has; earlier tokens of longer prompts are not replaced"
    )


def overlapping(mediators: Sequence[Mediator | Edge]) -> str:
    """What a reader should know of windows of layers; "" where there are none."""
    for one in mediators:
        if isinstance(one, Mediator) and one.window > 1 and one.layer is not None:
            last = one.layer + one.window - 1
            return (
                f"{one} is layers {one.layer} to {last} together; neighbouring windows share layers, so "
                "that their effects do not add up"
            )
    return ""


def _check(model: Model, mediator: Mediator) -> None:
    site = mediator.site
    if site.kind == "pattern":
        raise SiteError(
            f"'{site}' is no mediator: attention has used its probabilities by the time it returns them, so "
            "nothing could be replaced. Replace what they are computed from (q or k of that layer) or what "
            "they bring (head)."
        )
    if site.kind in ("logits", "final_norm"):
        raise SiteError(f"'{site}' is no mediator; the types are: {', '.join(MEDIATORS)}.")
    if site.layer is not None and not 0 <= site.layer < model.n_layers:
        raise SiteError(f"layer {site.layer} asked, but {model.name!r} has layers 0..{model.n_layers - 1}.")
    model.architecture.check([site.kind, *(carrier.kind for carrier in mediator.carriers)])
    if mediator.subspace is not None and mediator.subspace.width != (width := _width(model, site)):
        raise ConfigError(
            f"subspace {mediator.subspace.name!r} has width {mediator.subspace.width}, but '{site}' of "
            f"{model.name!r} has width {width}. Give a subspace found at that site of that model."
        )


def _width(model: Model, site: Site) -> int:
    """The size of a site's last axis."""
    layer = site.layer or 0
    if site.kind in ("head", "z", "q", "k", "v"):
        return model.architecture.head_width(layer)
    if site.kind == "mlp_act":
        return model.anatomy.neurons[layer]
    if site.kind == "router":
        return model.anatomy.experts[layer]
    return 1 if site.kind == "neuron" else model.d_model
