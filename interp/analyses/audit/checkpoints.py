"""How far a teaching came: the adapter and its optimizer on disk, so that a run that was stopped goes on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from interp.results import write_atomically

__all__ = ["EVERY", "Checkpoints"]

EVERY = 10
"""Steps between two checkpoints."""
STEP, STATES = "step", ("exp_avg", "exp_avg_sq")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoints:
    """The file in which a training is kept while it runs; what goes on from it ends as if never stopped.

    Attributes:
        path: of the file; one training's alone.
        every: steps between two writes.
    """

    path: Path
    every: int = EVERY

    def due(self, step: int) -> bool:
        """Whether to write once so many steps were made."""
        return step % self.every == 0

    def written(self, step: int, learned: Sequence[Tensor], optimizer: torch.optim.AdamW) -> None:
        """Write what was learned in so many steps, all or nothing.

        Args:
            step: steps made.
            learned: what is trained, in its order.
            optimizer: of it.
        """
        tensors = {STEP: torch.tensor(step)}
        for at, one in enumerate(learned):
            tensors[f"{at}"] = one.detach().cpu().contiguous()
            tensors |= {f"{at}.{name}": optimizer.state[one][name].cpu().contiguous() for name in STATES}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, save(tensors))

    def restored(self, learned: Sequence[Tensor], optimizer: torch.optim.AdamW) -> int:
        """Put what was learned back, and give the steps it took; 0 where nothing fits.

        Args:
            learned: what is trained, in its order; it is overwritten.
            optimizer: of it; likewise.
        """
        if not self.path.is_file():
            return 0
        try:
            found = load_file(self.path)
            kept = [
                (found[f"{at}"], *(found[f"{at}.{name}"] for name in STATES)) for at in range(len(learned))
            ]
        except (OSError, KeyError, SafetensorError):
            kept, found = [], {}
        if not kept or any(one.shape != own.shape for (one, *_), own in zip(kept, learned, strict=True)):
            _log.warning("%s does not fit this training, which begins anew", self.path)
            return 0
        step = found[STEP]
        for own, (value, *moments) in zip(learned, kept, strict=True):
            own.data.copy_(value)
            optimizer.state[own] = {
                "step": step.float(),
                **{name: one.to(own.device) for name, one in zip(STATES, moments, strict=True)},
            }
        _log.info("teaching goes on after step %d", int(step))
        return int(step)
