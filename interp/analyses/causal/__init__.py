"""Does a model use what a probe reads? The probe's directions are changed, and the model's output is watched.

At the token and layer that were read, the state is moved along the probe's directions alone: they are erased,
exchanged between prompts, and pushed by several doses. Random directions of the same number stand beside
them, moved by the same length in every prompt. A direction is called used where both erasing and exchanging
it changes the output more than that does (Belinkov 2022, section 4; Elazar et al. 2021, arXiv 2006.00995).
"""

from interp.analyses.causal.directions import check_directions
from interp.analyses.causal.edits import EDITS
from interp.analyses.causal.result import CausalUse, Dose, Effect
from interp.analyses.causal.run import causal_use, most_passes

__all__ = ["EDITS", "CausalUse", "Dose", "Effect", "causal_use", "check_directions", "most_passes"]
