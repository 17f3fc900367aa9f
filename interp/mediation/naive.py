"""One whole forward pass per row, through ``Model.run``: the reference that every faster way is held to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.mediation.edits import Patch, Row, within
from interp.mediation.mediators import Place
from interp.models.interventions import Intervention
from interp.models.model import Model

__all__ = ["naive_logits"]


def naive_logits(
    model: Model, token_ids: Sequence[Sequence[int]], rows: Sequence[Row], patch: Patch
) -> Tensor:
    """Give the fp32 logits ``[row vocab]`` after the last token of each changed copy.

    Args:
        model: what is run.
        token_ids: the prompts, of any lengths; values beyond a prompt's end are not read.
        rows: what is replaced in which copy.
        patch: the replacement values and the rule.
    """
    found: list[Tensor] = []
    for row in rows:
        prompt = list(token_ids[row.example])
        edits = [
            _edit(place, None if m.position is None else m.position % len(prompt), row.example, patch)
            for m in row.mediators
            for place in m.places
        ]
        logits = model.run([prompt], interventions=edits or None).logits
        assert logits is not None
        found.append(logits[0].float())
    return torch.stack(found)


def _edit(place: Place, at: int | None, example: int, patch: Patch) -> Intervention:
    """Write a place of the carrier; the function sees ``[pos ...]`` of the one prompt."""
    source = patch.values[place.carrier][example]
    wanted = source if at is None else source[at][None]

    def change(current: Tensor) -> Tensor:
        given = wanted[: len(current)].to(current.device, current.dtype)
        if place.index is None:
            return within(place.subspace, current, given, patch.rule)
        result, index = current.clone(), place.index
        part = list(index) if isinstance(index, tuple) else index
        result[:, part] = within(place.subspace, current[:, part], given[:, part], patch.rule)
        return result

    return Intervention(place.carrier, change, "all" if at is None else at)
