"""What is put in where: patched copies of prompts as values, and the edit of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp.mediation.mediators import Mediator, Place
from interp.mediation.subspaces import Subspace
from interp.sites import Site

__all__ = ["Entry", "Patch", "Row", "Rule", "edited", "entries_of", "interchange", "within"]

Rule = Callable[[Tensor, Tensor], Tensor]
"""From the current values and the source's values ``[entry ...]`` to the new ones."""


def interchange(current: Tensor, source: Tensor) -> Tensor:
    """Take the source's values."""
    return source


@dataclass(frozen=True)
class Row:
    """What is replaced in one copy of a prompt.

    Attributes:
        example: which prompt.
        mediators: what is replaced in it, together; none for a plain copy.
    """

    example: int
    mediators: tuple[Mediator, ...] = ()

    @cached_property
    def layer(self) -> int:
        """The first block that differs from the cached stream."""
        return min((entry_layer(m) for m in self.mediators), default=10**9)

    def first(self, length: int, since: int = 0) -> int:
        """The first position that differs from the unpatched prompt; the last one for a plain copy.

        Args:
            length: tokens of the prompt.
            since: the values that are put in are the prompt's own before this position.
        """
        found = (since if m.position is None else max(since, m.position % length) for m in self.mediators)
        return min([*found, length - 1])


def entry_layer(mediator: Mediator) -> int:
    """The first block that has to be run once the mediator is replaced."""
    layer = mediator.site.layer or 0
    return layer + 1 if mediator.site.kind == "resid_post" else layer


@dataclass(frozen=True, eq=False)
class Patch:
    """Replacement values and how they are put in.

    Attributes:
        values: carrier site -> ``[example pos ...]``, the source's value for each prompt.
        rule: what becomes of the current value.
    """

    values: Mapping[Site, Tensor]
    rule: Rule = interchange


Entry = tuple[int, int, int | None, Place]
"""Row, example, position counted from the first one that is run (None: all), what of the site."""


def entries_of(rows: Sequence[Row], length: int, start: int = 0) -> dict[Site, list[Entry]]:
    """Collect per site what is written, leaving out the positions that are not run.

    Args:
        rows: the patched copies.
        length: tokens of a prompt.
        start: the first position that is run.
    """
    found: dict[Site, list[Entry]] = {}
    for at, row in enumerate(rows):
        for mediator in row.mediators:
            position = mediator.position
            if position is not None:
                position = position % length - start
                if position < 0:
                    continue
            for place in mediator.places:
                found.setdefault(place.carrier, []).append((at, row.example, position, place))
    return found


def edited(
    current: Tensor, values: Tensor, entries: Sequence[Entry], *, rule: Rule, start: int = 0
) -> Tensor:
    """Replace what the entries name, in a copy.

    Args:
        current: ``[row pos ...]``, from ``start`` on.
        values: ``[example pos ...]``, the source's, from position 0 on.
        entries: what to replace.
        rule: from current and source values to new ones.
        start: the position of the first column of ``current``.
    """
    result, device = current.clone(), current.device
    for (every, units, subspace, whole), group in _alike(entries).items():
        row, example, position = (torch.tensor([e[at] or 0 for e in group], device=device) for at in range(3))
        here: Any = (row,) if every else (row, position)
        there: Any = (example, slice(start, None)) if every else (example, position + start)
        if not (whole or units):  # the head or neuron is the axis after the position
            part = torch.tensor([entry[3].index for entry in group], device=device)
            here = (row, slice(None), part) if every else (*here, part)
            there = (*there, part)
        there = tuple(one.to(values.device) if isinstance(one, Tensor) else one for one in there)
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
