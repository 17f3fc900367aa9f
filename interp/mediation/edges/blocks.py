"""What the edges of a model need from its blocks: the input of the projections, the projections, one pass.

Nothing here knows a family. What a reader gets after its norm is whatever the block hands to its query
projection when the block is called with that stream; a reader's value is written where the site ``q``, ``k``
or ``v`` is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.mediation.prefix_cache import arguments, recorded
from interp.models.architecture import Location
from interp.models.hooks import Frame, Stop, Writer, reading, writing
from interp.models.model import Model
from interp.models.tensor_views import Whole, head_output, head_weights
from interp.sites import Site

__all__ = ["Blocks", "contribution"]

Stream = Float[Tensor, "row pos d_model"]
Middle = Callable[[Mapping[Site, Tensor]], Tensor | None]


@dataclass(eq=False)
class Blocks:
    """Run the blocks of one model on prompts of one length, each part on its own.

    Attributes:
        model: whose blocks.
        arguments: per block the positional and keyword arguments besides the stream.
        steps: block passes of one row so far, for the bill; a part of a block counts as one, a norm as none.
    """

    model: Model
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    steps: float = 0.0
    _slices: dict[Site, tuple[Tensor, Tensor | None] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, ids: Sequence[int]) -> Blocks:
        """Read the arguments of every block in a forward pass of one prompt."""
        return cls(model, arguments(model, ids, recorded(model, [list(ids)], past="none").tuples))

    def call(self, layer: int, stream: Stream, *, writers: Sequence[Writer] = ()) -> Stream:
        """Run one block.

        Args:
            layer: which block.
            stream: its input.
            writers: what is written on the way.
        """
        self.steps += len(stream)
        return self._run(layer, stream, writers)

    def _run(self, layer: int, stream: Stream, writers: Sequence[Writer] = ()) -> Stream:
        args, kwargs = self.arguments[layer]
        kwargs = {k: v.repeat(len(stream), 1, 1) if k == "alibi" else v for k, v in kwargs.items()}
        with writing(writers, Frame(len(stream), stream.shape[1])):
            found = self.model.architecture.blocks[layer](stream, *args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    def read(
        self, layer: int, stream: Stream, kinds: Sequence[str], *, writers: Sequence[Writer] = ()
    ) -> dict[Site, Tensor]:
        """Run one block until everything asked has been read; a site is read before it is written.

        Args:
            layer: which block.
            stream: its input.
            kinds: of site, such as ``z``.
            writers: what is written on the way.
        """
        places = {Site(kind, layer): self.model.architecture.locate(Site(kind, layer)) for kind in kinds}
        frame = Frame(len(stream), stream.shape[1], stop=True)
        with reading(places, frame), suppress(Stop):
            self.call(layer, stream, writers=writers)
        return frame.found

    def parts(
        self, layer: int, stream: Stream, kinds: Sequence[str], writers: Sequence[Writer], middle: Middle
    ) -> dict[Site, Tensor]:
        """Run one block, the MLP on an input of its own.

        Args:
            layer: which block.
            stream: its input.
            kinds: of site to read, besides ``mlp_out``.
            writers: queries, keys and values that are written.
            middle: from what was read of attention to what is added to the MLP's input, or None.
        """
        if self.model.architecture.parallel:
            found = self.read(layer, stream, kinds, writers=writers)
            shift = middle(found)
            return found | self.read(layer, stream if shift is None else stream + shift, ["mlp_out"])
        site = Site("resid_mid", layer)
        places = {
            one: self.model.architecture.locate(one) for one in (Site(k, layer) for k in (*kinds, "mlp_out"))
        }
        frame = Frame(len(stream), stream.shape[1], stop=True)

        def moved(current: Tensor) -> Tensor:
            shift = middle(frame.found)
            return current if shift is None else current + shift

        extra = Writer(site, self.model.architecture.locate(site, write=True), moved)
        with reading(places, frame), suppress(Stop):  # entered first: attn_out is read before it is written
            self.call(layer, stream, writers=[*writers, extra])
        return frame.found

    def normed(self, layer: int, stream: Stream) -> Stream:
        """What the projections of a block get when the block gets this stream."""
        site = Site("q", layer)
        place = Location(self.model.architecture.locate(site).module, "in", Whole())
        frame = Frame(len(stream), stream.shape[1], stop=True)
        with reading({site: place}, frame), suppress(Stop):
            self._run(layer, stream)
        return frame.found[site]

    def weight(self, site: Site) -> tuple[Tensor, Tensor | None] | None:
        """Weights ``[d_model head d_head]`` and bias ``[head d_head]`` of ``q.l``, ``k.l`` or ``v.l``.

        None where the projection is no plain linear layer (a quantized one, say).
        """
        if site not in self._slices:
            location = self.model.architecture.locate(site)
            self._slices[site] = head_weights(location.module, location.view)
        return self._slices[site]

    def project(self, site: Site, inner: Stream) -> Tensor:
        """The site's value ``[row pos d_head]`` for one head (``[row pos head d_head]`` for all).

        Args:
            site: ``q.l.h`` or ``q.l``, likewise ``k`` and ``v``.
            inner: what the projection gets.
        """
        sliced = self.weight(Site(site.kind, site.layer)) if site.index is not None else None
        if sliced is None:
            location = self.model.architecture.locate(site)
            return location.view.read(location.module.forward(inner), inner)
        weight, bias = sliced
        out = inner @ weight[:, site.index]
        return out if bias is None else out + bias[site.index]

    def pulled(self, site: Site, inner: Stream, slope: Tensor) -> Tensor:
        """Pull a slope back through a projection, head by head: ``[row head pos d_model]``.

        Args:
            site: ``q.l``, ``k.l`` or ``v.l``.
            inner: what the projection gets.
            slope: with respect to the site, ``[row pos head d_head]``.
        """
        sliced = self.weight(site)
        if sliced is not None:
            return torch.einsum("bthe,dhe->bhtd", slope, sliced[0])
        with torch.enable_grad():
            given = inner.clone().requires_grad_()
            out = self.project(site, given)
            parts = [
                torch.autograd.grad(out[:, :, head], given, slope[:, :, head], retain_graph=True)[0]
                for head in range(slope.shape[2])
            ]
        return torch.stack(parts, dim=1)


def contribution(
    model: Model, writer: Site, values: Mapping[Site, Tensor], less: Mapping[Site, Tensor] | None = None
) -> Tensor:
    """What a writer adds to the stream, ``[row pos d_model]``, or the difference of two such.

    A head's is ``multiplier * W_O[h] z.h``, without the bias of the output projection.

    Args:
        model: whose output projections.
        writer: ``embed``, ``head.l.h``, ``attn_out.l`` or ``mlp_out.l``.
        values: carrier to ``[row pos ...]``.
        less: what is taken off, likewise.
    """
    carrier = Site("z", writer.layer) if writer.kind == "head" else writer
    value = values[carrier] if less is None else values[carrier] - less[carrier]
    if writer.kind != "head":
        return value
    architecture = model.architecture
    layer = writer.layer or 0
    projection = architecture.module(layer, "out_projection", "z")
    assert writer.index is not None
    added = head_output(projection, value.flatten(-2), architecture.anatomy.heads[layer], writer.index)
    return added if architecture.multiplier == 1.0 else added * architecture.multiplier
