"""The table of lenses: what each reads, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import ConfigError
from interp.lenses.files import SUFFIXES, opened

if TYPE_CHECKING:
    from interp.lenses.base import Lens
    from interp.models.model import Model

__all__ = ["LENSES", "LensRow", "is_file", "make"]


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
            "word that it does not show may be there all the same (--kind translator reads earlier), and one "
            "that it shows need not be used.",
        ),
        LensRow(
            "translator",
            "a linear map to the model's own final state, then the head",
            "text that the model itself writes, and given texts; no labels",
            "interp.lenses.translator:TranslatorLens.of",
            "The translator is fitted: what it reads is what follows, in most texts, a state like this one, "
            "which is no proof that the later blocks take it from there.",
        ),
        LensRow(
            "jacobian",
            "the blocks that follow taken as their mean Jacobian, then the final norm and head",
            "text that the model itself writes; no labels",
            "interp.lenses.jacobian_cache:jacobian_lens",
            "The Jacobian lens sums over later tokens too: a word that it shows may be one that comes later.",
        ),
        LensRow(
            "patchscope",
            "the state put into a prompt that repeats words; what is said next there",
            "",
            "interp.lenses.patchscope:PatchscopeLens.of",
            "A patchscope reads with the model's own later blocks: it says what they make of the state in "
            "another prompt, not that the state holds the word already. Its target prompt answers even where "
            "the state says nothing.",
        ),
    )
}


def is_file(kind: str) -> bool:
    """Whether the name of a lens is that of a file or folder; a folder called ``logit`` hides no row."""
    return kind not in LENSES and (kind.endswith(SUFFIXES) or "/" in kind or Path(kind).is_dir())


def make(
    kind: str,
    model: Model,
    *,
    layers: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    seed: int = 0,
) -> Lens:
    """Make a lens of a kind of ``LENSES``, or open one that was published.

    Args:
        kind: name of a row, or a file or folder (see :func:`interp.lenses.opened`).
        model: whose states it will read.
        layers: the blocks it shall read; None for all.
        texts: what a lens that is fitted learns from; None leaves the choice to it.
        seed: of every draw.

    Raises:
        ConfigError: no row of that name.
        ArtifactError: a file that holds no lens of this model.
    """
    if is_file(kind):
        return opened(kind, model, layers)
    if kind not in LENSES:
        raise ConfigError(
            f"lens {kind!r} is not known; there are: {', '.join(LENSES)}; or give a published lens's file."
        )
    return LENSES[kind].load()(model, layers, texts, seed)
