"""Lenses: readers of the residual stream that say which word a state stands for, and how sure they are.

lens = lenses.make("logit", model)
lens.logits(states, layer=20)                  # [*batch vocab]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.lenses.base import Lens as Lens
    from interp.lenses.logit import LogitLens as LogitLens
    from interp.lenses.one_prompt import LensView as LensView
    from interp.lenses.one_prompt import view as view
    from interp.lenses.table import LENSES as LENSES
    from interp.lenses.table import LensRow as LensRow
    from interp.lenses.table import make as make
    from interp.lenses.translator import TranslatorLens as TranslatorLens

__getattr__, __dir__, __all__ = exports(__name__)
