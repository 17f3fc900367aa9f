"""One pass over texts: the states of several layers, a bounded number at a time, and their moments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import DataError
from interp.lenses.texts import Ids
from interp.models.model import Model
from interp.models.readout import Readout
from probes.translation import Moments

__all__ = ["FIRST", "Gathered", "States", "gathered", "states_of"]

FIRST = 1
"""The first position that is learned from: states of a text's first token are of another kind (sinks)."""
BYTES = 1 << 28
"""Of the states that are held at once."""


@dataclass(frozen=True, eq=False)
class States:
    """States of some texts at every position but the first.

    Attributes:
        layers: per layer ``[example d_model]``.
        texts: of which text each is.
    """

    layers: Mapping[int, Float[Tensor, "example d_model"]]
    texts: Int[Tensor, " example"]

    def thinned(self, start: int, step: int) -> States:
        """Every so many of them."""
        return States(
            {layer: one[start::step].clone() for layer, one in self.layers.items()}, self.texts[start::step]
        )


@dataclass(frozen=True, eq=False)
class Gathered:
    """What one pass over texts leaves.

    Attributes:
        moments: per layer, of its states with the final states.
        kept: some of the states, evenly spread, the last block's too; empty where none were asked for.
    """

    moments: Mapping[int, Moments]
    kept: tuple[States, ...]


def gathered(
    model: Model, layers: Sequence[int], texts: Sequence[Ids], readout: Readout, *, keep: int = 0
) -> Gathered:
    """The moments of each layer's states with the final states, from one pass over texts.

    Args:
        model: whose states.
        layers: which blocks.
        texts: their ids; states of first tokens are left out.
        readout: of the model.
        keep: about how many states to keep.

    Raises:
        DataError: texts of one token alone.
    """
    last = model.n_layers - 1
    home = model.device if model.device.type == "cuda" else torch.device("cpu")
    moments = {layer: Moments(model.d_model, model.d_model, device=home) for layer in layers}
    total = sum(max(0, len(ids) - FIRST) for ids in texts)
    if not total:
        raise DataError("every text for a lens has one token alone; give longer ones.")
    step, seen, kept = max(1, -(-total // max(1, keep))), 0, []
    for states in states_of(model, [*layers, last], texts):
        targets = readout.normed(states.layers[last].to(readout.architecture.device, readout.dtype))
        for layer, one in moments.items():
            one.add(states.layers[layer], targets)
        if keep:
            kept.append(states.thinned(-seen % step, step))
        seen += len(targets)
    return Gathered(moments, tuple(kept))


@torch.no_grad()
def states_of(
    model: Model, layers: Sequence[int], texts: Sequence[Ids], *, batch_size: str | int = "auto"
) -> Iterator[States]:
    """States after blocks at every position of texts but the first, a bounded number at a time.

    Args:
        model: whose states.
        layers: which blocks; the pass ends after the deepest.
        texts: their ids.
        batch_size: texts per pass; "auto" chooses.
    """
    sites = {layer: f"resid_post.{layer}" for layer in dict.fromkeys(layers)}
    order = sorted(
        (row for row in range(len(texts)) if len(texts[row]) > FIRST), key=lambda row: len(texts[row])
    )
    each = model.d_model * len(sites) * max(4, torch.finfo(model.dtype).bits // 8)
    while order:
        step = max(1, BYTES // (each * len(texts[order[-1]])))
        part, order = order[-step:], order[:-step]
        found = model.capture(
            [list(texts[row]) for row in part], list(sites.values()), "all", batch_size=batch_size
        )
        inside = torch.zeros(len(part), len(texts[part[-1]]), dtype=torch.bool)
        for place, row in enumerate(part):
            inside[place, FIRST : len(texts[row])] = True
        numbers = torch.tensor(part)[:, None].expand(inside.shape)[inside]
        yield States(
            {layer: found[site][inside.to(found[site].device)] for layer, site in sites.items()}, numbers
        )
