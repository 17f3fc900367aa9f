"""The verdict in plain words: is what the probe reads used by the model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from interp.analyses.causal.edits import EDITS

if TYPE_CHECKING:
    from interp.analyses.causal.result import Effect

__all__ = ["LEVEL", "NEEDED", "verdict"]

LEVEL = 0.05
NEEDED = ("ablate", "patch")
DONE = {
    "preference": "lowers the right word's lead over another label's word by",
    "divergence": "moves the distribution of the next token by",
}
"""Measure -> what an edit does to it."""


def verdict(effects: Sequence[Effect], named: str, readable: bool, *, measure: str) -> str:
    """Say whether the model uses the directions.

    Args:
        effects: of every edit.
        named: the directions, such as "this direction".
        readable: whether the probe was told from guessing.
        measure: a key of ``DONE``.
    """
    by_name = {effect.edit: effect for effect in effects}
    it = "them" if named.startswith("these") else "it"
    missing = [name for name in NEEDED if not by_name[name].stands_out]
    if not missing:
        measured = _measured([by_name[name] for name in NEEDED], (it, it), measure)
        aside = "" if readable else ", though the label was not shown to be readable from it"
        return f"the model uses {named}{aside}: {measured}"
    measured = _measured([by_name[name] for name in missing], (named, it), measure)
    start = "readable, but not shown to be used" if readable else "neither shown to be readable nor used"
    return f"{start}: {measured}{_alone(by_name, it)}"


def _measured(effects: Sequence[Effect], names: tuple[str, str], measure: str) -> str:
    """List effects; what is changed has a name where it is mentioned first, and one afterwards."""
    (first, *rest), (name, it) = effects, names
    return ", ".join(
        [
            f"{EDITS[first.edit].words} {name} {DONE[measure]} {_number(first)}",
            *(f"{EDITS[effect.edit].words} {it} by {_number(effect)}" for effect in rest),
        ]
    )


def _number(effect: Effect) -> str:
    own = effect.estimate
    interval = f"[{own.interval.low:.3g}, {own.interval.high:.3g}]"
    return f"{own.value:.3g} nats {interval} (random directions moved as far: {effect.random:.3g})"


def _alone(effects: Mapping[str, Effect], it: str) -> str:
    """Name what does stand out where not everything that is needed does."""
    shown = [f"{EDITS[name].words} {it}" for name, effect in effects.items() if effect.stands_out]
    if not shown:
        return ""
    does = "does" if len(shown) == 1 else "do"
    return f"; {' and '.join(shown)} {does} stand out, which alone does not show use"
