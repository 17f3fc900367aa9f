"""Steering: a direction of a site, how far to push along it, and what that does beside doing nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.steering import SCORES as SCORES
    from interp.analyses.steering import Lexicon as Lexicon
    from interp.analyses.steering import LogOdds as LogOdds
    from interp.analyses.steering import ProbeScore as ProbeScore
    from interp.analyses.steering import SteeringResult as SteeringResult
    from interp.analyses.steering import Texts as Texts
    from interp.analyses.steering import Words as Words
    from interp.analyses.steering import evaluate as evaluate
    from interp.analyses.steering import side_by_side as side_by_side
    from interp.analyses.steering import with_evaluation as with_evaluation
    from interp.steering.ablation import ablations as ablations
    from interp.steering.ablation import without as without
    from interp.steering.control_vectors import read_control_vector as read_control_vector
    from interp.steering.control_vectors import write_control_vector as write_control_vector
    from interp.steering.fitting import fit as fit
    from interp.steering.methods import METHODS as METHODS
    from interp.steering.pairs import Contrast as Contrast
    from interp.steering.pairs import read_pairs as read_pairs
    from interp.steering.vector import Origin as Origin
    from interp.steering.vector import Vector as Vector

__getattr__, __dir__, __all__ = exports(__name__)
