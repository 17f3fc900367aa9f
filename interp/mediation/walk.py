"""Run blocks one by one from a cached residual stream: rows that are changed at layer l start at layer l.

The arguments that Hugging Face gives to each block (mask, rotary embeddings, positions) are read off one real
forward pass, so there is no code for any family here. Whether a walk gives the model's own logits is measured
before it is used; where it does not, the caller falls back to whole forward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.mediation.mediators import Mediator, Place
from interp.mediation.subspaces import Subspace
from interp.models.hooks import Frame, Writer, evaluating, writing
from interp.models.model import Model
from interp.sites import Site

__all__ = ["Patch", "Row", "Rule", "Walker", "interchange", "within"]

STREAM = ("embed", "resid_pre", "resid_post")
Rule = Callable[[Tensor, Tensor], Tensor]
"""From the current values and the source's values ``[entry ...]`` to the new ones."""


def interchange(current: Tensor, source: Tensor) -> Tensor:
    """Take the source's values."""
    return source


@dataclass(frozen=True)
class Row:
    """Say what is replaced in one copy of a prompt.

    Attributes:
        example: which prompt.
        mediators: what is replaced in it, together; none for a plain copy.
    """

    example: int
    mediators: tuple[Mediator, ...] = ()

    @property
    def layer(self) -> int:
        """Give the first block that differs from the cached stream."""
        return min((entry_layer(m) for m in self.mediators), default=10**9)


def entry_layer(mediator: Mediator) -> int:
    """Give the first block that has to be run once the mediator is replaced."""
    layer = mediator.site.layer or 0
    return layer + 1 if mediator.site.kind == "resid_post" else layer


@dataclass(frozen=True, eq=False)
class Patch:
    """Hold replacement values and how they are put in.

    Attributes:
        values: carrier site -> ``[example pos ...]``, the source's value for each prompt.
        rule: what becomes of the current value.
    """

    values: Mapping[Site, Tensor]
    rule: Rule = interchange


Entry = tuple[int, int, int | None, Place]
"""Row, example, position (None: all), what of the site."""


