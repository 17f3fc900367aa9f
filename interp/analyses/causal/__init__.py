"""Does a model use what a probe reads? The probe's directions are changed, and the model's output is watched.

At the token and layer that were read, the state is moved along the probe's directions alone: they are erased,
exchanged between prompts, and pushed by several doses. Random directions of the same number stand beside
them, moved by the same length in every prompt. A direction is called used where both erasing and exchanging
it changes the output more than that does (Belinkov 2022, section 4; Elazar et al. 2021, arXiv 2006.00995).
"""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.causal.directions import check_directions as check_directions
    from interp.analyses.causal.measures import EDITS as EDITS
    from interp.analyses.causal.result import CausalUse as CausalUse
    from interp.analyses.causal.result import Dose as Dose
    from interp.analyses.causal.result import Effect as Effect
    from interp.analyses.causal.run import causal_use as causal_use
    from interp.analyses.causal.run import most_passes as most_passes

__getattr__, __dir__, __all__ = exports(__name__)
