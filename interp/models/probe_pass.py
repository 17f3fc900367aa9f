"""One pass over ten tokens, on which a model is examined at load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from interp.models.architecture import Architecture, Location
from interp.models.forward import forward
from interp.models.hooks import Frame, Stop, Writer, eager_attention, evaluating, reading, writing
from interp.models.positions import Batch
from interp.sites import Site

__all__ = ["Counted", "probe_batch", "read_once"]

_LENGTH = 5


def probe_batch(architecture: Architecture) -> Batch:
    """Make two rows of tokens that differ in the last one only, without padding."""
    vocab = architecture.vocab_size
    length = min(_LENGTH, architecture.max_length or _LENGTH)
    row = [(7 + 11 * position) % vocab for position in range(length)]
    other = [*row[:-1], (row[-1] + 1) % vocab]
    device = architecture.device
    ids = torch.tensor([row, other], device=device)
    return Batch((0, 1), (length, length), ids, torch.ones_like(ids), (0, 0))


def read_once(
    architecture: Architecture,
    places: Mapping[Site, Location],
    *,
    writers: Sequence[Writer] = (),
    eager: bool = False,
    counted: Counted | None = None,
) -> tuple[dict[Site, Tensor], Tensor]:
    """Run the probe batch once; return what was read and the last logits (none under eager attention)."""
    batch = probe_batch(architecture)
    frame = Frame(batch=2, width=batch.width, stop=eager, found=counted if counted is not None else {})
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(architecture.modules))
        if eager:
            stack.enter_context(eager_attention(architecture.modules))
        stack.enter_context(writing(writers, frame))
        stack.enter_context(reading(places, frame))
        try:
            logits = forward(architecture, batch, "last").logits[:, -1:]
        except Stop:
            logits = torch.zeros(0)
    return dict(frame.found), logits


class Counted(dict[Site, Tensor]):
    """Keep what is read, and count how often."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        super().__init__()
        self.fired: Counter[Site] = Counter()

    def __setitem__(self, site: Site, tensor: Tensor) -> None:
        """Store what was read last, and count it."""
        self.fired[site] += 1
        super().__setitem__(site, tensor)
