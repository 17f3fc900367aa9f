"""All that is added to the residual stream of one prompt, part by part, and whether it adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, ModelError, SiteError
from interp.mediation.graphs.parts import FOLLOWED
from interp.models.forward import gradients
from interp.models.model import Model
from interp.sites import Site

__all__ = ["SEVERAL", "Source", "Sources", "check", "effect_of", "projected", "read_sources"]

SEVERAL = {"head": "z", "heads": "z", "rest": "mlp_act"}
"""Kinds of source that are several numbers of a site, which are read along the output's gradient."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
Values = Mapping[Site, Tensor]


@dataclass(frozen=True)
class Source:
    """Something that is written at one token.

    Attributes:
        kind: a key of ``KINDS``.
        layer: of its block; None for an embedding.
        index: of the head, neuron or feature; of an embedding the token's id; None for what is left.
        position: of the token.
    """

    kind: str
    layer: int | None
    index: int | None
    position: int

    def __str__(self) -> str:
        """The site and the token: ``head.5.3@4``."""
        index = None if self.kind == "embed" else self.index
        parts = (self.kind, self.layer, index)
        return f"{'.'.join(str(one) for one in parts if one is not None)}@{self.position}"

    @property
    def followed(self) -> bool:
        """Whether it reads the stream in a way that is looked at."""
        return self.kind in FOLLOWED

    def reads(self, model: Model) -> Site:
        """The stream that it reads.

        Args:
            model: whose part it is.
        """
        layer = self.layer or 0
        dictionary = model.dictionaries.get(layer) if self.kind == "feature" else None
        if dictionary is not None and dictionary.site_in.kind == "resid_post":
            return Site("resid_post", layer)
        early = self.kind in ("head", "heads") or model.architecture.parallel
        return Site("resid_pre" if early else "resid_mid", layer)

    def adds_to(self, model: Model) -> Site:
        """The site that it is a part of.

        Args:
            model: whose part it is.
        """
        if self.kind == "embed":
            return Site("embed")
        layer = self.layer or 0
        dictionary = model.dictionaries.get(layer) if self.kind in ("feature", "skip", "error") else None
        if dictionary is not None:
            return dictionary.site_out
        return Site("attn_out" if self.kind in ("head", "heads") else "mlp_out", layer)


@dataclass(frozen=True, eq=False)
class Sources:
    """What is written, in order of execution.

    Attributes:
        parts: all of them.
        writes: ``[source d_model]``, double precision.
        orders: of each source: 0 of embeddings, ``4l + 2`` of attention, ``4l + 4`` of the MLP of block l,
            ``4l + 5`` of features of its stream.
        biases: order -> ``[d_model]``, what is written at every token whatever the prompt.
        cuts: orders of features of the stream: whatever was written before is read from them.
    """

    parts: tuple[Source, ...]
    writes: Float[Tensor, "source d_model"]
    orders: tuple[int, ...]
    biases: Mapping[int, Tensor]
    cuts: tuple[int, ...]

    @cached_property
    def _alone(self) -> Mapping[tuple[str, int | None, int], list[int]]:
        """(kind, layer, position) -> the heads or neurons that are sources of their own."""
        found: dict[tuple[str, int | None, int], list[int]] = {}
        for one in self.parts:
            if one.kind in ("head", "neuron") and one.index is not None:
                found.setdefault((one.kind, one.layer, one.position), []).append(one.index)
        return found

    def members(self, part: Source, like: Float[Tensor, "unit ..."]) -> Float[Tensor, "unit ..."]:
        """1 for the heads or neurons of a part, 0 for the others of its block: to multiply with.

        Args:
            part: a head, or a group.
            like: of that shape.
        """
        single = {"heads": "head", "rest": "neuron"}
        if part.kind not in single:
            kept = torch.zeros_like(like)
            kept[part.index] = 1.0
            return kept
        kept = torch.ones_like(like)
        kept[self._alone.get((single[part.kind], part.layer, part.position), [])] = 0.0
        return kept

    def reach(self, site: Site, reader: Source | None = None) -> slice:
        """The sources that make up a stream: those before it, from the last features of the stream on.

        Args:
            site: the stream.
            reader: that reads it; features of a stream read it before they are written.
        """
        low, high = self.span(site, reader)
        kept = [at for at, order in enumerate(self.orders) if low <= order <= high]
        return slice(kept[0], kept[-1] + 1) if kept else slice(0, 0)

    def span(self, site: Site, reader: Source | None = None) -> tuple[int, int]:
        """The orders of those sources, ends included.

        Args:
            site: the stream.
            reader: that reads it.
        """
        layer = site.layer or 0
        high = {"resid_pre": 4 * layer + 1, "resid_mid": 4 * layer + 3, "resid_post": 4 * layer + 5}[
            site.kind
        ]
        if reader is not None and reader.kind == "feature" and site.kind == "resid_post":
            high -= 1
        return max((cut for cut in self.cuts if cut <= high), default=0), high

    def carried(self, slope: Float[Tensor, "pos d_model"], reach: slice) -> Float[Tensor, " source"]:
        """What each source of a span adds to a reading.

        Args:
            slope: of the reading.
            reach: the span.
        """
        places = [one.position for one in self.parts[reach]]
        return (self.writes[reach] * slope[places]).sum(dim=-1)

    def carried_bias(self, slope: Float[Tensor, "pos d_model"], reach: slice) -> float:
        """What the biases within a span add to a reading.

        Args:
            slope: of the reading.
            reach: the span.
        """
        if reach.stop == reach.start:
            return 0.0
        low, high = self.orders[reach.start], self.orders[reach.stop - 1]
        inside = [one for order, one in self.biases.items() if low <= order <= high]
        return float(sum((one * slope.sum(dim=0)).sum() for one in inside))


