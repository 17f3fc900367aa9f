"""Lenses: readers of the residual stream that say which word a state stands for, and how sure they are.

lens = lenses.make("translator", model)        # a kind of LENSES, or the file of a published lens
lens.logits(states, layer=20)                  # [*batch vocab]
lenses.view(model, "the capital of France is", lens=lens)
lenses.curves(model, tasks.labelled("fact-relation"), kinds=("logit", "translator"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.lenses.base import Lens as Lens
    from interp.lenses.files import TunedLens as TunedLens
    from interp.lenses.files import opened as opened
    from interp.lenses.files import push_to_hub as push_to_hub
    from interp.lenses.files import saved as saved
    from interp.lenses.jacobian import JacobianLens as JacobianLens
    from interp.lenses.logit import LogitLens as LogitLens
    from interp.lenses.many_prompts import LensCurves as LensCurves
    from interp.lenses.many_prompts import curves as curves
    from interp.lenses.one_prompt import LensView as LensView
    from interp.lenses.one_prompt import view as view
    from interp.lenses.patchscope import PatchscopeLens as PatchscopeLens
    from interp.lenses.table import LENSES as LENSES
    from interp.lenses.table import LensRow as LensRow
    from interp.lenses.table import make as make
    from interp.lenses.translator import TranslatorLens as TranslatorLens

__getattr__, __dir__, __all__ = exports(__name__)
