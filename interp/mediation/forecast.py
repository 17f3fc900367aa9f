"""What a search would cost, before anything is run: the numbers behind ``interp patch --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Forecast"]


@dataclass(frozen=True)
class Forecast:
    """What a search would run.

    Attributes:
        search: a key of ``SEARCHES``.
        pairs: number of pairs.
        mediators: number of mediators.
        forwards: forward passes of one prompt through the whole model; parts of a prompt or of the layers
            count as such, a backward pass as one. Unpatched prompts and checks come on top.
        naive: the same if each mediator were replaced in each pair and direction by a whole pass of its own.
        walks: passes through the blocks, each of many patched copies; 0 where nothing is replaced exactly.
        skipped: cells whose effect is exactly zero and that are not run.
        exact: whether ``forwards`` is what the bill will say; where what is run depends on what is found, it
            is an estimate.
        memory: bytes that an exhaustive search holds besides the weights, roughly: the unpatched streams,
            keys and values, what is put in, and the last states and logits of some copies at a time, whatever
            the number of mediators; 0 where unknown.
    """

    search: str
    pairs: int
    mediators: int
    forwards: float
    naive: int
    walks: int = 0
    skipped: int = 0
    exact: bool = True
    memory: int = 0

    def __str__(self) -> str:
        """Say it in one line."""
        about = "" if self.exact else "about "
        asked = f"{self.search}: {self.pairs} pairs, {self.mediators} mediators"
        cost = f"{about}{self.forwards:,.1f} forward passes of one prompt"
        beside = f"{self.naive:,} if every mediator had whole passes of its own"
        if not self.walks:
            return f"{asked}, {cost} ({beside})"
        held = f"about {self.memory / 1e9:,.2f} GB besides the weights"
        zero = f"{self.skipped:,} cells known to be zero"
        return f"{asked}, {cost} in {self.walks} walks, {zero} ({beside}), {held}"
