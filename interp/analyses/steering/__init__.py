"""Steering, evaluated: dose and response beside random directions, the opposite sign and prompting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.steering.one_prompt import Steered as Steered
    from interp.analyses.steering.one_prompt import side_by_side as side_by_side
    from interp.analyses.steering.result import SteeringResult as SteeringResult
    from interp.analyses.steering.result import over_random as over_random
    from interp.analyses.steering.run import evaluate as evaluate
    from interp.analyses.steering.run import with_evaluation as with_evaluation
    from interp.analyses.steering.scores import SCORES as SCORES
    from interp.analyses.steering.scores import Lexicon as Lexicon
    from interp.analyses.steering.scores import LogOdds as LogOdds
    from interp.analyses.steering.scores import ProbeScore as ProbeScore
    from interp.analyses.steering.scores import Score as Score
    from interp.analyses.steering.scores import Texts as Texts
    from interp.analyses.steering.scores import Words as Words

__getattr__, __dir__, __all__ = exports(__name__)
