"""All that is added to the residual stream of one prompt, part by part, and whether it adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, ModelError, SiteError
from interp.mediation.edges.blocks import contribution
from interp.mediation.graphs.parts import FOLLOWED
from interp.models.forward import gradients
from interp.models.model import Model
from interp.sites import Site

__all__ = ["Source", "Sources", "check", "read_sources"]

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
        early = self.kind == "head" or model.architecture.parallel
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
        return Site("attn_out" if self.kind == "head" else "mlp_out", layer)


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
    like: Sources | None = None,
) -> Sources:
    """Take the stream apart.

    Args:
        model: what ran.
        ids: the prompt.
        values: site -> ``[pos ...]``.
        slopes: ``mlp_out.l`` -> ``[pos d_model]``, of the output.
        neurons: of each MLP, over all tokens.
        like: sources of another prompt, whose parts these shall be.

    Raises:
        ModelError: the parts of a block do not add up to what it adds to the stream.
    """
    parts: list[Source] = [Source("embed", None, int(one), at) for at, one in enumerate(ids)]
    writes: list[Tensor] = [values[Site("resid_pre", 0)].double()]
    orders, biases, cuts = [0] * len(ids), {}, []
    for layer in range(model.n_layers):
        chosen = _chosen(model, layer, values, slopes, neurons, like)
        found = [
            (4 * layer + 2, *_heads(model, layer, values)),
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


def _heads(model: Model, layer: int, values: Values) -> tuple[list[Source], Tensor, Tensor]:
    z = values[Site("z", layer)]
    projection: Any = model.architecture.module(layer, "out_projection", "z")
    names, written = [], []
    with torch.no_grad():
        for head in range(z.shape[1]):
            names += [Source("head", layer, head, at) for at in range(len(z))]
            written.append(contribution(model, Site("head", layer, head), {Site("z", layer): z[None]})[0])
        bias = projection.forward(torch.zeros_like(z[:1].flatten(1)))[0] * model.architecture.multiplier
    return names, torch.cat(written).double(), bias.double()


def _chosen(
    model: Model, layer: int, values: Values, slopes: Values, neurons: int, like: Sources | None
) -> list[tuple[int, int]]:
    """The (neuron or feature, token) pairs of a block that are sources of their own."""
    if like is not None:
        parts = [one for one in like.parts if one.layer == layer and one.kind in ("neuron", "feature")]
        return [(one.index or 0, one.position) for one in parts]
    if layer in model.dictionaries:
        return sorted((index, at) for at, index in values[Site("feature", layer)].nonzero().tolist())
    act = values[Site("mlp_act", layer)]
    projection: Any = model.architecture.module(layer, "down_projection", "mlp_act")
    with gradients():
        given = act.clone().requires_grad_()
        (slope,) = torch.autograd.grad(projection.forward(given), given, slopes[Site("mlp_out", layer)])
    size = (act * slope).abs().flatten()
    top = size.topk(min(neurons, int((size > 0).sum()))).indices.tolist()
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
    projection: Any = model.architecture.module(layer, "down_projection", "mlp_act")
    factor = model.architecture.multiplier
    alone = act.new_zeros(len(chosen), act.shape[1])
    for row, (index, at) in enumerate(chosen):
        alone[row, index] = act[at, index]
    with torch.no_grad():
        zero = projection.forward(torch.zeros_like(act[:1]))
        written = ((projection.forward(alone) - zero) * factor).double()
    left = out.double() - (zero * factor).double()
    for row, (_, at) in enumerate(chosen):
        left[at] -= written[row]
    names = [Source("neuron", layer, index, at) for index, at in chosen]
    names += [Source("rest", layer, None, at) for at in range(len(act))]
    return names, torch.cat([written, left]), (zero[0] * factor).double()


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
