"""Evaluation awareness: do states tell an evaluation from a user, on sources that nothing was fitted on?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.awareness.folds import across_sources as across_sources
    from interp.analyses.awareness.result import AwarenessResult as AwarenessResult
    from interp.analyses.awareness.run import awareness as awareness
    from interp.analyses.awareness.run import bundled as bundled

__getattr__, __dir__, __all__ = exports(__name__)