def check(model: Model) -> None:
    """Refuse a model whose parts are not what a graph is made of.

    Raises:
        SiteError: a site is missing, in all of its blocks or in some.
        ConfigError: a dictionary that a graph cannot use, or a model that is not run by hooks.
    """
    if model.backend is not None:
        raise ConfigError(f"graphs need the native backend; {model.name!r} runs on {model.backend.name}.")
    model.architecture.check(("resid_pre", "z", "attn_out", "mlp_act", "mlp_out", "resid_post", "final_norm"))
    for kind in ("z", "attn_out", "mlp_act", "mlp_out"):
        there = model.anatomy.layers(kind)
        if len(there) < model.n_layers:
            lacking = next(layer for layer in range(model.n_layers) if layer not in there)
            raise SiteError(
                f"a graph needs '{kind}' in every block, and layer {lacking} of {model.name!r} has none. Use "
                "the search 'attribution' on the sites it has."
            )
    for one in model.dictionaries.values():
        if one.later:
            raise ConfigError(
                f"dictionary {one.name!r} writes to later layers too (a cross-layer transcoder); a graph "
                "follows what each source writes in its own block alone, and would leave these edges out. "
                "Its features are sites: use the search 'attribution', or transcoders per layer here."
            )
        if one.norm != "none":
            raise ConfigError(
                f"dictionary {one.name!r} norms its input ({one.norm}), and that norm cannot be held in a "
                "graph. Use one that reads its site as it is, or after the model's own norm."
            )
        stream = one.autoencodes and one.site_in.kind == "resid_post"
        if not stream and one.site_out.kind != "mlp_out":
            raise ConfigError(
                f"dictionary {one.name!r} is of '{one.site_out}'; a graph takes features of 'mlp_out' and of "
                "'resid_post', and transcoders of the MLP. Heads are nodes of their own."
            )
        own = Site("resid_pre" if model.architecture.parallel else "resid_mid", one.site_out.layer)
        if not one.autoencodes and one.site_in != own:
            raise ConfigError(
                f"dictionary {one.name!r} reads '{one.site_in}' and writes '{one.site_out}'; a graph takes "
                f"transcoders that read what the MLP of their own block reads, '{own}'. Leave it out."
            )


