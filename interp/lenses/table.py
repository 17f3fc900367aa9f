"""The table of lenses: what each reads, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.lenses.base import Lens
    from interp.models.model import Model

__all__ = ["LENSES", "LensRow", "make"]


@dataclass(frozen=True)
class LensRow:
    """A kind of lens.

    Attributes:
        name: what ``--kind`` takes.
        description: what it makes of a state, in a line.
        fitted: what it is fitted on; "" for a lens that needs nothing but the model.
        maker: ``module:name`` of what makes it from (model, layers, texts, seed).
        caution: what it does not show.
    """

    name: str
    description: str
    fitted: str
    maker: str
    caution: str = ""

    def load(self) -> Callable[..., Lens]:
        """What makes the lens, imported when it is asked for."""
        module, _, name = self.maker.partition(":")
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found  # type: ignore[return-value]


LENSES: dict[str, LensRow] = {
    row.name: row
    for row in (
        LensRow(
            "logit",
            "the final norm and head, on the state as it is",
            "",
            "interp.lenses.logit:LogitLens.of",
            "The logit lens reads with the model's own last step, which early layers are not made for: a "
            "word that it does not show may be there all the same, and one that it shows need not be used.",
        ),
        LensRow(
            "translator",
            "a linear map to the model's own final state, then the head",
            "text that the model itself writes, and given texts; no labels",
            "interp.lenses.translator:TranslatorLens.of",
        ),
    )
}


def make(
    kind: str,
    model: Model,
    *,
    layers: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    seed: int = 0,
) -> Lens:
    """Make a lens of a kind of ``LENSES``.

    Args:
        kind: name of a row.
        model: whose states it will read.
        layers: the blocks it shall read; None for all.
        texts: what a lens that is fitted learns from; None leaves the choice to it.
        seed: of every draw.

    Raises:
        ConfigError: no row of that name.
    """
    if kind not in LENSES:
        raise ConfigError(f"lens {kind!r} is not known; there are: {', '.join(LENSES)}.")
    return LENSES[kind].load()(model, layers, texts, seed)
