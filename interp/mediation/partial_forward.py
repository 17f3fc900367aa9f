"""Run blocks one by one from a cached residual stream: rows that are changed at layer l start at layer l.

The arguments that Hugging Face gives to each block (mask, rotary embeddings, positions) are read off a real
call, so there is no code for any family here. A walk may begin at a later position, with the keys and values
of the tokens before it lent by ``interp.mediation.prefix_cache``. Whether a walk gives the model's own logits
is measured before it is used; where it does not, the caller falls back to whole forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from interp.mediation.patches import Entry, Patch, Row, Rule, edited, entries_of, interchange, within
from interp.mediation.prefix_cache import Arguments, Prefix, Recording, arguments, recorded
from interp.models.hooks import Frame, Writer, evaluating, writing
from interp.models.model import Model
from interp.sites import Site

__all__ = ["PartialForward", "Patch", "Row", "Rule", "interchange", "within"]

STREAM = ("embed", "resid_pre", "resid_post")


@dataclass(eq=False)
class PartialForward:
    """Walk prompts of one length through the blocks.

    Attributes:
        model: whose blocks.
        ids: one of the prompts.
        base: streams, keys and values of all of them.
        steps: passes of one row through one block made so far, for the bill; the part of the row's tokens
            that was run counts.
    """

    model: Model
    ids: Sequence[int]
    base: Recording
    steps: float = 0.0
    _arguments: dict[int, Arguments] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, token_ids: Sequence[Sequence[int]], *, past: str = "kept") -> PartialForward:
        """Read the streams of every prompt.

        Args:
            model: whose blocks.
            token_ids: prompts of one length.
            past: ``"kept"`` to keep keys and values, so that walks may begin at any position; or ``"none"``.

        Raises:
            LookupError: keys and values cannot be kept.
        """
        return cls(model, token_ids[0], recorded(model, token_ids, past=past))

    def __call__(self, rows: Sequence[Row], patch: Patch, *, start: int = 0) -> Tensor:
        """The fp32 logits ``[row vocab]`` after the last token of each changed copy.

        Args:
            rows: patched copies of the prompts.
            patch: what is put in.
            start: the first position that is run; nothing may be changed before it.
        """
        return self.model.unembed(self.last(rows, patch, start=start))

    def last(self, rows: Sequence[Row], patch: Patch, *, start: int = 0) -> Tensor:
        """The stream after the last block, ``[row d_model]`` at the last position of each changed copy.

        Rows join the walk at the first layer they are changed at; plain copies join at its end.

        Args:
            rows: patched copies of the prompts.
            patch: what is put in.
            start: the first position that is run; nothing may be changed before it.
        """
        order = sorted(range(len(rows)), key=lambda at: rows[at].layer)
        with torch.no_grad():
            states = _Walk(self, [rows[at] for at in order], patch, start).run()
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return states[back.to(states.device)]

    def arguments(self, start: int) -> Arguments:
        """What the blocks are called with besides the stream, for passes from a position on."""
        if start not in self._arguments:
            tuples, past = self.base.tuples, self.base.past
            prefix = None
            if start:
                assert past is not None
                prefix = Prefix(past, start, torch.zeros(1, dtype=torch.long, device=self.model.device))
            self._arguments[start] = arguments(self.model, self.ids, tuples, prefix)
        return self._arguments[start]


class _Walk:
    """One walk of some rows, in order of the layers they join at."""

    def __init__(self, walker: PartialForward, rows: Sequence[Row], patch: Patch, start: int) -> None:
        self.walker, self.rows, self.patch, self.start = walker, rows, patch, start
        self.streams = walker.base.streams
        self.length = self.streams[0].shape[1]
        self.entries: dict[Site, list[Entry]] = entries_of(rows, self.length, start)
        self.examples = torch.tensor([row.example for row in rows], device=self.streams[0].device)
        self.arguments = walker.arguments(start)
        self.prefix = None
        if start:
            assert walker.base.past is not None
            self.prefix = Prefix(walker.base.past, start, self.examples)

    def run(self) -> Tensor:
        """The stream after the last block, ``[row d_model]`` at the last position."""
        model, depth = self.walker.model, self.walker.model.n_layers
        joins = [min(row.layer, depth) for row in self.rows]
        hidden, frame, width = self.streams[0][:0, self.start :], Frame(), self.length - self.start
        with ExitStack() as stack:
            stack.enter_context(evaluating(model.architecture.modules))
            stack.enter_context(writing(self._writers(), frame))
            for layer in range(joins[0], depth + 1):
                if new := joins.count(layer):
                    stream = self.streams[layer]  # where the block before left it: not one device for all
                    picked = self.examples[len(hidden) : len(hidden) + new].to(stream.device)
                    hidden = torch.cat([hidden.to(stream.device), stream[picked, self.start :]])
                hidden = self._at_boundary(layer, hidden)
                if layer < depth:
                    frame.begin(len(hidden), width)
                    hidden = self._block(layer, hidden)
                    self.walker.steps += len(hidden) * width / self.length
        return hidden[:, -1]

    def _at_boundary(self, layer: int, hidden: Tensor) -> Tensor:
        """Change the stream itself, between blocks."""
        sites = [Site("resid_pre", layer), Site("resid_post", layer - 1)] if layer else [Site("resid_pre", 0)]
        for site in [*([Site("embed")] if layer == 0 else []), *sites]:
            if site in self.entries:
                hidden = self._edited(site, hidden)
        return hidden

    def _edited(self, site: Site, current: Tensor) -> Tensor:
        values, entries = self.patch.values[site], self.entries[site]
        return edited(current, values, entries, rule=self.patch.rule, start=self.start)

    def _writers(self) -> list[Writer]:
        locate = self.walker.model.architecture.locate
        inside = [site for site in sorted(self.entries) if site.kind not in STREAM]
        return [Writer(site, locate(site, write=True), partial(self._edited, site)) for site in inside]

    def _block(self, layer: int, hidden: Tensor) -> Tensor:
        args, kwargs = self.arguments[layer]
        args = tuple(self._for_rows("", value, len(hidden)) for value in args)
        kwargs = {name: self._for_rows(name, value, len(hidden)) for name, value in kwargs.items()}
        found = self.walker.model.architecture.blocks[layer](hidden, *args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    def _for_rows(self, name: str, value: Any, rows: int) -> Any:
        """Lend the prefix to these rows, and repeat what is laid out row by row and does not broadcast.

        That is BLOOM's biases, ``[row*head 1 pos]``.
        """
        if isinstance(value, Prefix):
            return self.prefix
        return value.repeat(rows, 1, 1) if name == "alibi" and isinstance(value, Tensor) else value
