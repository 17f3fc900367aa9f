"""Concept surgery: a concept is read in a state, exchanged, written back; then the model is watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.surgery.arms import ARMS as ARMS
    from interp.analyses.surgery.one_prompt import Edited as Edited
    from interp.analyses.surgery.one_prompt import replace_concepts as replace_concepts
    from interp.analyses.surgery.protocol import surgery_under as surgery_under
    from interp.analyses.surgery.result import Surgery as Surgery
    from interp.analyses.surgery.run import surgery as surgery
    from interp.analyses.surgery.swaps import Swap as Swap
    from interp.analyses.surgery.swaps import swaps_of as swaps_of
    from interp.analyses.surgery.writers import ProbeWriter as ProbeWriter
    from interp.analyses.surgery.writers import TranslatorWriter as TranslatorWriter

__getattr__, __dir__, __all__ = exports(__name__)
