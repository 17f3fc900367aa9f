"""``interp lens``: which word each state of a prompt stands for, layer by layer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.cli.frame import Made, Work, command
from interp.cli.options import PromptSettings, flag
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.results import Result

__all__ = ["lens"]

EXAMPLES = (
    'interp lens "the capital of France is"',
    'interp lens --model smollm2 "The capital of France is" --layers 12-29',
)
DEFAULT = "logit"


def _kinds() -> Collection[str]:
    from interp.lenses import LENSES

    return LENSES


@dataclass(frozen=True, kw_only=True)
class LensSettings(PromptSettings):
    """Read which word each state of a prompt stands for: every layer, every token, as one picture."""

    prompt: str = flag("", "The prompt to read.", given="position")
    kind: str = flag(
        DEFAULT, "Which lens (`interp ls lenses`).", metavar="NAME", allowed=_kinds, shown=DEFAULT
    )
    layers: str = flag(
        "all",
        "Layers, counted from 0: 20   8,12   8-24:4   -1   50%   all",
        "--layers",
        "--layer",
        metavar="LAYERS",
        allowed="20, 8,12, 8-24:4, -1, 50% or all",
        many=True,
    )

    def check(self) -> None:
        """Refuse a call without a prompt."""
        super().check()
        if not self.prompt.strip():
            raise ConfigError('no prompt; give one, such as "the capital of France is".')

    def about(self) -> str:
        """The kind of lens."""
        return self.kind


@command(LensSettings, examples=EXAMPLES)
def lens(work: Work, settings: LensSettings) -> Made:
    """Read one prompt under a lens."""
    return Made(_view(work, settings))


def _view(work: Work, settings: LensSettings) -> Result:
    from interp.lenses import view

    return view(
        work.certified(), settings.prompt, lens=settings.kind, layers=settings.layers, seed=settings.seed
    )