def read_sources(
    model: Model,
    ids: Sequence[int],
    values: Values,
    slopes: Values,
    neurons: int,
    least: float = 0.0,
    like: Sources | None = None,
) -> Sources:
    """Take the stream apart.

    Args:
        model: what ran.
        ids: the prompt.
        values: site -> ``[pos ...]``.
        slopes: ``attn_out.l`` and ``mlp_out.l`` -> ``[pos d_model]``, of the output.
        neurons: of each MLP, over all tokens, that are sources of their own at most.
        least: first-order effect on the output from which on a head or neuron is a source of its own.
        like: sources of another prompt, whose parts these shall be.

    Raises:
        ModelError: the parts of a block do not add up to what it adds to the stream.
    """
    parts: list[Source] = [Source("embed", None, int(one), at) for at, one in enumerate(ids)]
    writes: list[Tensor] = [values[Site("resid_pre", 0)].double()]
    orders, biases, cuts = [0] * len(ids), {}, []
    for layer in range(model.n_layers):
        chosen = _chosen(model, layer, values, slopes, neurons, least, like)
        own = _own_heads(model, layer, values, slopes, least, like)
        found = [
            (4 * layer + 2, *_heads(model, layer, values, own)),
            (4 * layer + 4, *_mlp(model, layer, values, chosen)),
        ]
        if layer in model.dictionaries and model.dictionaries[layer].site_in.kind == "resid_post":
            found.append((4 * layer + 5, *_features(model, layer, values, chosen)))
            cuts.append(4 * layer + 5)
        for order, names, written, bias in found:
            parts += names
            writes.append(written)
            orders += [order] * len(names)
            biases[order] = bias
    made = Sources(tuple(parts), torch.cat(writes), tuple(orders), biases, tuple(cuts))
    if like is None:
        _check_sum(model, made, values)
    return made


def _heads(
    model: Model, layer: int, values: Values, own: Sequence[tuple[int, int]]
) -> tuple[list[Source], Tensor, Tensor]:
    """Heads that are sources of their own, and at each token the others together, where there are any."""
    z = values[Site("z", layer)]
    taken = set(own)
    places = [(at, [h for h in range(z.shape[1]) if (h, at) not in taken]) for at in range(len(z))]
    rest = [(at, heads) for at, heads in places if heads]
    alone = z.new_zeros(len(own) + len(rest), *z.shape[1:])
    for row, (head, at) in enumerate(own):
        alone[row, head] = z[at, head]
    for row, (at, heads) in enumerate(rest, start=len(own)):
        alone[row, heads] = z[at, heads]
    names = [Source("head", layer, head, at) for head, at in own]
    names += [Source("heads", layer, None, at) for at, _ in rest]
    zero = projected(model, layer, "attn_out", torch.zeros_like(z[:1]))
    return names, projected(model, layer, "attn_out", alone) - zero, zero[0]


INTO = {"attn_out": ("out_projection", "z"), "mlp_out": ("down_projection", "mlp_act")}


def projected(model: Model, layer: int, kind: str, given: Float[Tensor, "row ..."]) -> Tensor:
    """What a sublayer adds to the stream, its bias included: ``[row d_model]``, in double precision.

    Args:
        model: whose.
        layer: of the block.
        kind: ``attn_out``, given ``z``, or ``mlp_out``, given ``mlp_act``.
        given: to its last projection.
    """
    name, site = INTO[kind]
    module: Any = model.architecture.module(layer, name, site)
    with torch.no_grad():
        return (module.forward(given.flatten(1)) * model.architecture.multiplier).double()


def effect_of(model: Model, layer: int, kind: str, given: Tensor, slope: Tensor) -> Tensor:
    """The gradient of the output with respect to what a sublayer's last projection gets, of its shape.

    Args:
        model: whose.
        layer: of the block.
        kind: ``attn_out`` or ``mlp_out``.
        given: ``z`` or ``mlp_act``, ``[pos ...]``.
        slope: ``[pos d_model]``, with respect to what the sublayer adds.
    """
    name, site = INTO[kind]
    module: Any = model.architecture.module(layer, name, site)
    with gradients():
        at = given.detach().clone().requires_grad_()
        out = module.forward(at.flatten(1)) * model.architecture.multiplier
        (found,) = torch.autograd.grad(out, at, slope)
    return found


def _own_heads(
    model: Model, layer: int, values: Values, slopes: Values, least: float, like: Sources | None
) -> list[tuple[int, int]]:
    """The (head, token) pairs of a block that are sources of their own."""
    if like is not None:
        parts = [one for one in like.parts if one.layer == layer and one.kind == "head"]
        return [(one.index or 0, one.position) for one in parts]
    z, site = values[Site("z", layer)], Site("attn_out", layer)
    sizes = (z * effect_of(model, layer, "attn_out", z, slopes[site])).sum(dim=-1).abs()
    return sorted((head, at) for at, head in (sizes >= least).nonzero().tolist())


