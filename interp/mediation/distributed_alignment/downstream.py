"""Run the blocks behind a mediator with the graph kept, from streams that are read once.

A mediator in block l changes nothing before it, so a training step needs the blocks from l on alone. The
arguments of each block are read off a real forward pass. Where that does not give the model's own logits,
whole forward passes are run instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InterpError
from interp.mediation.mediators import Mediator
from interp.models.hooks import Frame, Writer, evaluating, writing
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.models.readout import finished
from interp.sites import Site

__all__ = ["Downstream"]

STREAM = ("embed", "resid_pre", "resid_post")
TOLERANCE = 1e-4
Change = Callable[[Tensor], Tensor]
"""From the mediator's current values ``[row width]`` to new ones."""


@dataclass(frozen=True, eq=False)
class Downstream:
    """Prompts of one length as they enter the first block that a mediator changes.

    Attributes:
        model: whose blocks.
        mediator: what is changed: one place, one position.
        token_ids: the prompts.
        streams: ``[example pos d_model]``, entering that block.
        arguments: of every block, besides the stream; empty where whole passes are run.
    """

    model: Model
    mediator: Mediator
    token_ids: Sequence[Sequence[int]]
    streams: Float[Tensor, "example pos d_model"]
    arguments: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]

    @classmethod
    def of(cls, model: Model, token_ids: Sequence[Sequence[int]], mediator: Mediator) -> Downstream:
        """Read the streams, and hold the short way to the model's own logits.

        Args:
            model: whose blocks.
            token_ids: prompts of one length.
            mediator: what is changed: one place, one position.
        """
        site = mediator.site
        entry = str(site if site.kind in STREAM else Site("resid_pre", site.layer))
        streams = model.capture([list(ids) for ids in token_ids], entry, "all")[entry]
        found = cls(model, mediator, token_ids, streams, _arguments(model, token_ids[0]))
        return found if found._faithful() else cls(model, mediator, token_ids, streams, ())

    @property
    def first(self) -> int:
        """The first block that is run."""
        layer = self.mediator.site.layer or 0
        return layer + 1 if self.mediator.site.kind == "resid_post" else layer

    def __call__(self, rows: Int[Tensor, " row"], change: Change) -> Float[Tensor, "row vocab"]:
        """The fp32 logits after the last token, with the graph back to what the change depends on.

        Args:
            rows: which prompts, repeats allowed.
            change: from current values ``[row width]`` to new ones.
        """
        with evaluating(self.model.architecture.modules):
            return self._short(rows, change) if self.arguments else self._whole(rows, change)

    def _short(self, rows: Tensor, change: Change) -> Tensor:
        hidden, frame = self.streams[rows.to(self.streams.device)], Frame()
        at = (self.mediator.position or 0) % hidden.shape[1]
        (place,) = self.mediator.places
        index = place.index

        def edit(current: Tensor) -> Tensor:
            result = current.clone()
            if index is None:
                result[:, at] = change(current[:, at])
            else:
                result[:, at, index] = change(current[:, at, index])
            return result

        with ExitStack() as stack:
            if place.carrier.kind in STREAM:
                hidden = edit(hidden)
            else:
                location = self.model.architecture.locate(place.carrier, write=True)
                stack.enter_context(writing([Writer(place.carrier, location, edit)], frame))
            for layer in range(self.first, self.model.n_layers):
                frame.begin(len(hidden), hidden.shape[1])
                hidden = self._block(layer, hidden)
        return self._unembedded(hidden[:, -1])

    def _block(self, layer: int, hidden: Tensor) -> Tensor:
        args, kwargs = self.arguments[layer]
        if "alibi" in kwargs:  # BLOOM's biases are laid out row by row: [row*head 1 pos]
            kwargs = kwargs | {"alibi": kwargs["alibi"].repeat(len(hidden), 1, 1)}
        found = self.model.architecture.blocks[layer](hidden, *args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    def _unembedded(self, states: Tensor) -> Tensor:
        """The logits of last states; unlike ``Model.unembed`` with the graph kept."""
        norm: Any = self.model.architecture.locate(Site("final_norm")).module
        head: Any = self.model.hf.get_output_embeddings()
        return finished(self.model.architecture, head(norm(states))).float()

    def _whole(self, rows: Tensor, change: Change) -> Tensor:
        (place,) = self.mediator.places
        index = place.index

        def edit(current: Tensor) -> Tensor:
            if index is None:
                return change(current)
            result = current.clone()
            result[:, index] = change(current[:, index])
            return result

        prompts = [list(self.token_ids[row]) for row in rows.tolist()]
        edits = [Intervention(place.carrier, edit, self.mediator.position or 0)]
        logits = self.model.run(prompts, interventions=edits, grad=True).logits
        assert logits is not None
        return logits.float()

    def _faithful(self) -> bool:
        """Whether nothing changed and something changed both give what whole passes give."""
        rows = torch.tensor([0])
        try:
            for change in (torch.clone, torch.neg):
                short, whole = self._short(rows, change).detach(), self._whole(rows, change).detach()
                if not float((short - whole).abs().max()) <= TOLERANCE * max(1.0, float(whole.abs().max())):
                    return False
        except (InterpError, RuntimeError, TypeError, ValueError):
            return False
        return True


def _arguments(model: Model, ids: Sequence[int]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Read what each block is called with, besides the stream, in a forward pass of one prompt."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        found.append((args[1:] if args else (), rest))

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in model.architecture.blocks]
    try:
        with torch.no_grad(), evaluating(model.architecture.modules):
            model.hf(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found
