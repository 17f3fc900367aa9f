"""The table of replacements: what a mediator's value becomes, and where the value comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.mediation.walk import Rule, interchange

__all__ = ["REPLACEMENTS", "Replacement"]

Source = Callable[[Tensor, torch.Generator], Tensor]
"""From the other prompt's ``[example pos ...]`` values to the replacement's."""


def _same(values: Tensor, generator: torch.Generator) -> Tensor:
    return values


def _zero(values: Tensor, generator: torch.Generator) -> Tensor:
    return torch.zeros_like(values)


def _mean(values: Tensor, generator: torch.Generator) -> Tensor:
    """Average over the examples, position by position."""
    return values.mean(dim=0, keepdim=True).expand_as(values)


def _pooled_mean(values: Tensor, generator: torch.Generator) -> Tensor:
    """Average over examples and positions."""
    return values.mean(dim=(0, 1), keepdim=True).expand_as(values)


def _resample(values: Tensor, generator: torch.Generator) -> Tensor:
    """Take another example's value: a random cycle, so that none keeps its own."""
    order = torch.randperm(len(values), generator=generator)
    following = torch.empty_like(order)
    following[order] = order.roll(-1)
    return values[following.to(values.device)]


@dataclass(frozen=True)
class Replacement:
    """Describe a replacement.

    Attributes:
        name: what users type (``--replacement``).
        description: one line.
        source: gives the values that are put in.
        rule: what becomes of the current value.
        paired: whether the value comes from the pair's other prompt, so that both directions mean something.
        off_distribution: whether the model never sees such values: a warning.
    """

    name: str
    description: str
    source: Source
    rule: Rule = interchange
    paired: bool = False
    off_distribution: bool = False


_ROWS = (
    Replacement("interchange", "the value of the pair's other prompt", _same, paired=True),
    Replacement("zero", "zero", _zero, off_distribution=True),
    Replacement("mean", "the other prompts' mean at each position", _mean),
    Replacement("pooled-mean", "the other prompts' mean over all positions", _pooled_mean),
    Replacement("resample", "the value of another example's other prompt", _resample),
)

REPLACEMENTS: dict[str, Replacement] = {row.name: row for row in _ROWS}