def _chosen(
    model: Model,
    layer: int,
    values: Values,
    slopes: Values,
    neurons: int,
    least: float,
    like: Sources | None,
) -> list[tuple[int, int]]:
    """The (neuron or feature, token) pairs of a block that are sources of their own."""
    if like is not None:
        parts = [one for one in like.parts if one.layer == layer and one.kind in ("neuron", "feature")]
        return [(one.index or 0, one.position) for one in parts]
    if layer in model.dictionaries:
        return sorted((index, at) for at, index in values[Site("feature", layer)].nonzero().tolist())
    act, site = values[Site("mlp_act", layer)], Site("mlp_out", layer)
    size = (act * effect_of(model, layer, "mlp_out", act, slopes[site])).abs().flatten()
    top = size.topk(min(neurons, int(((size > 0) & (size >= least)).sum()))).indices.tolist()
    return sorted((at % act.shape[1], at // act.shape[1]) for at in top)


def _mlp(
    model: Model, layer: int, values: Values, chosen: Sequence[tuple[int, int]]
) -> tuple[list[Source], Tensor, Tensor]:
    """The MLP of a block: features and their error where it has a dictionary, else neurons and the rest."""
    dictionary = model.dictionaries.get(layer)
    if dictionary is not None and dictionary.site_out.kind == "mlp_out":
        return _features(model, layer, values, chosen)
    chosen = chosen if dictionary is None else ()
    act, out = values[Site("mlp_act", layer)], values[Site("mlp_out", layer)]
    alone = act.new_zeros(len(chosen), act.shape[1])
    for row, (index, at) in enumerate(chosen):
        alone[row, index] = act[at, index]
    zero = projected(model, layer, "mlp_out", torch.zeros_like(act[:1]))
    written, left = projected(model, layer, "mlp_out", alone) - zero, out.double() - zero
    for row, (_, at) in enumerate(chosen):
        left[at] -= written[row]
    names = [Source("neuron", layer, index, at) for index, at in chosen]
    names += [Source("rest", layer, None, at) for at in range(len(act))]
    return names, torch.cat([written, left]), zero[0]


def _features(
    model: Model, layer: int, values: Values, chosen: Sequence[tuple[int, int]]
) -> tuple[list[Source], Tensor, Tensor]:
    """The features of a layer, its skip connection if it has one, and its error: the site of that name."""
    dictionary, features = model.dictionaries[layer], values[Site("feature", layer)]
    left = values[dictionary.site_out].double() - dictionary.decoder_bias.double()
    written = [features[at, index].double() * dictionary.decoder[index].double() for index, at in chosen]
    for (_, at), one in zip(chosen, written, strict=True):
        left[at] -= one
    names = [Source("feature", layer, index, at) for index, at in chosen]
    if dictionary.skip is not None:
        error = values[Site("error", layer)].double()
        names += [Source("skip", layer, None, at) for at in range(len(features))]
        written, left = [*written, *(left - error)], error
    names += [Source("error", layer, None, at) for at in range(len(features))]
    return names, torch.stack([*written, *left]), dictionary.decoder_bias.double()


def _check_sum(model: Model, sources: Sources, values: Values) -> None:
    """Refuse a model whose stream is not the sum of its sources: there is something between them."""
    allowed = TOLERANCE.get(model.dtype, 0.05)
    for site in sorted(values):
        if site.kind not in ("resid_pre", "resid_mid", "resid_post"):
            continue
        low, high = sources.span(site)
        total = torch.zeros_like(values[site], dtype=torch.float64)
        reach = sources.reach(site)
        places = [one.position for one in sources.parts[reach]]
        total.index_add_(0, torch.tensor(places, device=total.device), sources.writes[reach])
        total += sum(one for order, one in sources.biases.items() if low <= order <= high)
        off = float((total - values[site]).abs().max() / values[site].abs().max())
        if not off <= allowed:
            raise ModelError(
                f"'{site}' of {model.name!r} is not the sum of what heads and MLPs write (it differs by "
                f"{off:.1e}): a norm or a factor stands between them and the stream, so that edges have no "
                "weights. Use mediators without edges (`interp patch`)."
            )