@dataclass(eq=False)
class Walker:
    """Walk prompts of one length through the blocks.

    Attributes:
        model: whose blocks.
        streams: ``[example pos d_model]`` before each block, and after the last.
        arguments: per block the positional and keyword arguments besides the stream.
        steps: block passes of one row made so far, for the bill.
    """

    model: Model
    streams: list[Tensor]
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    steps: int = 0
    _entries: dict[Site, list[Entry]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, token_ids: Sequence[Sequence[int]]) -> Walker:
        """Read the streams of every prompt, and the arguments of every block for one of them.

        Args:
            model: whose blocks.
            token_ids: prompts of one length.
        """
        sites = [f"resid_pre.{layer}" for layer in range(model.n_layers)]
        sites.append(f"resid_post.{model.n_layers - 1}")
        read = model.capture([list(ids) for ids in token_ids], sites, "all")
        return cls(model, [read[site] for site in sites], _arguments(model, token_ids[0]))

    def __call__(self, rows: Sequence[Row], patch: Patch) -> Tensor:
        """Give the fp32 logits ``[row vocab]`` after the last token of each changed copy.

        Rows join the walk at the first layer they are changed at; plain copies join at its end.
        """
        last = self.model.n_layers
        order = sorted(range(len(rows)), key=lambda at: rows[at].layer)
        starts = [min(rows[at].layer, last) for at in order]
        self._entries = _entries([rows[at] for at in order])
        device = self.streams[0].device
        hidden, frame = self.streams[0][:0], Frame()
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluating(self.model.anatomy.modules))
            stack.enter_context(writing(self._writers(patch), frame))
            for layer in range(starts[0], last + 1):
                new = [rows[at].example for at, start in zip(order, starts, strict=True) if start == layer]
                if new:
                    hidden = torch.cat([hidden, self.streams[layer][torch.tensor(new, device=device)]])
                hidden = self._at_boundary(layer, hidden, patch)
                if layer < last:
                    frame.begin(len(hidden), hidden.shape[1])
                    hidden = self._block(layer, hidden)
                    self.steps += len(hidden)
            logits = self.model.unembed(hidden[:, -1])
        back = torch.empty(len(order), dtype=torch.long, device=device)
        back[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
        return logits[back]

    def _at_boundary(self, layer: int, hidden: Tensor, patch: Patch) -> Tensor:
        """Change the stream itself, between blocks."""
        sites = [Site("resid_pre", layer), Site("resid_post", layer - 1)] if layer else [Site("resid_pre", 0)]
        for site in [*([Site("embed")] if layer == 0 else []), *sites]:
            if site in self._entries:
                hidden = edited(hidden, patch.values[site], self._entries[site], patch.rule)
        return hidden

    def _writers(self, patch: Patch) -> list[Writer]:
        locate = self.model.anatomy.locate

        def writer(site: Site) -> Writer:
            def edit(current: Tensor) -> Tensor:
                return edited(current, patch.values[site], self._entries[site], patch.rule)

            return Writer(site, locate(site, write=True), edit)

        return [writer(site) for site in sorted(self._entries) if site.kind not in STREAM]

    def _block(self, layer: int, hidden: Tensor) -> Tensor:
        args, kwargs = self.arguments[layer]
        kwargs = {name: _for_rows(name, value, len(hidden)) for name, value in kwargs.items()}
        found = self.model.anatomy.blocks[layer](hidden, *args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]


def _for_rows(name: str, value: Any, rows: int) -> Any:
    """Repeat what is laid out row by row and does not broadcast: BLOOM's biases, ``[row*head 1 pos]``."""
    return value.repeat(rows, 1, 1) if name == "alibi" else value


def _entries(rows: Sequence[Row]) -> dict[Site, list[Entry]]:
    found: dict[Site, list[Entry]] = {}
    for at, row in enumerate(rows):
        for mediator in row.mediators:
            for place in mediator.places:
                entry = (at, row.example, mediator.position, place)
                found.setdefault(place.carrier, []).append(entry)
    return found


def edited(current: Tensor, values: Tensor, entries: Sequence[Entry], rule: Rule) -> Tensor:
    """Replace what the entries name, in a copy.

    Args:
        current: ``[row pos ...]``.
        values: ``[example pos ...]``, the source's.
        entries: what to replace.
        rule: from current and source values to new ones.
    """
    result, device = current.clone(), current.device
    for (every, units, subspace, whole), group in _alike(entries).items():
        row, example, position = (torch.tensor([e[at] or 0 for e in group], device=device) for at in range(3))
        here: Any = (row,) if every else (row, position)
        there: Any = (example,) if every else (example, position)
        if not (whole or units):  # the head or neuron is the axis after the position
            part = torch.tensor([entry[3].index for entry in group], device=device)
            here = (row, slice(None), part) if every else (*here, part)
            there = (example, slice(None), part) if every else (*there, part)
        source, old = values[there].to(device=device, dtype=result.dtype), result[here]
        if units:
            old[..., list(units)] = rule(old[..., list(units)], source[..., list(units)])
            result[here] = old
        else:
            result[here] = within(subspace, old, source, rule)
    return result


def _alike(entries: Sequence[Entry]) -> dict[Any, list[Entry]]:
    """Group entries that can be replaced in one step."""
    kinds: dict[Any, list[Entry]] = {}
    for entry in entries:
        place = entry[3]
        units = place.index if isinstance(place.index, tuple) else ()
        kinds.setdefault((entry[2] is None, units, place.subspace, place.index is None), []).append(entry)
    return kinds


def within(subspace: Subspace | None, current: Tensor, source: Tensor, rule: Rule) -> Tensor:
    """Apply a rule to the coordinates in a subspace, leaving the rest; to everything where there is none.

    Args:
        subspace: of the last axis.
        current: ``[... width]``.
        source: ``[... width]``, likewise.
        rule: from current and source coordinates ``[... dim]`` to new ones.
    """
    if subspace is None:
        return rule(current, source)
    basis = subspace.basis.to(current.device, torch.promote_types(current.dtype, torch.float32))
    old, new = current.to(basis.dtype) @ basis.T, source.to(basis.dtype) @ basis.T
    return current + ((rule(old, new) - old) @ basis).to(current.dtype)


def _arguments(model: Model, ids: Sequence[int]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Read what each block is called with, besides the stream, in a forward pass of one prompt."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        found.append((args[1:] if args else (), rest))

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in model.anatomy.blocks]
    try:
        with torch.no_grad(), evaluating(model.anatomy.modules):
            model.hf(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found
